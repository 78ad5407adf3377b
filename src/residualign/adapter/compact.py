"""A scaling as it is saved: each component as a few half-precision numbers.

A head's components are in the row space of its own map B_u, (head_dim + 2, dim), which the model provides. They are
stored as coordinates in the orthonormal rows nearest to those of B_u: head_dim + 2 numbers of size at most one instead
of dim, and rounding them to float16 turns a component by about 2e-4, whatever the condition of B_u.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.decomposition.coordinates import UnitMaps
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, AnyScaling, AnyUnit, MeanMode, RestMode, ScaledUnit, Scaling

__all__ = ["CompactScaling", "CompactUnit", "orthonormal_rows"]

# Singular values of a map below this share of the largest are rounding: float32 maps know them to 1e-3 at best.
_RANK_CUTOFF = 1e-4
# A component that would lose more than this of its length in the row space is stored as it is.
_LOST_LENGTH = 1e-4


def orthonormal_rows(weight: Float[Tensor, "coordinate dim"]) -> Float[Tensor, "coordinate dim"]:
    """The partial isometry nearest to a map with unit rows, float64: `Q^T Q` projects on the span of the rows.

    It is the polar factor of the row-scaled map. Unlike a QR decomposition it involves no choice of sign or order, so
    two machines agree; a row of zeros stays zero. O(coordinate^2 x dim).
    """
    rows = weight.double()
    norms = rows.norm(dim=1, keepdim=True)
    rows = torch.where(norms > 1e-9 * norms.max(), rows / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    left, singular, right = torch.linalg.svd(rows, full_matrices=False)
    kept = singular > _RANK_CUTOFF * singular[:1]
    nearest: Tensor = left[:, kept] @ right[kept]
    return nearest


@dataclass(frozen=True, repr=False)
class CompactUnit(AnyUnit):
    """One scaled unit as it is stored.

    mean: (dim,), None for a unit scaled as a whole. components: (component, head_dim + 2) in the orthonormal rows of
    the unit's map if `in_rows`, else (component, dim); None for a unit scaled as a whole.
    """

    label: str
    mean: Float[Tensor, " dim"] | None
    components: Float[Tensor, "component coordinate"] | None
    in_rows: bool = False

    @classmethod
    def of(cls, unit: ScaledUnit, maps: UnitMaps, dtype: torch.dtype) -> CompactUnit:
        """A unit with its components in `dtype` and its mean in float32."""
        if unit.components is None:
            return cls(unit.label, None, None)
        mean, components = unit.mean.float().cpu(), unit.components.double()
        if unit.label != OUTPUT:
            weight = maps.weight(maps.units.get(unit.label))
            if weight.shape[0] < weight.shape[1]:
                inside = components @ orthonormal_rows(weight).to(components).T
                if bool((inside.norm(dim=1) >= 1 - _LOST_LENGTH).all()):
                    return cls(unit.label, mean, inside.to("cpu", dtype), in_rows=True)
        return cls(unit.label, mean, components.to("cpu", dtype))

    def expand(self, maps: UnitMaps) -> ScaledUnit:
        """The unit with its components in the output space, unit rows in float64, on the device of the maps.

        `BadInputError` for maps of a different tower.
        """
        like = maps.embedding.double()
        if self.components is None or self.mean is None:
            return ScaledUnit(self.label, like.new_zeros(maps.dim), None)
        components = self.components.to(like)
        weight = maps.weight(maps.units.get(self.label)) if self.in_rows else None
        expected = maps.dim if weight is None else weight.shape[0]
        if components.shape[1] != expected:
            raise BadInputError(
                f"the components of unit {self.label!r} have {components.shape[1]} coordinates, "
                f"those of this tower {expected}"
            )
        if weight is not None:
            components = components @ orthonormal_rows(weight)
        return ScaledUnit(self.label, self.mean.to(like), F.normalize(components, dim=1))


@dataclass(frozen=True, repr=False)
class CompactScaling(AnyScaling):
    """All scaled units of an adapter, and what happens to the rest; see `Scaling`. rest_mean: (dim,), float32."""

    units: tuple[CompactUnit, ...]
    mean: MeanMode
    rest: RestMode
    rest_mean: Float[Tensor, " dim"]

    @classmethod
    def of(cls, scaling: Scaling, maps: UnitMaps, dtype: torch.dtype = torch.float16) -> CompactScaling:
        """The compact form of a scaling on a tower with these maps."""
        units = tuple(CompactUnit.of(unit, maps, dtype) for unit in scaling.units)
        return cls(units, scaling.mean, scaling.rest, scaling.rest_mean.float().cpu())

    def expand(self, maps: UnitMaps) -> Scaling:
        """The scaling in the output space, float64. `BadInputError` for maps of a different tower."""
        units = tuple(unit.expand(maps) for unit in self.units)
        return Scaling(units, self.mean, self.rest, self.rest_mean.to(maps.embedding.double()))
