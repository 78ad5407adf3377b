"""Principal components of `y @ weight + bias` from the mean and scatter of y alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.spectrum.spectrum import Spectrum

__all__ = ["RELATIVE_CUTOFF", "pca"]

RELATIVE_CUTOFF = 1e-10
"""Directions with less than this share of a unit's largest eigenvalue are dropped."""

# Below this the variance of a coordinate is the rounding of float64: a share of the variance itself (it comes from
# products of numbers of that size), and of the squared mean (a constant's computed mean is off by its last bits).
_VARIANCE_ROUNDING = 1e-14
_MEAN_ROUNDING = 1e-13

# Entries this close to the largest one count as tied with it, so that rounding cannot choose a component's sign.
_SIGN_TIE = 1e-6


def pca(
    count: int,
    mean: Float[Tensor, "*unit coordinate"],
    scatter: Float[Tensor, "*unit coordinate coordinate"],
    weight: Float[Tensor, "*unit coordinate dim"],
    bias: Float[Tensor, " dim"],
) -> list[Spectrum]:
    """Exact PCA of the contributions of many units at once, in float64, without forming a contribution.

    The rows of `weight` get an orthonormal basis Q (`weight = L Q`); the covariance in that basis is
    `L^T Cov(y) L`, at most coordinate x coordinate, and its eigenvectors times Q are the components in R^dim: rows
    orthonormal to rounding, errors those of the moments. Equal to the SVD of `F^T weight` with `Cov(y) = F F^T`
    (design section 2.2), with one eigendecomposition instead of an eigendecomposition and an SVD.

    A unit that never varies, or is seen on one image, has zero components. Cost per unit:
    O(coordinate^2 dim + min(coordinate, dim)^3).
    """
    weight, bias = weight.to(mean), bias.to(mean)
    dim = weight.shape[-1]
    covariance = scatter / max(count - 1, 1)
    if weight.shape[-2] < dim:
        basis, lower = torch.linalg.qr(weight.mT)
        basis, projection = basis.mT, lower.mT
    else:
        basis, projection = None, weight
    projected = projection.mT @ covariance @ projection
    variance, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    variance, vectors = variance.flip(-1).clamp(min=0), vectors.flip(-1).mT
    components = _fix_signs(vectors if basis is None else vectors @ basis)

    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    noise = _VARIANCE_ROUNDING * diagonal + (_MEAN_ROUNDING * mean) ** 2
    floor = (noise * weight.square().sum(-1)).sum(-1, keepdim=True)
    # a spectrum is sorted, so counting is cutting
    kept = (variance > torch.maximum(RELATIVE_CUTOFF * variance[..., :1], floor)).sum(-1).clamp(max=count - 1)
    total = torch.where(kept > 0, variance.sum(-1), 0.0)
    center = (mean.unsqueeze(-2) @ weight).squeeze(-2) + bias

    n_units = kept.numel()
    rows = zip(
        center.reshape(n_units, dim),
        components.reshape(n_units, -1, dim),
        variance.reshape(n_units, -1),
        total.flatten().tolist(),
        kept.flatten().tolist(),
        strict=True,
    )
    return [Spectrum(m, c[:k].clone(), v[:k].clone(), t, count) for m, c, v, t, k in rows]


def _fix_signs(components: Float[Tensor, "*unit component dim"]) -> Float[Tensor, "*unit component dim"]:
    """Make the entry of largest magnitude positive; of entries tied to one part in a million, the first."""
    magnitude = components.abs()
    tied = magnitude >= (1 - _SIGN_TIE) * magnitude.amax(-1, keepdim=True)
    first = tied.to(torch.uint8).argmax(-1, keepdim=True)
    sign = components.gather(-1, first).sign()
    return components * torch.where(sign == 0, 1.0, sign)
