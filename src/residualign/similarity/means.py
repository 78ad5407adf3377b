"""What else the paper compares two data sets by: the mean contribution of each unit, by itself and relative to anchors.

These look at where a unit's contributions lie, the spectral cosine at how they vary. Source: arXiv 2411.00246,
experiments on heads. Pearson's and Spearman's correlation here are those of the textbooks: centred, over the entries,
equal entries sharing their mean rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from residualign.errors import BadInputError
from residualign.similarity.relative import RelativeMeans
from residualign.similarity.spectral import check_space
from residualign.spectrum import Spectra

__all__ = ["MeanSimilarity", "compare_means"]


@dataclass(frozen=True)
class MeanSimilarity:
    """The mean contributions of one unit on two sets of images, beside one another.

    cosine, pearson, spearman: over the entries of the means, in [-1, 1]. euclidean: distance of the means, in units of
    the embedding. relative_*: the same of the mean relative representations, over the anchors. None: was not asked for,
    or the sets share no space. NaN where a mean is zero (cosine) or constant (correlations).
    """

    label: str
    cosine: float | None
    pearson: float | None
    spearman: float | None
    euclidean: float | None
    relative_cosine: float | None = None
    relative_pearson: float | None = None
    relative_spearman: float | None = None


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
