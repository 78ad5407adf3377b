"""Greedy and optimal matchings of many matrices at once."""

import numpy as np
import pytest
import torch

from residualign.similarity.spectral import greedy_squares, optimal_squares
from tests.reference import similarity_twin as twin


def squares(matrix, picks):
    return sum(matrix[pick] ** 2 for pick in picks)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (7, 1), (5, 5), (3, 11), (11, 7)])
def test_greedy_is_the_plain_loop(rows, columns, seed):
    matrices = np.random.default_rng(seed).random((13, rows, columns))
    expected = [squares(matrix, twin.greedy(matrix)) for matrix in matrices]
    found = greedy_squares(torch.from_numpy(matrices))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13)


def test_of_equal_entries_the_first_row_and_column_are_taken(seed):
    # whole numbers from few: almost every step is a tie
    matrices = np.random.default_rng(seed).integers(0, 4, (211, 5, 7)).astype(np.float64)
    expected = [squares(matrix, twin.greedy(matrix)) for matrix in matrices]
    np.testing.assert_array_equal(greedy_squares(torch.from_numpy(matrices)).numpy(), expected)
    last_first = [squares(matrix, twin.greedy(matrix[::-1, ::-1])) for matrix in matrices]
    assert last_first != expected


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (5, 5), (3, 6), (6, 2)])
def test_optimal_is_the_best_of_all_matchings(rows, columns, seed):
    matrices = np.random.default_rng(seed).random((17, rows, columns)) ** 3
    expected = [squares(matrix, twin.best_matching(matrix)) for matrix in matrices]
    np.testing.assert_allclose(optimal_squares(torch.from_numpy(matrices)).numpy(), expected, rtol=1e-13)


def test_greedy_reaches_between_half_of_the_optimum_and_all_of_it(seed):
    matrices = torch.from_numpy(np.random.default_rng(seed).random((101, 7, 11)))
    greedy, optimal = greedy_squares(matrices), optimal_squares(matrices)
    assert bool((greedy <= optimal * (1 + 1e-12)).all())
    assert bool((greedy < optimal).any())
    assert bool((greedy >= optimal / 2).all())
    # the worst there is: the large entry blocks two that are nearly as large
    worst = torch.tensor([[[1.0, 1 - 1e-9], [1 - 1e-9, 0.0]]], dtype=torch.float64)
    assert float(optimal_squares(worst) / greedy_squares(worst)) == pytest.approx(2, abs=1e-8)


def test_zeros_that_fill_up_change_nothing_and_the_input_stays(seed):
    matrices = torch.rand(7, 3, 5, dtype=torch.float64)
    before = matrices.clone()
    filled = torch.nn.functional.pad(matrices, (0, 2, 0, 4))
    torch.testing.assert_close(greedy_squares(filled), greedy_squares(matrices), rtol=1e-14, atol=0)
    torch.testing.assert_close(optimal_squares(filled), optimal_squares(matrices), rtol=1e-14, atol=0)
    assert torch.equal(matrices, before)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_nothing_to_match_is_zero(shape):
    assert greedy_squares(torch.zeros(shape)).tolist() == optimal_squares(torch.zeros(shape)).tolist() == [0] * shape[0]
