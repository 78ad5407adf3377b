"""TextSpan: texts that span a unit's output, chosen by how widely the samples spread along them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.errors import BadInputError
from residualign.text.chosen import Chosen
from residualign.text.dictionary import TextDictionary
from residualign.text.pursuit import greedy, largest_sum_of_squares
from residualign.text.samples import Samples
from residualign.text.somp import checked

__all__ = ["text_span"]


def text_span(
    data: Samples | Float[Tensor, "image dim"], dictionary: TextDictionary, n_texts: int, *, rank: int | None = None
) -> Chosen:
    """Choose the text along which the samples spread most, take its direction out of samples and texts, repeat.

    Texts are first projected onto the leading `rank` right singular vectors of the samples as they are, not centred
    (None: onto all they span), and keep the length this leaves them: a text that the unit hardly reaches cannot win.
    Then the samples are centred. weights: the norm over the samples of the coefficients on the text's direction at its
    step. Of the samples only `factor` and `mean` are used, so the cost does not depend on their number.

    `BadInputError` as in `somp`, and for a rank below one. O(atom x dim) a step. Source: Gandelsman et al. 2310.05916,
    algorithm 1.
    """
    if rank is not None and rank < 1:
        raise BadInputError(f"rank is at least 1; got {rank}")
    samples = checked(data, dictionary, n_texts)
    # X^T X of rows that are not centred is A^T A + n m m^T, whatever the scores are
    rows = torch.cat([samples.factor, len(samples) ** 0.5 * samples.mean[None]])
    _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
    spanned = int((singular > 1e-10 * singular[0]).sum())
    vectors = vectors[: spanned if rank is None else min(rank, spanned)]
    projected = (dictionary.atoms @ vectors.mT) @ vectors
    path = greedy(samples, projected, n_texts, largest_sum_of_squares)
    return Chosen(
        path.indices,
        tuple(dictionary.texts[i] for i in path.indices),
        tuple((path.product / path.length.square()).tolist()),
        tuple(path.explained.tolist()),
    )
