"""Relative representations: an image by the cosines of its contribution with those of some anchor images.

They make two sets comparable by the company they keep, even in different spaces, if the anchors are the same images.
Source: Moschella et al. 2209.15430; arXiv 2411.00246 compares units by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.errors import BadInputError
from residualign.store import StoreSplit

__all__ = ["RelativeMeans", "draw_anchors", "relative_means"]

_BATCH = 512


@dataclass(frozen=True, eq=False)
class RelativeMeans:
    """The mean relative representation of every unit over some images: values (unit, anchor), in [-1, 1]."""

    labels: tuple[str, ...]
    values: Float[Tensor, "unit anchor"]


def draw_anchors(split: StoreSplit, count: int, seed: int = 0) -> StoreSplit:
    """`count` images of a split (all, where there are fewer), drawn without replacement, in the order of the split.

    The same seed and number of images give the same rows, of whichever store. Nothing of the global generators is used
    or changed.
    """
    if count < 2:
        raise BadInputError(f"correlations need at least two anchors, got {count}")
    generator = torch.Generator().manual_seed(seed)
    return split.take(torch.randperm(len(split), generator=generator)[:count].sort().values)


def relative_means(split: StoreSplit, anchors: StoreSplit) -> RelativeMeans:
    """Mean over the images of a split of the cosines of each unit's contribution with those of the anchors.

    anchors: of a store of the same model, or of one that shares its output space. Contributions are taken as they are,
    not centred; a contribution of zero has cosine zero. Costs O(image x unit x dim x (coordinate + anchor)) in float64;
    holds the anchors' contributions, unit x anchor x dim numbers.
    """
    maps, anchor_maps = (one.store.maps.to(dtype=torch.float64) for one in (split, anchors))
    if maps.units != anchor_maps.units or maps.dim != anchor_maps.dim:
        raise BadInputError("anchors are images of the same units in the same space, got those of another tower")
    if not len(split) or not len(anchors):
        raise BadInputError("relative representations need images and anchors, got none")
    of_anchors = anchors.coordinates().to(dtype=torch.float64)
    directions = [
        torch.nn.functional.normalize(anchor_maps.contribution(of_anchors, unit), dim=1) for unit in maps.units
    ]
    total = torch.zeros(len(maps.units), len(anchors), dtype=torch.float64)
    for batch in split.batches(_BATCH):
        coordinates = batch.to(dtype=torch.float64)
        for i, unit in enumerate(maps.units):
            unit_rows = torch.nn.functional.normalize(maps.contribution(coordinates, unit), dim=1)
            # the mean of cosines is the cosine with the mean of unit rows: one product a unit, not one an image
            total[i] += directions[i] @ unit_rows.sum(dim=0)
    return RelativeMeans(maps.units.labels, total / len(split))
