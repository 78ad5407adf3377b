"""The nearest neighbors are exact whatever the scale, the offset and the rounding of the fast search."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from residualign.geometry import neighbors as module
from residualign.geometry.neighbors import nearest, nearest_by_differences
from tests.geometry.manifolds import cube, generator, linear, normal, rotation, sphere
from tests.reference import two_nn_twin

N = 1103


def oracle(points, count):
    """scikit-learn's tree, which uses float64 differences."""
    distances, indices = NearestNeighbors(n_neighbors=count + 1, algorithm="kd_tree").fit(points).kneighbors(points)
    assert (indices[:, 0] == np.arange(len(points))).all()
    return distances[:, 1:], indices[:, 1:]


def assert_exact(found, points, count):
    distances, indices = oracle(points.numpy(), count)
    np.testing.assert_array_equal(found.indices.numpy(), indices)
    np.testing.assert_allclose(found.distances.numpy(), distances, rtol=1e-13)


CASES = {
    "gaussian": lambda: normal(N, 67),
    "far from the origin": lambda: normal(N, 13) + 1e5,
    "tiny": lambda: 1e-30 * normal(N, 13),
    "huge": lambda: 1e30 * normal(N, 13),
    "one number": lambda: normal(N, 1),
    "fewer images than numbers": lambda: normal(613, 701),
    "sphere": lambda: sphere(N, 7) @ rotation(8),
    "rank 3 of 29": lambda: linear(N, 3, 29),
    "two far clusters": lambda: torch.cat([1e-5 * cube(N // 2, 5), 1e-5 * cube(N // 2, 5, seed=3) + 1.0]),
    "an outlier": lambda: torch.cat([normal(N, 11), 1e7 * normal(1, 11, seed=9)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [2, 16])
def test_neighbors_are_those_of_scikit_learn(case, count):
    points = CASES[case]()
    found = nearest(points, count)
    assert_exact(found, points, count)
    assert found.by_float32 + found.by_float64 + found.by_differences == len(points) == len(found)


def test_each_way_of_searching_is_used_and_agrees():
    """Clusters so tight that float32, and then float64, cannot tell their points apart by products."""
    g = generator(4)
    spread = torch.tensor([1.0, 1e-4, 1e-9], dtype=torch.float64).repeat_interleave(400)
    centers = 3 * torch.eye(3, 5, dtype=torch.float64).repeat_interleave(400, dim=0)
    points = centers + spread[:, None] * torch.randn(1200, 5, generator=g, dtype=torch.float64)
    found = nearest(points, 3)
    assert min(found.by_float32, found.by_float64, found.by_differences) >= 300
    assert_exact(found, points, 3)


def test_the_bound_holds_against_products_that_are_wrong_by_as_much_as_it_allows(monkeypatch):
    """A search with half the digits of float32: the proof must refuse what such products cannot settle."""
    points = normal(N, 11) + 0.0
    proved_by_float32 = nearest(points, 2).by_float32
    exact_search, told = module._is_proved, []

    def coarse(last, radius, lengths, size, unit):
        proof = exact_search(last, radius, lengths, size, 2.0**-11 if unit > 1e-10 else unit)
        told.append(int(proof.sum()))
        return proof

    monkeypatch.setattr(module, "_is_proved", coarse)
    true_candidates = module._candidates

    def rounded(products, count, n_groups):
        if products.dtype == torch.float32:
            products = products.half().float()
        return true_candidates(products, count, n_groups)

    monkeypatch.setattr(module, "_candidates", rounded)
    found = nearest(points, 2)
    assert_exact(found, points, 2)
    assert found.by_float32 < proved_by_float32


def test_products_that_may_be_coarse_are_not_trusted(monkeypatch):
    points = normal(600, 5)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    found = nearest(points, 2)
    assert (found.by_float32, found.by_float64) == (0, 600)
    assert_exact(found, points, 2)


@pytest.mark.parametrize("n", [3, 5, 31, 512, 513, 577, 641])
def test_sizes_around_blocks_and_groups(n):
    points = normal(n, 7, seed=n)
    assert_exact(nearest(points, 2), points, 2)


@pytest.mark.parametrize(("block", "rows"), [(1, 7), (40_000, 100)])
def test_blocks_of_any_size_give_the_same(block, rows, monkeypatch):
    points = normal(523, 11)
    expected = nearest(points, 5)
    monkeypatch.setattr(module, "_BLOCK_BYTES", block)
    monkeypatch.setattr(module, "_ROWS", rows)
    found = nearest(points, 5)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.distances, rtol=1e-14, atol=0)


def test_plain_twin():
    points = normal(41, 3)
    for found in (nearest(points, 4), nearest_by_differences(points, torch.arange(41), 4)):
        for i, (distances, indices) in enumerate(two_nn_twin.neighbors(points.tolist(), 4)):
            assert found.indices[i].tolist() == indices
            assert found.distances[i].tolist() == pytest.approx(distances, rel=1e-14)


def test_fewer_points_than_neighbors_asked_for():
    assert nearest(normal(3, 2), 16).distances.shape == (3, 2)
    assert nearest(normal(1, 2), 2).distances.shape == (1, 0)


def test_points_are_left_as_they_were():
    points = normal(700, 3)
    before = points.clone()
    nearest(points, 2)
    assert torch.equal(points, before)


def test_distance_from_the_origin_costs_no_proof():
    points = normal(600, 13)
    near, far = nearest(points, 2), nearest(points + 1e5, 2)
    assert near.by_float32 == len(points)
    assert far.by_float32 >= len(points) - 6
