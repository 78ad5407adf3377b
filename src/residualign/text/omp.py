"""Orthogonal matching pursuit: one direction, such as a principal component, as a signed sum of a few texts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.errors import BadInputError
from residualign.text.chosen import Chosen
from residualign.text.dictionary import TextDictionary

__all__ = ["omp", "omp_each"]

# the same meanings as in `_greedy`
_DEPENDENT, _EXPLAINED = 1e-12, 1e-10


def omp(direction: Float[Tensor, " dim"], dictionary: TextDictionary, n_texts: int) -> Chosen:
    """Choose texts one by one by |residual . atom|; after each, fit the direction anew by all chosen so far.

    Nothing is centred: there is one sample, and its mean is itself. weights: the coefficients of the last fit, with
    their signs: a positive text speaks of the end the direction points to, a negative one of the other.
    explained_variance_ratio: share of the direction's squared length. A direction of zeros has no texts.

    `BadInputError` for n_texts below one, and for another size than the dictionary's. O(atom x dim) a step. Source:
    Pati, Rezaiifar and Krishnaprasad 1993.
    """
    return omp_each(direction[None], dictionary, n_texts)[0]


def omp_each(
    directions: Float[Tensor, "direction dim"], dictionary: TextDictionary, n_texts: int
) -> tuple[Chosen, ...]:
    """`omp` of several directions at once, each by itself: the products with all texts are one matrix a step."""
    if n_texts < 1:
        raise BadInputError(f"n_texts is at least 1; got {n_texts}")
    if directions.shape[1] != dictionary.dim:
        raise BadInputError(
            f"directions of {directions.shape[1]} dimensions, texts of {dictionary.dim}; expected one output space"
        )
    if not bool(torch.isfinite(directions).all()):
        raise BadInputError("a direction holds NaN or infinity; expected finite numbers")
    atoms = dictionary.atoms
    residual = directions.to(atoms.dtype).clone()
    total = residual.square().sum(dim=1)
    steps = min(n_texts, len(atoms))
    # rows beyond a direction's own count stay zero and change nothing
    basis = residual.new_zeros(len(residual), steps, atoms.shape[1])
    own = atoms.square().sum(dim=1)
    left = own.expand(len(residual), -1).clone()
    indices: list[list[int]] = [[] for _ in residual]
    explained: list[list[float]] = [[] for _ in residual]
    rows = torch.arange(len(residual))
    for step in range(steps):
        magnitudes = (residual @ atoms.mT).abs()
        magnitudes[left <= _DEPENDENT * own.clamp(min=1e-300)] = -1.0
        value, index = magnitudes.max(dim=1)
        going = value > _EXPLAINED * total.sqrt()
        if not bool(going.any()):
            break
        direction = atoms[index]
        for _ in range(2):
            direction = direction - ((basis @ direction[..., None]).mT @ basis)[:, 0]
        direction = torch.where(going[:, None], direction / direction.norm(dim=1, keepdim=True), 0.0)
        basis[:, step] = direction
        residual = residual - (residual * direction).sum(dim=1, keepdim=True) * direction
        left -= (direction @ atoms.mT).square()
        left[rows[going], index[going]] = 0.0
        shares = (1 - residual.square().sum(dim=1) / total.clamp(min=1e-300)).clamp(min=0.0)
        for i in going.nonzero().flatten().tolist():
            indices[i].append(int(index[i]))
            explained[i].append(float(shares[i]))
    return tuple(
        _chosen(dictionary, directions[i].to(atoms.dtype), basis[i, : len(taken)], taken, explained[i])
        for i, taken in enumerate(indices)
    )


def _chosen(
    dictionary: TextDictionary, direction: Tensor, basis: Tensor, indices: list[int], explained: list[float]
) -> Chosen:
    # atoms = lower @ basis, so the weights w of the fit w @ atoms solve w lower = basis . direction
    lower = (dictionary.atoms[indices] @ basis.mT).tril()
    weights = torch.linalg.solve_triangular(lower, (basis @ direction)[None], upper=False, left=False)
    return Chosen(
        tuple(indices),
        tuple(dictionary.texts[i] for i in indices),
        tuple(weights[0].tolist()),
        tuple(explained),
    )
