"""The normalized spectral cosine between two bases of principal components, unit by unit and for all pairs of heads.

With components x_i, y_j of length one and their weights v_i, w_j (both falling), M_ij = |x_i . y_j| v_i w_j is matched
one to one, and

    similarity = sqrt(sum of M_ij^2 over matched (i, j)) / sqrt(sum_{i <= min(k_x, k_y)} (v_i w_i)^2).

Weighted: v, w are the explained variances. Unweighted: all weights are one. Both are in [0, 1]: no one-to-one matching
of two falling sequences has a larger sum of squared products than the first with the first, the second with the second,
and so on. Signs of components do not matter, nor a common factor of the variances. Source: arXiv 2411.00246, section 4
(normalized spectral cosine similarity); bases are cut at 0.9 of the variance there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from residualign.data.split import ImageData
from residualign.errors import BadInputError
from residualign.extraction import Reading, fit_spectrum
from residualign.models.vision_model import VisionModel
from residualign.similarity.result import HeadPairs, Matching, SpectralCosine, SpectraSimilarity, UnitSimilarity
from residualign.spectrum import Spectra, Spectrum, truncate
from residualign.store import Store, StoreSplit
from residualign.units import Unit

__all__ = ["check_space", "compare_heads", "compare_spectra", "greedy_squares", "optimal_squares", "spectral_cosine"]

VARIANCE_THRESHOLD = 0.9
"""Share of a unit's variance at which the paper cuts its basis."""

# bytes of cosines held at a time: more leaves the processor's caches and is slower
_BLOCK_BYTES = 8 * 2**20


_Images = Spectra | Store | StoreSplit | tuple[VisionModel, ImageData]


def compare_spectra(
    a: _Images,
    b: _Images,
    *,
    split: str | None = None,
    variance_threshold: float = VARIANCE_THRESHOLD,
    same_space: bool = False,
    **reading: Unpack[Reading],
) -> SpectraSimilarity:
    """Compare the principal components of the same units on two sets of images.

    Parameters
    ----------
    a, b : Spectra, Store, StoreSplit or (VisionModel, ImageData)
        Two sets of images of one model, or of two models with the same units and output space: their spectra, a store,
        some images of one, or a model and data in a tuple, whose images pass through the model once.
    split : {"train", "val", "test"}, optional
        The images of a store or of data, by default "train".
    variance_threshold : float
        Share of a unit's variance at which its basis is cut, in (0, 1].
    same_space : bool
        Says that two models of different weights share their output space, as fine-tuned variants do; dimensions alone
        cannot tell.
    **reading
        `batch_size`, `workers`, `skip_bad` and `progress`, as in `extract`, for a model and data.

    Returns
    -------
    SpectraSimilarity
        Symmetric in a and b, but for ties (see `greedy_squares`).

    Raises
    ------
    BadInputError
        For spectra of different weights without `same_space`, of different units, or of different dim.

    Notes
    -----
    Costs, per unit, one product of its two bases, a few rounds over the k x k cosines, and O(k^3) for the optimal
    matching.

    References
    ----------
    ResiDual, arXiv 2411.00246, section 4 (normalized spectral cosine similarity).
    """
    a, b = (_spectra(images, split, reading) for images in (a, b))
    check_space(a, b, same_space)
    if a.units != b.units:
        raise BadInputError(f"units are compared label by label; one tower has {a.units}, the other {b.units}")
    found: dict[Unit, UnitSimilarity] = {}
    for kind in ("embedding", "mlp", "head"):
        units = a.units.of_kind(kind)
        results = _by_unit([a[unit] for unit in units], [b[unit] for unit in units], variance_threshold)
        for unit, (counts, cosine) in zip(units, results, strict=True):
            found[unit] = UnitSimilarity(unit.label, unit.kind, unit.layer, unit.head, counts, cosine)
    ((counts, cosine),) = _by_unit([a.output], [b.output], variance_threshold)
    output = UnitSimilarity("output", "output", None, None, counts, cosine)
    return SpectraSimilarity(a.source, b.source, tuple(found[unit] for unit in a.units), output, variance_threshold)


