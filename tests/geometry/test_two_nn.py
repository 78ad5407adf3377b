"""TwoNN against scikit-dimension, a plain twin and manifolds whose dimension is known."""

import math

import numpy as np
import pytest
import skdim.id
import torch
from sklearn.neighbors import NearestNeighbors

from residualign.errors import BadInputError
from residualign.geometry.resampling import deviation_interval, draw_halves, percentiles
from residualign.geometry.two_nn import COINCIDENCE, distinct_points, fit_ratios, two_nn
from tests.geometry.manifolds import cube, linear, normal, rotation, sphere, swiss_roll
from tests.reference import two_nn_twin

MANIFOLDS = {
    "sphere 2": (sphere(1500, 2), 2),
    "sphere 5": (sphere(1500, 5), 5),
    "sphere 9, turned": (sphere(1500, 9) @ rotation(10), 9),
    "cube 1": (cube(1500, 1), 1),
    "cube 4": (cube(1500, 4), 4),
    "cube 7": (cube(1500, 7), 7),
    "swiss roll": (swiss_roll(1500), 2),
    "linear, rank 3 of 41": (linear(1500, 3, 41), 3),
    "linear, rank 8 of 23": (linear(1500, 8, 23), 8),
}


@pytest.mark.parametrize("name", MANIFOLDS)
def test_dimension_of_known_manifolds(name):
    points, dimension = MANIFOLDS[name]
    # known to read low as dimensions grow: a ball's surface takes up more and more of it
    assert two_nn(points).dimension == pytest.approx(dimension, rel=0.05 + 0.012 * dimension)


@pytest.mark.parametrize("name", MANIFOLDS)
@pytest.mark.parametrize("fraction", [0.9, 0.7])
def test_scikit_dimension_finds_the_same(name, fraction):
    """Its fit is ours: F of the i-th of n is i / n, floor(fraction n) points, no intercept.

    It drops whole points at distance zero where we keep one of each, and past 25 coordinates its own distances are
    products; so it gets distances from float64 differences.
    """
    points, _ = MANIFOLDS[name]
    distances = NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(points.numpy()).kneighbors()[0]
    theirs = skdim.id.TwoNN(discard_fraction=1 - fraction, dist=True).fit(distances[:, :2])
    assert two_nn(points, fraction=fraction).dimension == pytest.approx(theirs.dimension_, rel=1e-12)


def test_scikit_dimension_from_points():
    points, _ = MANIFOLDS["linear, rank 8 of 23"]
    theirs = skdim.id.TwoNN(discard_fraction=0.1).fit(points.numpy())
    assert two_nn(points).dimension == pytest.approx(theirs.dimension_, rel=1e-10)


@pytest.mark.parametrize("fraction", [0.9, 0.5, 1.0])
@pytest.mark.parametrize("n", [37, 10, 3])
def test_plain_twin(n, fraction):
    points = normal(n, 3)
    assert two_nn(points, fraction=fraction).dimension == pytest.approx(
        two_nn_twin.two_nn(points.tolist(), fraction), rel=1e-12
    )


@pytest.mark.parametrize(("base", "dimension"), [(sphere(1500, 2) @ torch.eye(3, 11).double(), 2), (None, 3)])
def test_noise_raises_the_dimension_at_its_own_scale_alone(base, dimension):
    base = linear(1500, 3, 11) if base is None else base
    noise = normal(1500, 11, seed=5)
    quiet, loud = (two_nn(base + level * noise).dimension for level in (1e-4, 0.3))
    assert quiet == pytest.approx(dimension, rel=0.1)
    assert loud > 2 * dimension


def test_isometries_and_scales_change_nothing():
    points = cube(701, 5)
    turned = torch.cat([points, torch.zeros(701, 8, dtype=torch.float64)], dim=1) @ rotation(13)
    halves = draw_halves(701, 6, seed=3)
    expected = two_nn(points, halves=halves)
    for same in (turned + 3.0, 1e-9 * points, 1e9 * points, points.flip(1)):
        found = two_nn(same, halves=halves)
        assert found.dimension == pytest.approx(expected.dimension, rel=1e-6)
        torch.testing.assert_close(found.halves, expected.halves, rtol=1e-6, atol=0)


