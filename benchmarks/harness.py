"""Fair timing of several alternatives, with confidence intervals.

All alternatives take turns within a round, in an order that is reshuffled each time, so a machine that slows down slows
all of them. Medians are reported, and ratios with distribution-free 95 % intervals.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Estimate", "Ratio", "Result", "Row", "Timings", "exponent", "interleave", "median_interval", "ratio_rows"]

_RESAMPLES = 4000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """The same in a different unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Ratio:
    """Two estimates of "how many times longer"; they agree if the machine was steady.

    of_medians: median time over median time, interval by resampling rounds. per_round: median of each round's own
    ratio, interval from order statistics. cpu: the ratio of medians of CPU time, which is less
    affected by other programs.
    """

    of_medians: Estimate
    per_round: Estimate
    cpu: float

    def scaled(self, factor: float) -> Ratio:
        """For alternatives whose rounds contain different amounts of work."""
        return Ratio(self.of_medians.scaled(factor), self.per_round.scaled(factor), self.cpu * factor)


@dataclass(frozen=True)
class Timings:
    """Seconds of every round by alternative: wall-clock time, and CPU time of all threads together."""

    wall: Mapping[str, tuple[float, ...]]
    cpu: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> Estimate:
        """Median wall-clock seconds per round."""
        return median_interval(self.wall[name])

    def ratio(self, name: str, to: str, seed: int = 0) -> Ratio:
        """How many times longer `name` takes than `to`."""
        top, bottom = self.wall[name], self.wall[to]
        generator = random.Random(seed)
        n = len(top)
        resampled = []
        for _ in range(_RESAMPLES):
            # whole rounds: both times of a round were taken under the same load
            chosen = [generator.randrange(n) for _ in range(n)]
            above, below = (statistics.median([times[i] for i in chosen]) for times in (top, bottom))
            resampled.append(above / below)
        resampled.sort()
        tail = (1 - _CONFIDENCE) / 2
        of_medians = Estimate(
            statistics.median(top) / statistics.median(bottom),
            resampled[int(tail * _RESAMPLES)],
            resampled[int((1 - tail) * _RESAMPLES) - 1],
        )
        per_round = median_interval([a / b for a, b in zip(top, bottom, strict=True)])
        cpu = statistics.median(self.cpu[name]) / statistics.median(self.cpu[to])
        return Ratio(of_medians, per_round, cpu)


def interleave(
    ways: Mapping[str, Callable[[], object]], rounds: int, *, calls: int = 1, warmup: int = 1, seed: int = 0
) -> Timings:
    """Time every alternative `rounds` times.

    A round's time is the sum of `calls` calls; the alternatives take turns call by call, in shuffled order. `warmup`
    untimed calls of each come first. The garbage collector is off during calls and runs between rounds.
    """
    generator = random.Random(seed)
    names = list(ways)
    for name in names:
        for _ in range(warmup):
            ways[name]()
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        seconds = dict.fromkeys(names, 0.0)
        processor = dict.fromkeys(names, 0.0)
        gc.collect()
        gc.disable()
        try:
            for _ in range(calls):
                generator.shuffle(names)
                for name in names:
                    cpu_start, start = time.process_time(), time.perf_counter()
                    ways[name]()
                    seconds[name] += time.perf_counter() - start
                    processor[name] += time.process_time() - cpu_start
        finally:
            gc.enable()
        for name in ways:
            wall[name].append(seconds[name])
            cpu[name].append(processor[name])
    return Timings({n: tuple(s) for n, s in wall.items()}, {n: tuple(s) for n, s in cpu.items()})


def median_interval(values: Sequence[float]) -> Estimate:
    """The median and the narrowest symmetric pair of order statistics that contains it with at least 95 %.

    With fewer than 6 values no such pair exists, and smallest and largest are given.
    """
    ordered = sorted(values)
    n = len(ordered)
    # number of values below the median is Binomial(n, 1/2)
    cut, outside = 0, 2 * 0.5**n
    while outside + 2 * math.comb(n, cut + 1) * 0.5**n <= 1 - _CONFIDENCE:
        cut += 1
        outside += 2 * math.comb(n, cut) * 0.5**n
    return Estimate(statistics.median(ordered), ordered[cut], ordered[n - 1 - cut])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope p of the least-squares line through (log size, log value): value grows like size ** p."""
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    x_mean, y_mean = statistics.fmean(x), statistics.fmean(y)
    top = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return top / sum((a - x_mean) ** 2 for a in x)


@dataclass(frozen=True)
class Row:
    """One row of a benchmark's table: what was measured, with its interval, and the aim."""

    what: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    aim: str = ""
    note: str = ""

    @classmethod
    def of(cls, what: str, estimate: Estimate, unit: str = "", aim: str = "", note: str = "") -> Row:
        """A row with an interval."""
        return cls(what, estimate.value, unit, estimate.low, estimate.high, aim, note)


@dataclass(frozen=True)
class Result:
    """What one benchmark found. limits: sentences on what limits it. details: the raw numbers, for JSON."""

    name: str
    title: str
    sizes: Mapping[str, Any]
    rows: Sequence[Row]
    limits: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)


def ratio_rows(what: str, ratio: Ratio, aim: str = "", note: str = "") -> list[Row]:
    """Both ratios, with intervals, and that of CPU times in the note."""
    cpu = f"CPU time {ratio.cpu:.3f}"
    return [
        Row.of(what, ratio.of_medians, "x", aim, f"of medians; {note}".rstrip("; ")),
        Row.of(what, ratio.per_round, "x", aim, f"median of rounds; {cpu}"),
    ]