def _spectra(images: _Images, split: str | None, reading: Reading) -> Spectra:
    if isinstance(images, Spectra):
        return images
    source, data = images if isinstance(images, tuple) else (images, None)
    return fit_spectrum(source, data, split=split, **reading)


def compare_heads(
    a: Spectra,
    b: Spectra,
    *,
    variance_threshold: float = VARIANCE_THRESHOLD,
    matching: Matching = "greedy",
    same_space: bool = False,
) -> HeadPairs:
    """All pairs of a head of `a` and a head of `b`, which may have different numbers of layers and heads.

    Errors as for `compare_spectra`, except that units may differ. Costs one product of all components with all, and
    matching in blocks of bounded memory; "optimal" adds one assignment per pair.
    """
    check_space(a, b, same_space)
    rows, columns = a.units.of_kind("head"), b.units.of_kind("head")
    first = _Bases.of([a[unit] for unit in rows], variance_threshold)
    second = _Bases.of([b[unit] for unit in columns], variance_threshold)
    height, width = first.components.shape[1], second.components.shape[1]
    weighted = first.components.new_empty(len(rows), len(columns))
    unweighted = torch.empty_like(weighted)
    step = max(1, _BLOCK_BYTES // (8 * len(columns) * max(height * width, 1)))
    every_column = torch.arange(len(columns), device=weighted.device)
    for some_rows in torch.arange(len(rows), device=weighted.device).split(step):
        product = first.components[some_rows].flatten(0, 1) @ second.components.flatten(0, 1).T
        cosines = product.abs_().view(-1, height, len(columns), width).transpose(1, 2).flatten(0, 1)
        of_rows = first.weights[some_rows.repeat_interleave(len(columns))]
        of_columns = second.weights[every_column.repeat(len(some_rows))]
        for into, by_variance in ((weighted, True), (unweighted, False)):
            values = _similarity(cosines, of_rows, of_columns, by_variance, matching)
            into[some_rows] = values.view(len(some_rows), len(columns))
    return HeadPairs(a.source, b.source, rows, columns, weighted, unweighted, matching, variance_threshold)


def spectral_cosine(a: Spectrum, b: Spectrum, variance_threshold: float = VARIANCE_THRESHOLD) -> SpectralCosine:
    """The four similarities of two bases in one space, each cut at this share of its variance."""
    _check_dim(a.mean.shape[0], b.mean.shape[0])
    ((_, cosine),) = _by_unit([a], [b], variance_threshold)
    return cosine


def check_space(a: Spectra, b: Spectra, same_space: bool) -> None:
    """`BadInputError` unless both are in one space: that of one model, or of two models if the caller says so."""
    both_known = bool(a.model_fingerprint and b.model_fingerprint)
    if both_known and a.model_fingerprint != b.model_fingerprint and not same_space:
        raise BadInputError(
            "the spectra are those of models with different weights, whose components need not share a space; say so "
            "(same space) if they are fine-tuned variants of one model, or use CKA on the same images"
        )
    _check_dim(a.dim, b.dim)


def _check_dim(a: int, b: int) -> None:
    if a != b:
        raise BadInputError(f"bases are compared in one space; one has {a} dimensions, the other {b}; use CKA")


@dataclass(frozen=True)
class _Weights:
    """Explained variances over the largest of the unit, which cancels; zero beyond `counts`, a unit's components."""

    variances: Float[Tensor, "unit component"]
    counts: Float[Tensor, " unit"]

    def __getitem__(self, units: Tensor) -> _Weights:
        return _Weights(self.variances[units], self.counts[units])


@dataclass(frozen=True)
class _Bases:
    """Bases of several units, filled up with zeros to the same number of components."""

    components: Float[Tensor, "unit component dim"]
    weights: _Weights

    @classmethod
    def of(cls, spectrums: Sequence[Spectrum], variance_threshold: float) -> _Bases:
        cut = [truncate(spectrum, variance_threshold) for spectrum in spectrums]
        counts = [spectrum.n_components for spectrum in cut]
        dim, device = cut[0].mean.shape[0], cut[0].mean.device
        components = torch.zeros(len(cut), max(counts), dim, dtype=torch.float64, device=device)
        variances = torch.zeros(len(cut), max(counts), dtype=torch.float64, device=device)
        for i, spectrum in enumerate(cut):
            if spectrum.n_components:
                components[i, : counts[i]] = spectrum.components
                variances[i, : counts[i]] = spectrum.explained_variance / spectrum.explained_variance[0]
        return cls(components, _Weights(variances, torch.tensor(counts, dtype=torch.float64, device=device)))


def _by_unit(
    first: Sequence[Spectrum], second: Sequence[Spectrum], variance_threshold: float
) -> list[tuple[tuple[int, int], SpectralCosine]]:
    """Numbers of components and similarities of the first with the first, the second with the second, and so on."""
    a, b = _Bases.of(first, variance_threshold), _Bases.of(second, variance_threshold)
    cosines = (a.components @ b.components.mT).abs_()
    columns = [
        _similarity(cosines, a.weights, b.weights, weighted, matching).tolist()
        for matching in ("greedy", "optimal")
        for weighted in (True, False)
    ]
    counts = zip(a.weights.counts.int().tolist(), b.weights.counts.int().tolist(), strict=True)
    return [(pair, SpectralCosine(*values)) for pair, values in zip(counts, zip(*columns, strict=True), strict=True)]


def _similarity(
    cosines: Float[Tensor, "pair row column"], a: _Weights, b: _Weights, weighted: bool, matching: Matching
) -> Float[Tensor, " pair"]:
    fewest = torch.minimum(a.counts, b.counts)
    if weighted:
        matrix = cosines * a.variances[:, :, None] * b.variances[:, None, :]
        length = min(cosines.shape[1:])
        squares = (a.variances[:, :length] * b.variances[:, :length]).square().sum(dim=1)
    else:
        matrix, squares = cosines, fewest
    matched = greedy_squares(matrix) if matching == "greedy" else optimal_squares(matrix)
    value = (matched / squares).sqrt().clamp(max=1.0)
    return torch.where(fewest > 0, value, math.nan)


def greedy_squares(weights: Float[Tensor, "pair row column"]) -> Float[Tensor, " pair"]:
    """Sum of the squares of the entries that greedy one-to-one matching picks in each matrix, entries >= 0.

    Greedy takes the largest entry, strikes out its row and column, and goes on; of equal entries the one in the first
    row is taken, and within a row that in the first column. Zeros add nothing, so that matrices may be filled up with
    them. All matrices take a step together: O(pair x row x column) each of min(row, column) steps, and one copy of the
    input.

    >>> float(greedy_squares(torch.tensor([[[3.0, 2.9], [2.9, 0.0]]])))
    9.0
    """
    n_pairs, n_rows, n_columns = weights.shape
    total = weights.new_zeros(n_pairs)
    left = weights.clone()
    pairs = torch.arange(n_pairs, device=weights.device)
    for _ in range(min(n_rows, n_columns)):
        largest, place = left.flatten(1).max(dim=1)
        total += largest.square()
        left[pairs, place // n_columns] = 0
        left[pairs, :, place % n_columns] = 0
    return total


def optimal_squares(weights: Float[Tensor, "pair row column"]) -> Float[Tensor, " pair"]:
    """The largest sum of squares that a one-to-one matching can have, by scipy's `linear_sum_assignment`.

    At most twice the greedy one. One matrix after the other: O(k^3) each at worst.
    """
    totals = []
    for matrix in weights.square().cpu().numpy():
        rows, columns = linear_sum_assignment(matrix, maximize=True)
        totals.append(float(matrix[rows, columns].sum()))
    return torch.tensor(totals, dtype=weights.dtype, device=weights.device)
