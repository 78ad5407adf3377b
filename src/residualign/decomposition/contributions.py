"""Contributions of residual units to image embeddings: sum, select, ablate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.units import Unit

__all__ = ["Contributions"]


@dataclass(frozen=True)
class Contributions:
    """Direct contributions of units to the embeddings of some images, kept compact until asked for.

    units: in the order of `values`. replacements: units that `ablate` set to a constant, by label, (dim,) each; a unit
    that was zeroed has none and is gone from `units`. Nothing of size (image, unit, dim) exists before `values` is
    read.
    """

    coordinates: Coordinates
    maps: UnitMaps
    units: tuple[Unit, ...]
    replacements: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, coordinates: Coordinates, maps: UnitMaps) -> Contributions:
        """Every unit's contribution, from coordinates and the tower's maps."""
        return cls(coordinates, maps, tuple(maps.units))

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, unit: Unit | str) -> Float[Tensor, "image dim"]:
        """One unit's contribution; `BadInputError` for a unit that is not among `units`."""
        found = self.maps.units.get(unit)
        if found not in self.units:
            raise BadInputError(f"unit {found.label!r} is not among the {len(self.units)} units selected here")
        if found.label in self.replacements:
            return self.replacements[found.label].expand(len(self), -1)
        return self.maps.contribution(self.coordinates, found)

    @property
    def output(self) -> Float[Tensor, "image dim"]:
        """The model's own embedding, not normalised; selecting and ablating do not change it."""
        return self.coordinates.output

    @property
    def values(self) -> Float[Tensor, "image unit dim"]:
        """All contributions as one tensor, computed anew at each access: image x unit x dim numbers."""
        if not self.units:
            return self.output.new_zeros(len(self), 0, self.maps.dim)
        return torch.stack([self[unit] for unit in self.units], dim=1)

    def sum(self) -> Float[Tensor, "image dim"]:
        """The sum over `units`, one unit at a time; over all units of the tower as a few large products."""
        if self.units == tuple(self.maps.units) and not self.replacements:
            return self.maps.sum(self.coordinates)
        total = torch.zeros_like(self.output)
        for unit in self.units:
            total += self[unit]
        return total

    @property
    def residual_error(self) -> float:
        """Largest |sum of all units - model output| over largest |model output| of these images."""
        output = self.output
        return float((self.maps.sum(self.coordinates) - output).abs().max() / output.abs().max())

    def select(self, units: Iterable[Unit | str]) -> Contributions:
        """Only these units, in unit order whatever the order given; `BadInputError` for one that does not exist."""
        wanted = self._resolve(units)
        return replace(self, units=tuple(unit for unit in self.units if unit in wanted))

    def ablate(
        self,
        units: Iterable[Unit | str],
        mode: Literal["zero", "mean"] | str = "zero",
        means: Mapping[str, Tensor] | None = None,
    ) -> Contributions:
        """Leave units out, or put their mean in their place.

        `"zero"` takes a unit away together with its share of the constants. `"mean"` puts in `means[label]` (dim,),
        or, without `means`, the mean over these images. Source: mean ablation as in arXiv 2310.05916, section 3.
        """
        gone = self._resolve(units)
        if mode == "zero":
            return replace(self, units=tuple(unit for unit in self.units if unit not in gone))
        if mode != "mean":
            raise BadInputError(f"mode is 'zero' or 'mean'; got {mode!r}")
        replaced = dict(self.replacements)
        for unit in gone:
            replaced[unit.label] = self[unit].mean(dim=0) if means is None else means[unit.label].to(self.output)
        return replace(self, replacements=replaced)

    def _resolve(self, units: Iterable[Unit | str]) -> set[Unit]:
        if isinstance(units, str | Unit):
            raise BadInputError(f"units is a list of units or labels; got the single {units!r}")
        return {self.maps.units.get(unit) for unit in units}
