"""Every unit's product with every class vector: all that accuracy under ablation needs.

A logit is the cosine of an embedding with a class vector, and the embedding's length is common to all classes. Which
class wins is therefore decided by `sum_u <contribution_u, class vector>`, which adds up over units: leaving units out
is a sum over fewer columns, exactly, and the (image, unit, dim) tensor is never made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.units import Unit

__all__ = ["ClassProducts", "unit_means"]

_BYTES = 2**26
"""What one block of products may take."""


@dataclass(frozen=True)
class ClassProducts:
    """The products of the units of some images with class vectors, block by block, in float64.

    units: in unit order. weights: (coordinate, class) a unit, its map times the class vectors; constants:
    (unit, class), likewise of its constants.
    """

    coordinates: Coordinates
    labels: Int[Tensor, " image"]
    units: tuple[Unit, ...]
    weights: tuple[Tensor, ...]
    constants: Float[Tensor, "unit class"]

    @classmethod
    def of(
        cls,
        coordinates: Coordinates,
        labels: Int[Tensor, " image"],
        maps: UnitMaps,
        vectors: Float[Tensor, "class dim"],
    ) -> ClassProducts:
        """Of all units. Costs coordinate x dim x class a unit before the first image."""
        units, to = tuple(maps.units), vectors.double().T
        # towers that pool by attention have one map for all units: it is multiplied, and held, once
        known: dict[int, Tensor] = {}
        weights = []
        for unit in units:
            weight = maps.weight(unit)
            if weight.data_ptr() not in known:
                known[weight.data_ptr()] = weight.double() @ to
            weights.append(known[weight.data_ptr()])
        constants = torch.stack([maps.bias(unit).double() for unit in units]) @ to
        return cls(coordinates, labels, units, tuple(weights), constants)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """How many class vectors there are."""
        return self.constants.shape[1]

    def blocks(self) -> Iterator[tuple[Float[Tensor, "image unit class"], Int[Tensor, " image"]]]:
        """(products, labels) of a few images at a time. O(image x coordinate x class) over all of them."""
        size = max(_BYTES // (8 * len(self.units) * self.n_classes), 1)
        for start in range(0, len(self), size):
            part = self.coordinates[start : start + size]
            products = torch.empty(len(part), len(self.units), self.n_classes, dtype=torch.float64)
            for i, (unit, weight) in enumerate(zip(self.units, self.weights, strict=True)):
                products[:, i] = part.of(unit).double() @ weight
            yield products + self.constants, self.labels[start : start + size]


def unit_means(coordinates: Coordinates, maps: UnitMaps) -> Mapping[str, Tensor]:
    """The mean contribution, (dim,) float64, of every unit over some images. One product a unit."""
    return {
        unit.label: coordinates.of(unit).double().mean(dim=0) @ maps.weight(unit).double() + maps.bias(unit).double()
        for unit in maps.units
    }
