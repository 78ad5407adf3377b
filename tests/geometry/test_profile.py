"""Layer profiles and their two tests: on profiles whose answer is known, and on noise."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from residualign.geometry.resampling import deviation_interval, hunchback, layer_profile, trend
from tests.geometry.manifolds import normal

LAYERS = tuple(range(7))


def halves_of(profile, noise, count=100, seed=0, images=200):
    """Halves of images that each say the profile with noise of their own, in pairs that share none."""
    drawn = torch.tensor(profile, dtype=torch.float64) + noise * images**0.5 * normal(images, len(profile), seed)
    g = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count // 2):
        order = torch.randperm(images, generator=g)
        rows += [drawn[order[: images // 2]].mean(dim=0), drawn[order[images // 2 :]].mean(dim=0)]
    return drawn.mean(dim=0), torch.stack(rows)


def test_a_hunchback_is_found():
    profile, halves = halves_of([3.0, 5.0, 8.0, 9.0, 8.5, 6.0, 4.0], noise=0.2)
    found = hunchback(LAYERS, profile, halves)
    assert found.holds
    assert (found.peak, found.position) == (3, 0.5)
    assert found.rise == pytest.approx(6, abs=1)
    assert found.fall == pytest.approx(5, abs=1)
    assert found.rise_interval[0] < 6 < found.rise_interval[1]
    assert found.share_inside == 1
    assert found.position_interval[0] <= 0.5 <= found.position_interval[1]


@pytest.mark.parametrize("profile", [[1.0, 2, 3, 4, 5, 6, 7], [7.0, 6, 5, 4, 3, 2, 1]])
def test_a_slope_is_none(profile):
    found = hunchback(LAYERS, *halves_of(profile, noise=0.1))
    assert not found.holds
    assert found.share_inside == 0
    assert found.peak == profile.index(7)
    assert min(found.rise, found.fall) == 0
    grows = trend(LAYERS, *halves_of(profile, noise=0.1))
    assert grows.spearman == (1 if profile[0] == 1 else -1)
    assert grows.grows == (profile[0] == 1)
    assert grows.share_growing == float(profile[0] == 1)


def test_a_flat_profile_of_noise_is_rarely_called_one():
    """Its maximum is inside most of the time, which is why rise and fall are measured where it was not chosen."""
    found = [hunchback(LAYERS, *halves_of([5.0] * 7, noise=0.3, seed=s, count=60)) for s in range(40)]
    inside = sum(one.rise > 0 and one.fall > 0 for one in found)
    assert inside > 20
    assert sum(one.holds for one in found) <= 2
    grown = [trend(LAYERS, *halves_of([5.0] * 7, noise=0.3, seed=s, count=60)).grows for s in range(40)]
    assert sum(grown) <= 4


def test_rise_and_fall_are_read_in_the_other_half():
    halves = torch.tensor([[0.0, 5.0, 1.0], [2.0, 3.0, 4.0]], dtype=torch.float64)
    found = hunchback((0, 1, 2), halves.mean(dim=0), halves)
    # peak of the first is layer 1: in the second it rises by 1 and falls by -1; that of the second is layer 2
    assert found.rise == 3
    assert found.rise_interval == pytest.approx((3.0, 3.0))
    # falls of -1 and 0 about their mean, around the fall of the whole; in the halves themselves nothing falls
    assert found.fall == 1.5
    assert found.fall_interval == pytest.approx((1.5 - 0.475, 1.5 + 0.475))
    assert found.share_inside == 0.5
    assert not found.holds


@pytest.mark.parametrize("seed", range(20))
def test_no_estimate_is_outside_its_own_interval(seed):
    generator = torch.Generator().manual_seed(seed)
    profile = torch.randn(7, generator=generator, dtype=torch.float64)
    # halves are farther apart, and a few are far off
    halves = 0.7 * profile + 0.3 + 0.8 * torch.randn(40, 7, generator=generator, dtype=torch.float64)
    halves[0] += 30 * torch.randn(7, generator=generator, dtype=torch.float64)
    bump, growth = hunchback(LAYERS, profile, halves), trend(LAYERS, profile, halves)
    assert bump.rise_interval[0] <= bump.rise <= bump.rise_interval[1]
    assert bump.fall_interval[0] <= bump.fall <= bump.fall_interval[1]
    assert -1 <= growth.interval[0] <= growth.spearman <= growth.interval[1] <= 1


def test_a_few_halves_far_off_leave_the_estimate_inside():
    low, high = deviation_interval(2.0, torch.tensor([0.0] * 99 + [1e6], dtype=torch.float64))
    assert low <= 2.0 <= high


def test_a_constant_shift_of_the_halves_does_not_move_the_trend():
    profile = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], dtype=torch.float64)
    shifted = profile.flip(0) + 0.01 * normal(20, 7)
    assert trend(LAYERS, profile, shifted).interval == (1.0, 1.0)


def test_spearman_is_scipys_with_ties():
    values = torch.tensor([1.0, 2.0, 2.0, 0.5, 3.0, 2.0, 9.0], dtype=torch.float64)
    expected = spearmanr(LAYERS, values.numpy()).statistic
    assert trend(LAYERS, values, values.repeat(4, 1)).spearman == pytest.approx(expected, rel=1e-12)


def test_mean_and_spread_of_the_units_of_each_layer():
    layers = (4, 2, 2, 4, 2, 9)
    values = torch.tensor([1.0, 5.0, 6.0, 4.0, math.nan, 8.0])
    halves = values.repeat(6, 1) + 0.1 * torch.arange(6)[:, None]
    found = layer_profile("two_nn", "head", layers, values, halves)
    assert found.layers == (2, 4, 9)
    assert found.mean == (5.5, 2.5, 8.0)
    assert found.spread == (0.5, 1.5, 0.0)
    for mean, (low, high) in zip(found.mean, found.intervals, strict=True):
        assert low < mean < high
        assert high - low == pytest.approx(0.5 * 0.95)
    assert found.hunchback is not None
    assert found.trend is not None
    assert found.hunchback.peak == 9


def test_no_tests_of_two_layers_or_of_one_without_a_value():
    two = layer_profile("two_nn", "mlp", (0, 1), torch.ones(2), torch.ones(4, 2))
    assert (two.hunchback, two.trend) == (None, None)
    unknown = layer_profile("two_nn", "mlp", (0, 1, 2), torch.tensor([1.0, math.nan, 2.0]), torch.ones(4, 3))
    assert (unknown.hunchback, unknown.trend) == (None, None)
    assert math.isnan(unknown.mean[1])


def test_without_halves_nothing_is_claimed():
    found = layer_profile("two_nn", "head", LAYERS, torch.tensor([1.0, 2, 3, 9, 3, 2, 1]), torch.zeros(0, 7))
    assert found.hunchback is not None
    assert found.trend is not None
    assert not found.hunchback.holds
    assert not found.trend.grows
    assert math.isnan(found.hunchback.rise_interval[0])
    assert math.isnan(found.hunchback.share_inside)
    assert found.hunchback.peak == 3


def test_equal_layers_have_no_trend():
    flat = torch.full((7,), 2.0, dtype=torch.float64)
    found = trend(LAYERS, flat, flat.repeat(4, 1))
    assert math.isnan(found.spearman)
    assert not found.grows
