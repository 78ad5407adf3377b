import math
import statistics

import pytest
from benchmarks.harness import Timings, exponent, interleave, median_interval


def test_median_interval_takes_the_order_statistics_that_a_binomial_table_gives():
    # n: 1-based rank of the lower end, from tables of the sign test at 95 %
    for n, rank in {6: 1, 9: 2, 12: 3, 15: 4, 20: 6, 25: 8}.items():
        values = [float(v) for v in range(n, 0, -1)]
        interval = median_interval(values)
        assert (interval.low, interval.high) == (rank, n + 1 - rank)
        assert interval.value == statistics.median(values)


@pytest.mark.parametrize("n", range(1, 6))
def test_median_interval_of_few_values_spans_all_of_them(n):
    interval = median_interval([float(v) for v in range(n)])
    assert (interval.low, interval.high) == (0, n - 1)


def test_exponent_is_that_of_a_power_law():
    sizes = [3, 7, 20, 110]
    assert exponent(sizes, [5 * size**1.7 for size in sizes]) == pytest.approx(1.7)
    assert exponent(sizes, [4.0] * 4) == pytest.approx(0, abs=1e-12)


def test_every_way_is_called_equally_often_and_warmed_up():
    called = []
    ways = {name: lambda name=name: called.append(name) for name in "abc"}
    timings = interleave(ways, rounds=5, calls=3, warmup=2)
    assert called[:6] == ["a", "a", "b", "b", "c", "c"]
    timed = called[6:]
    assert all(sorted(timed[i : i + 3]) == ["a", "b", "c"] for i in range(0, len(timed), 3))
    assert len(timed) == 5 * 3 * 3
    assert len({tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)}) > 1, "the order never changed"
    assert {len(times) for times in (*timings.wall.values(), *timings.cpu.values())} == {5}


def test_ratio_ignores_a_slow_round_that_hits_both_ways():
    fast = [1.0, 1.0, 1.0, 10.0, 1.0, 1.0, 1.0]
    timings = Timings({"a": tuple(2 * t for t in fast), "b": tuple(fast)}, {"a": (3.0,) * 7, "b": (1.0,) * 7})
    ratio = timings.ratio("a", "b")
    assert (ratio.per_round.value, ratio.per_round.low, ratio.per_round.high) == (2, 2, 2)
    assert (ratio.of_medians.value, ratio.of_medians.low, ratio.of_medians.high) == (2, 2, 2)
    assert ratio.cpu == 3
    assert ratio.scaled(0.5).of_medians.value == 1


def test_interval_of_a_ratio_holds_the_ratio_and_shrinks_with_rounds():
    def width(n):
        noise = [1 + 0.1 * math.sin(7.3 * i) for i in range(n)]
        other = [1 + 0.1 * math.cos(3.1 * i) for i in range(n)]
        ratio = Timings({"a": tuple(noise), "b": tuple(other)}, {"a": (1.0,), "b": (1.0,)}).ratio("a", "b").of_medians
        assert ratio.low <= ratio.value <= ratio.high
        return ratio.high - ratio.low

    assert width(200) < width(15)