def test_float32_input_is_computed_in_float64():
    points = normal(601, 5).float()
    assert two_nn(points).dimension == two_nn(points.double()).dimension


def test_exact_where_products_in_float32_are_not():
    """A cluster far out: the product form loses its neighbors, and the dimension with them."""
    points = torch.cat([1e-4 * cube(900, 2), torch.ones(1, 2, dtype=torch.float64)])
    assert two_nn(points).dimension == pytest.approx(2, rel=0.1)


def test_duplicates_are_dropped_but_for_the_first_of_each():
    points = normal(601, 5)
    repeated = torch.cat([points, points[17:20], points[:5], points[:5]])
    # in another order, and one zero with a minus sign
    repeated = torch.cat([repeated, torch.zeros(1, 5).double(), -torch.zeros(1, 5).double()])
    whole = torch.cat([points, torch.zeros(1, 5).double()])
    found, expected = two_nn(repeated), two_nn(whole)
    assert (found.n_points, found.n_duplicates) == (602, 14)
    assert (expected.n_points, expected.n_duplicates) == (602, 0)
    assert found.dimension == pytest.approx(expected.dimension, rel=1e-12)
    assert distinct_points(repeated).tolist() == [*range(601), 614]


def test_what_rounding_told_apart_is_one_point():
    points = normal(601, 5)
    size = float((points - points.mean(dim=0)).norm(dim=1).max())
    below, above = (points[:400] + factor * COINCIDENCE * size * normal(400, 5, seed=8).sign() for factor in (0.1, 9.0))
    assert two_nn(torch.cat([points, below])).n_duplicates == 400
    assert two_nn(torch.cat([points, above])).n_duplicates == 0


def test_halves_are_those_of_the_points_alone():
    """Read from lists of the whole, or searched again where a list is too short: what each half gives by itself."""
    points = torch.cat([normal(811, 4), normal(811, 4)[5:40]])
    halves = draw_halves(846, 8, seed=5)
    # a tenth: most lists of 16 hold fewer than two of these
    halves += [torch.arange(0, 811, 11), torch.tensor([3, 1, 2]), torch.tensor([0, 1])]
    found = two_nn(points, fraction=0.8, halves=halves)
    assert found.n_duplicates == 35
    for half, value in zip(halves, found.halves.tolist(), strict=True):
        alone = two_nn(points[half[half < 811]], fraction=0.8)
        assert value == pytest.approx(alone.dimension, rel=1e-12, nan_ok=True)
    assert found.halves.isnan().tolist() == [False] * 10 + [True]


def test_halves_share_no_image_and_depend_on_the_seed():
    halves = draw_halves(101, 6, seed=1)
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert len(first) == len(second) == 50
        assert len(set(first.tolist()) | set(second.tolist())) == 100
    assert all(map(torch.equal, halves, draw_halves(101, 6, seed=1)))
    assert not torch.equal(halves[0], draw_halves(101, 6, seed=2)[0])
    assert len({tuple(half.tolist()) for half in halves}) == 6


def test_interval_is_about_the_estimate_and_turned_round():
    # deviations from -1 to 3 about their mean: a high half speaks of a whole that may be low
    halves = torch.tensor([9.0] * 50 + [10.0] * 25 + [13.0] * 25, dtype=torch.float64)
    mean = float(halves.mean())
    low, high = deviation_interval(20.0, halves)
    assert low == pytest.approx(20 - (13 - mean))
    assert high == pytest.approx(20 + (mean - 9))
    assert all(map(math.isnan, deviation_interval(20.0, torch.zeros(0, dtype=torch.float64))))


