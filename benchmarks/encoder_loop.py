"""Fitting as published: every step runs the whole encoder, decomposes the embedding, scales it and updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.decomposition.contributions import Contributions
from residualign.decomposition.coordinates import UnitMaps
from residualign.decomposition.trace import trace_coordinates
from residualign.fitting.coefficients import Scaling
from residualign.models.tower import Tower

__all__ = ["EncoderLoop"]


@dataclass
class EncoderLoop:
    """One optimizer over lambdas, and a frozen encoder that runs again for every batch of every epoch.

    The steps are those of the published code (arXiv 2411.00246): the (image, unit, dim) tensor of contributions, each
    unit into its components, times lambda, and back. This is faster than the published code: tracing costs what ours
    costs, only the components that are kept are multiplied, and there is no padding.
    """

    tower: Tower
    maps: UnitMaps
    scaling: Scaling
    class_vectors: Tensor
    logit_scale: float
    lambdas: Tensor
    optimizer: Any

    @classmethod
    def start(
        cls, tower: Tower, maps: UnitMaps, scaling: Scaling, class_vectors: Tensor, logit_scale: float, rate: float
    ) -> EncoderLoop:
        """Lambdas of one, and the optimizer of the paper."""
        lambdas = torch.ones(scaling.n_lambdas, dtype=maps.heads.dtype, requires_grad=True)
        optimizer = AdamWScheduleFree([lambdas], lr=rate, weight_decay=0.0, warmup_steps=0)
        optimizer.train()
        return cls(tower, maps, scaling, class_vectors, logit_scale, lambdas, optimizer)

    def step(self, pixels: Tensor, labels: Tensor) -> float:
        """One batch: forward, decompose, scale, cosine logits, step. Returns the loss."""
        with torch.no_grad():
            values = Contributions.of(trace_coordinates(self.tower, pixels), self.maps).values
        self.optimizer.zero_grad(set_to_none=True)
        unit = F.normalize(self.adapted(values), dim=-1)
        loss = F.cross_entropy(self.logit_scale * unit @ self.class_vectors.T, labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def adapted(self, values: Tensor) -> Tensor:
        """Adapted embeddings from (image, unit, dim) contributions. What is outside a unit's components is dropped.

        With all components, as in `residual`, that is nothing; `residual-heads` drops it by definition.
        """
        units = self.maps.units
        position = {label: i for i, label in enumerate(units.labels)}
        scaled = {unit.label for unit in self.scaling.units}
        kept = [i for label, i in position.items() if label not in scaled]
        total = values[:, kept].sum(dim=1) if self.scaling.rest == "keep" else torch.zeros_like(values[:, 0])
        for unit, lambdas in zip(self.scaling.units, self.scaling.split(self.lambdas).values(), strict=True):
            assert unit.components is not None
            coefficients = (values[:, position[unit.label]] - unit.mean) @ unit.components.T
            total = total + (coefficients * lambdas) @ unit.components
            if self.scaling.mean == "keep":
                total = total + unit.mean
        return total
