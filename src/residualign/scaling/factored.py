"""Everything a method learned, of a tower whose coordinates are contributions: components applied unit by unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates

__all__ = ["FactoredMap"]


@dataclass(frozen=True)
class FactoredMap:
    """`adapted = sum_u (x_u Phi_u^T * scale_u) Phi_u @ after + output @ W (+ output) + bias`, absent terms left out.

    x_u: (image, dim), a unit's contribution. factors: label, components (component, dim), scale (component,); without
    components the one scale multiplies the whole contribution. output and after: (dim, dim). bias: (dim,).
    """

    bias: Float[Tensor, " dim"]
    adds_output: bool
    factors: tuple[tuple[str, Tensor | None, Tensor], ...] = ()
    output: Float[Tensor, "dim dim"] | None = None
    after: Float[Tensor, "dim dim"] | None = None

    @property
    def needs_units(self) -> bool:
        """Whether coordinates of units are read: without them the plain embedding is enough and nothing is traced."""
        return bool(self.factors)

    def of_output(self, output: Float[Tensor, "image dim"]) -> Float[Tensor, "image dim"]:
        """The part that comes from the model's own embedding and the bias; all of it where not `needs_units`."""
        total = self.bias + output if self.adds_output else self.bias.expand(output.shape[0], -1)
        return total if self.output is None else torch.addmm(total, output, self.output)

    def __call__(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalised: O(image x component x dim), in the dtype of the map."""
        y = coordinates.to(dtype=self.bias.dtype)
        units = y.units
        total = torch.zeros_like(y.output)
        for label, components, scale in self.factors:
            x = y.of(units.get(label))
            total = total + scale * x if components is None else total.addmm_(x @ components.T * scale, components)
        return self.of_output(y.output) + (total if self.after is None else total @ self.after)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FactoredMap:
        """The same map on another device or in another dtype."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, dtype)

        factors = tuple(
            (label, moved(components), scale.to(device, dtype)) for label, components, scale in self.factors
        )
        return FactoredMap(
            self.bias.to(device, dtype), self.adds_output, factors, moved(self.output), moved(self.after)
        )
