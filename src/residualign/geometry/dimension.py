"""Linear dimensions of a unit: how many components its variance needs, and how evenly they share it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.spectrum import Spectrum, truncate
from residualign.spectrum._pca import RELATIVE_CUTOFF

__all__ = ["LinearDimension", "linear_dimension", "linear_dimension_of_points"]


@dataclass(frozen=True)
class LinearDimension:
    """components: the fewest leading ones that hold the threshold's share of variance; 0 where nothing varies.

    evr_first: the share of the first component, in (0, 1]. participation_ratio: (sum of eigenvalues)^2 over the sum of
    their squares, from 1 (one direction) to the number of directions (all alike). Both nan where nothing varies.
    """

    components: int
    evr_first: float
    participation_ratio: float


def linear_dimension(spectrum: Spectrum, threshold: float = 0.99) -> LinearDimension:
    """The linear dimension L of a unit from its spectrum.

    threshold: a share of variance in (0, 1]; `BadInputError` outside. Where a spectrum was cut (a head of a tower that
    pools by attention keeps head_dim components unless told otherwise) and does not reach the threshold, L is the
    number it has, and the participation ratio leaves the squares of what was cut out of its denominator. Source: arXiv
    2411.00246 section 4 (L and the explained variance ratio); the participation ratio as in its published code.
    """
    kept = truncate(spectrum, threshold).n_components
    if kept == 0:
        return LinearDimension(0, float("nan"), float("nan"))
    variance = spectrum.explained_variance.double()
    participation = spectrum.total_variance**2 / float(variance.square().sum())
    return LinearDimension(kept, float(variance[0]) / spectrum.total_variance, participation)


def linear_dimension_of_points(points: Float[Tensor, "image size"], threshold: float = 0.99) -> LinearDimension:
    """The same for points without a spectrum, by the rules of one: O(image size^2 + size^3)."""
    centred = points.double() - points.double().mean(dim=0)
    n, size = centred.shape
    # the smaller of the two products: both have the same eigenvalues but for zeros
    product = centred @ centred.T if n < size else centred.T @ centred
    variance = torch.linalg.eigvalsh(product).flip(0).clamp(min=0) / max(n - 1, 1)
    largest = float(variance[0]) if len(variance) else 0.0
    kept = variance[variance > RELATIVE_CUTOFF * largest] if largest > 0 else variance[:0]
    nothing = torch.zeros(len(kept), 0, dtype=torch.float64)
    spectrum = Spectrum(points.new_zeros(0).double(), nothing, kept, float(variance.sum()), n)
    return linear_dimension(spectrum, threshold)
