"""Comparison of two data sets by the mean contribution of each unit, as it is and relative to anchors.

Means say where a unit's contributions are, the spectral cosine says how they vary. Source: arXiv 2411.00246,
experiments on heads. Pearson's and Spearman's correlation here are those of the textbooks: centered, over the entries,
equal entries sharing their mean rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from residualign.errors import BadInputError
from residualign.similarity.result import MeanSimilarity
from residualign.similarity.spectral import check_space
from residualign.spectrum import Spectra
from residualign.store import StoreSplit

__all__ = ["RelativeMeans", "compare_means", "draw_anchors", "relative_means"]


def compare_means(
    a: Spectra,
    b: Spectra,
    relative: tuple[RelativeMeans, RelativeMeans] | None = None,
    *,
    same_space: bool = False,
) -> tuple[MeanSimilarity, ...]:
    """Every unit's mean contribution on two sets of images, in unit order.

    relative: what `relative_means` gave for each of the two, with anchors that stand for the same images. Errors as for
    `compare_spectra`. Costs O(unit x dim).
    """
    check_space(a, b, same_space)
    if a.units != b.units:
        raise BadInputError(f"units are compared label by label; one tower has {a.units}, the other {b.units}")
    first, second = (torch.stack([spectrum.mean.double() for spectrum in s.spectrums]) for s in (a, b))
    columns = [*_agreement(first, second), (first - second).norm(dim=1)]
    if relative is not None:
        for one in relative:
            if one.labels != a.units.labels:
                raise BadInputError("relative means are compared label by label, got those of other units")
        columns += _agreement(relative[0].values, relative[1].values)
    lines = torch.stack(columns, dim=1).tolist()
    return tuple(MeanSimilarity(label, *values) for label, values in zip(a.units.labels, lines, strict=True))


def _agreement(first: Float[Tensor, "unit entry"], second: Float[Tensor, "unit entry"]) -> list[Tensor]:
    """Cosine, Pearson and Spearman of each row with the same row of the other."""
    ranks = [torch.from_numpy(rankdata(x.cpu().numpy(), axis=1)).to(x) for x in (first, second)]
    return [_cosine(first, second), _pearson(first, second), _pearson(*ranks)]


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    cosine: Tensor = ((first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))).clamp(-1, 1)
    return cosine


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    return _cosine(first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True))


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
    not centered; a contribution of zero has cosine zero. Costs O(image x unit x dim x (coordinate + anchor)) in
    float64; holds the anchors' contributions, unit x anchor x dim numbers.
    """
    maps, anchor_maps = (one.store.maps.to(dtype=torch.float64) for one in (split, anchors))
    if maps.units != anchor_maps.units or maps.dim != anchor_maps.dim:
        raise BadInputError("anchors are images of the same units in the same space, got those of a different tower")
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
            # the mean of cosines is the cosine with the mean of unit rows: one product per unit instead of per image
            total[i] += directions[i] @ unit_rows.sum(dim=0)
    return RelativeMeans(maps.units.labels, total / len(split))
