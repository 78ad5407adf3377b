"""Samples of one unit as the methods of this folder take them: centred, in as few coordinates as they span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.units import Unit

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Centred rows `scores @ factor`, and the mean that was taken off.

    scores: (image, rank), orthonormal columns. factor: (rank, dim). mean: (dim,). All float64. rank is the number of
    the unit's own coordinates (head_dim + 2 for a head), or the smaller side of the data. Because the columns of
    `scores` are orthonormal, every sum of squares over images is one over `factor` alone.
    """

    scores: Float[Tensor, "image rank"]
    factor: Float[Tensor, "rank dim"]
    mean: Float[Tensor, " dim"]

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "image coordinate"],
        weight: Float[Tensor, "coordinate dim"] | None = None,
        bias: Float[Tensor, " dim"] | None = None,
    ) -> Samples:
        """Of plain rows, or of `rows @ weight + bias`, which is then never formed.

        O(image x coordinate^2 + coordinate^2 x dim). `BadInputError` without rows, or with numbers that are not finite.
        """
        rows = rows.double()
        if not len(rows):
            raise BadInputError("there are no samples to describe; expected at least one")
        if not bool(torch.isfinite(rows).all()):
            raise BadInputError("samples hold NaN or infinity; expected finite numbers")
        centre = rows.mean(dim=0)
        # QR and not the eigenvectors of the scatter: those lose every direction below 1e-8 of the largest
        scores, factor = torch.linalg.qr(rows - centre)
        # of rows that never vary the difference to their mean is rounding
        constant = factor.abs().max() <= 1e-14 * len(rows) ** 0.5 * centre.abs().max()
        factor = torch.zeros_like(factor) if constant else factor
        if weight is None:
            return cls(scores, factor, centre)
        mean = centre @ weight.double()
        return cls(scores, factor @ weight.double(), mean if bias is None else mean + bias.double())

    @classmethod
    def of_unit(cls, coordinates: Coordinates, maps: UnitMaps, unit: Unit) -> Samples:
        """Of one unit's contributions."""
        return cls.of(coordinates.of(unit), maps.weight(unit), maps.bias(unit))

    def __len__(self) -> int:
        return self.scores.shape[0]

    @property
    def sum_of_squares(self) -> float:
        """Of the centred rows: their total variance times the number of images (less one, as people divide)."""
        return float(self.factor.square().sum())
