"""The share of a unit's variance that is between classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError

__all__ = ["LabeledSplit", "class_separation"]

_BLOCK = 1024
_ROUNDING = 1e-26


@runtime_checkable
class LabeledSplit(Protocol):
    """Coordinates of images batch by batch, and their labels: what a `StoreSplit` has."""

    @property
    def labels(self) -> Int[Tensor, " image"]:
        """Class indices, in the order of the batches."""

    def batches(self, size: int) -> Iterator[Coordinates]:
        """At most `size` images at a time."""


def class_separation(split: LabeledSplit, maps: UnitMaps, n_classes: int) -> Float[Tensor, " unit"]:
    """The share of each unit's variance that is between classes, in unit order, at most 1.

    Adjusted for chance: where classes are drawn at random its expectation is zero, and it may fall below. A unit that
    never varies has NaN, and so has every unit where no class has two images. float64; one pass over the split, memory
    O(class x all coordinates). `BadInputError` for labels outside [0, n_classes). Source: epsilon squared of a one-way
    analysis of variance (Kelley 1935), with sums of squares taken over all dimensions of the contribution.
    """
    labels = split.labels
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < n_classes):
        raise BadInputError(f"labels are between {labels.min()} and {labels.max()}, expected 0 to {n_classes - 1}")
    counts = torch.bincount(labels, minlength=n_classes).double()
    units = tuple(maps.units)
    # about the mean: without it, sums of squares of a unit with a large mean lose their digits
    centers = _means(split, maps)
    sums = [torch.zeros(n_classes, len(center), dtype=torch.float64) for center in centers]
    total = torch.zeros(len(units), dtype=torch.float64)
    start = 0
    for batch in split.batches(_BLOCK):
        own = labels[start : start + len(batch)]
        start += len(batch)
        for i, unit in enumerate(units):
            centered = batch.of(unit).double() - centers[i]
            sums[i].index_add_(0, own, centered)
            total[i] += (centered @ maps.weight(unit).double()).square().sum()
    between = torch.stack(
        [
            ((by_class @ maps.weight(unit).double()).square().sum(dim=1) / counts.clamp(min=1)).sum()
            for unit, by_class in zip(units, sums, strict=True)
        ]
    )
    # what rounding leaves of a unit that never varies
    lengths = torch.stack([(c @ maps.weight(u).double()).square().sum() for u, c in zip(units, centers, strict=True)])
    varies = total > _ROUNDING * counts.sum() * lengths
    return torch.where(varies, _adjusted(between, total, counts), torch.nan)


def _adjusted(between: Tensor, total: Tensor, counts: Int[Tensor, " class"] | Tensor) -> Float[Tensor, " unit"]:
    n, filled = float(counts.sum()), float((counts > 0).sum())
    if n <= filled:
        return torch.full_like(total, torch.nan)
    share: Tensor = 1 - ((total - between) / (n - filled)) / (total / (n - 1))
    return share


def _means(split: LabeledSplit, maps: UnitMaps) -> list[Tensor]:
    sums: list[Tensor] = []
    n = 0
    for batch in split.batches(_BLOCK):
        own = [batch.of(unit).double().sum(dim=0) for unit in maps.units]
        sums = own if not sums else [a + b for a, b in zip(sums, own, strict=True)]
        n += len(batch)
    if not n:
        raise BadInputError("the separation of classes needs images, got none")
    return [total / n for total in sums]
