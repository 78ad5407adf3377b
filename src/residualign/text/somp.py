"""Simultaneous orthogonal matching pursuit: the few texts whose combinations rebuild all samples of a unit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.errors import BadInputError
from residualign.text.chosen import Chosen
from residualign.text.dictionary import TextDictionary
from residualign.text.pursuit import greedy, largest_sum_of_magnitudes
from residualign.text.samples import Samples

__all__ = ["checked", "somp"]


def somp(data: Samples | Float[Tensor, "image dim"], dictionary: TextDictionary, n_texts: int) -> Chosen:
    """Choose texts one by one; after each, all samples are fitted anew by all texts chosen so far.

    The samples are centred. A step takes the text with the largest sum over the samples of |residual . atom|. weights:
    the norm over the samples of a text's coefficients in the last joint fit. An exact restatement of the plain loop
    (`_greedy`): no residual is ever formed, and most texts are ruled out by a bound.

    `BadInputError` for n_texts below one, and for samples of another size than the dictionary's. Costs a step: O(atom x
    dim) and O(image x rank) for each text that the bound leaves; memory O(image x rank + atom x dim). Source: Tropp,
    Gilbert and Strauss 2006, algorithm 3.1, as arXiv 2411.00246 uses it.
    """
    samples = checked(data, dictionary, n_texts)
    path = greedy(samples, dictionary.atoms, n_texts, largest_sum_of_magnitudes)
    chosen = dictionary.atoms[list(path.indices)]
    # chosen = lower @ basis, so the coefficients W of the fit solve W lower = X basis^T, and ||U M|| = ||M||
    lower = (chosen @ path.basis.mT).tril()
    coefficients = torch.linalg.solve_triangular(lower, samples.factor @ path.basis.mT, upper=False, left=False)
    return Chosen(
        path.indices,
        tuple(dictionary.texts[i] for i in path.indices),
        tuple(coefficients.norm(dim=0).tolist()),
        tuple(path.explained.tolist()),
    )


def checked(data: Samples | Tensor, dictionary: TextDictionary, n_texts: int) -> Samples:
    """The samples, once they and the arguments beside them have been looked at."""
    if n_texts < 1:
        raise BadInputError(f"n_texts is at least 1; got {n_texts}")
    samples = data if isinstance(data, Samples) else Samples.of(data)
    if samples.factor.shape[1] != dictionary.dim:
        raise BadInputError(
            f"samples of {samples.factor.shape[1]} dimensions, texts of {dictionary.dim}; expected one output space"
        )
    return samples
