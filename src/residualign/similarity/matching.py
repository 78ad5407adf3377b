"""One-to-one matchings between the rows and columns of many small matrices at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["greedy_squares", "optimal_squares"]


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
