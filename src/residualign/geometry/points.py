"""The contributions of a unit as points with the same distances and fewer numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.store import StoreSplit
from residualign.units import Unit

__all__ = ["Isometry", "output_points", "unit_points"]

_GROUP_BYTES = 64 * 2**20
"""Points of several units are collected in one pass over the store; more than this only where one unit needs it."""

_BATCH = 512


@dataclass(frozen=True, eq=False)
class Isometry:
    """Maps a unit's coordinates y to points whose distances are those of the contributions y B + c in R^dim.

    origin: (coordinate,), a y that is subtracted first: where y never varies, or hardly, the points keep their digits.
    projection: (coordinate, size), the L of B = L Q with orthonormal rows Q; size is the smaller of coordinate (a
    head's head_dim + 2) and dim. None where B is the identity.
    """

    origin: Float[Tensor, " coordinate"]
    projection: Float[Tensor, "coordinate size"] | None

    @classmethod
    def of(cls, maps: UnitMaps, unit: Unit, origin: Float[Tensor, " coordinate"]) -> Isometry:
        """The isometry of one unit. Costs one QR of its map, O(coordinate^2 dim)."""
        if maps.layout == "contributions":
            return cls(origin.double(), None)
        weight = maps.weight(unit).double()
        projection = torch.linalg.qr(weight.mT).R.mT if weight.shape[0] < weight.shape[1] else weight
        return cls(origin.double(), projection)

    @property
    def size(self) -> int:
        """Numbers of a point."""
        return len(self.origin) if self.projection is None else self.projection.shape[1]

    def __call__(self, y: Float[Tensor, "image coordinate"]) -> Float[Tensor, "image size"]:
        """The points of some images, float64."""
        moved = y.double() - self.origin
        return moved if self.projection is None else moved @ self.projection


def unit_points(split: StoreSplit, units: Sequence[Unit]) -> Iterator[tuple[Unit, Float[Tensor, "image size"]]]:
    """(unit, points) of every unit asked for, in order, float64: distances between points are those in R^dim.

    Reads the split once for as many units as fit into 192 MiB together, one at least.
    """
    if not units or not len(split):
        return
    maps, n = split.store.maps, len(split)
    first = next(split.batches(1))
    group: list[tuple[Unit, Isometry]] = []
    held = 0
    for unit in units:
        isometry = Isometry.of(maps, unit, first.of(unit)[0])
        size = 8 * n * isometry.size
        if group and held + size > _GROUP_BYTES:
            yield from _read(split, group)
            group, held = [], 0
        group.append((unit, isometry))
        held += size
    yield from _read(split, group)


def output_points(split: StoreSplit) -> Float[Tensor, "image dim"]:
    """The model's own embeddings, not normalised, about the first of them, in float64."""
    embeddings = split.embeddings().double()
    return embeddings - embeddings[0]


def _read(split: StoreSplit, group: list[tuple[Unit, Isometry]]) -> Iterator[tuple[Unit, Tensor]]:
    collected = [torch.empty(len(split), isometry.size, dtype=torch.float64) for _, isometry in group]
    start = 0
    for batch in split.batches(_BATCH):
        _fill(collected, group, batch, start)
        start += len(batch)
    # each is let go once it has been looked at
    for (unit, _), points in zip(group, _popped(collected), strict=True):
        yield unit, points


def _fill(collected: list[Tensor], group: list[tuple[Unit, Isometry]], batch: Coordinates, start: int) -> None:
    for points, (unit, isometry) in zip(collected, group, strict=True):
        points[start : start + len(batch)] = isometry(batch.of(unit))


def _popped(collected: list[Tensor]) -> Iterator[Tensor]:
    while collected:
        yield collected.pop(0)