def test_few_unknown_halves_are_left_out_and_many_give_no_interval():
    values = torch.arange(100, dtype=torch.float64)
    values[:3] = math.nan
    np.testing.assert_allclose(percentiles(values), np.quantile(np.arange(3.0, 100.0), [0.025, 0.975]))
    values[:6] = math.nan
    assert all(map(math.isnan, percentiles(values)))


def test_interval_is_as_wide_as_estimates_of_new_points_vary():
    """Conservative, if anything: its half width against 1.96 standard deviations over 40 draws."""
    drawn = [two_nn(sphere(400, 4, seed=s), halves=draw_halves(400, 60, seed=s)) for s in range(40)]
    deviation = float(np.std([one.dimension for one in drawn], ddof=1))
    width = float(np.mean([one.interval[1] - one.interval[0] for one in drawn])) / 2
    assert 0.8 < width / (1.96 * deviation) < 1.8


@pytest.mark.parametrize(
    ("points", "n_points"),
    [
        (torch.zeros(0, 3), 0),
        (torch.ones(1, 3), 1),
        (torch.rand(2, 3), 2),
        (torch.ones(50, 3), 1),
        (torch.eye(2).repeat(300, 1), 2),
        (torch.zeros(5, 0), 1),
        # every ratio is one
        (torch.eye(7), 7),
    ],
)
def test_where_there_is_no_dimension_it_is_nan(points, n_points):
    found = two_nn(points.double(), halves=draw_halves(len(points), 4, seed=0))
    assert math.isnan(found.dimension)
    assert all(map(math.isnan, found.interval))
    assert found.halves.isnan().all()
    assert (found.n_points, found.n_duplicates) == (n_points, len(points) - n_points)


def test_straight_where_ratios_are_pareto():
    n = 997
    ratios = (1 - torch.arange(1, n + 1, dtype=torch.float64) / n).clamp(min=1e-300) ** (-1 / 6.5)
    fit = fit_ratios(torch.stack([torch.ones(n, dtype=torch.float64), ratios], dim=1), 0.9)
    assert fit.dimension == pytest.approx(6.5, rel=1e-12)
    assert fit.straightness == pytest.approx(1.0, abs=1e-12)
    assert fit.n_points == 897
    assert fit_ratios(torch.tensor([[1.0, 2.0]]).double(), 1.0).n_points == 0


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_other_fractions_are_refused(fraction):
    with pytest.raises(BadInputError, match="fraction is a share"):
        two_nn(normal(10, 2), fraction=fraction)


def test_both_zeros_are_one_point():
    points = torch.tensor([[1.0], [-1.0], [1e-20], [-1e-20], [2.5], [-2.5], [4.0], [-4.0]], dtype=torch.float64)
    assert two_nn(points).n_duplicates == 1


@pytest.mark.parametrize("dimension", [2, 5, 18])
def test_near_duplicates_make_a_dimension_doubtful(dimension):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1000, dimension, generator=generator, dtype=torch.float64)
    plain = two_nn(points)
    assert not plain.doubtful
    assert plain.near_duplicates == 0
    moved = points[:100] + 1e-7 * torch.randn(100, dimension, generator=generator, dtype=torch.float64)
    near = two_nn(torch.cat([points, moved]))
    assert near.dimension < 0.5
    assert near.near_duplicates == pytest.approx(200 / 1100)
    assert near.doubtful
    # farther apart than a thousandth, yet far from the line
    moved = points[:100] + 1e-2 * torch.randn(100, dimension, generator=generator, dtype=torch.float64)
    apart = two_nn(torch.cat([points, moved]))
    assert apart.near_duplicates == 0
    assert apart.doubtful == (apart.fit.straightness < 0.9)
    assert apart.doubtful == (dimension > 2)


def test_exact_duplicates_and_few_points_are_not_doubtful():
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert not two_nn(torch.cat([points, points[:100]])).doubtful
    for n in (0, 1, 2, 3, 20):
        assert not two_nn(points[:n]).doubtful
