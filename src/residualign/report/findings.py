"""What the figures of a report say, in sentences; each is left out where its figures are absent."""

from __future__ import annotations

import math
from collections.abc import Sequence

from residualign.adapter.lambdas import MovedComponent, PutBackCurve
from residualign.classification.evaluation import Comparison
from residualign.geometry import Geometry
from residualign.report.contents import UnitLine

__all__ = ["findings"]

_NAMED = 3


def findings(
    comparison: Comparison | None,
    method: str,
    units: Sequence[UnitLine],
    moved: Sequence[MovedComponent],
    put_back: PutBackCurve | None,
    geometry: Geometry,
    changed: tuple[int, tuple[int, int, int]],
) -> tuple[str, ...]:
    """Sentences for the head of the page, the most useful first."""
    sentences = [
        _accuracy(comparison, method),
        _changed(*changed),
        _heads(units),
        _concentration(units),
        _carried(moved, put_back),
        _hunchback(geometry),
        _curvature(geometry),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def _accuracy(comparison: Comparison | None, method: str) -> str:
    if comparison is None:
        return ""
    before, after = comparison.before.accuracy, comparison.after.accuracy
    low, high = comparison.interval
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    sure = "" if low > 0 or high < 0 else "; that may be chance"
    return (
        f"Accuracy {verb} from {_percent(before)} to {_percent(after)} with {method}: "
        f"{100 * (after - before):+.1f} points, 95 % between {100 * low:+.1f} and {100 * high:+.1f}{sure}."
    )


def _changed(n: int, kinds: tuple[int, int, int]) -> str:
    if not n:
        return ""
    mended, broken, elsewhere = kinds
    return (
        f"{n:,} test images changed class: {mended:,} mended, {broken:,} broken, {elsewhere:,} from one wrong class to "
        "another."
    )


def _heads(units: Sequence[UnitLine]) -> str:
    heads = [unit for unit in units if unit.kind == "head" and unit.measures.get("change") is not None]
    if len(heads) < 2 * _NAMED:
        return ""
    ranked = sorted(heads, key=lambda unit: -(unit.measures["change"] or 0.0))
    up = ", ".join(_named(unit) for unit in ranked[:_NAMED])
    down = ", ".join(_named(unit) for unit in ranked[: -_NAMED - 1 : -1])
    return f"Heads that gained the largest share of variance: {up}; that lost most of theirs: {down}."


def _named(unit: UnitLine) -> str:
    change = unit.measures["change"] or 0.0
    words = f", “{unit.texts[0]}”" if unit.texts else ""
    return f"{unit.label} (× {change:.2g}{words})"


def _concentration(units: Sequence[UnitLine]) -> str:
    """How few heads hold half of the variance, before and after."""
    heads = [unit for unit in units if unit.kind == "head" and unit.measures.get("energy") is not None]
    if not heads:
        return ""
    after = [unit.measures["energy"] or 0.0 for unit in heads]
    before = [
        energy / change if (change := unit.measures.get("change")) else 0.0
        for unit, energy in zip(heads, after, strict=True)
    ]
    if not sum(after) or not sum(before):
        return ""
    return (
        f"After adapting, {_holding_half(after)} of {len(heads)} heads hold half of the variance of all heads; "
        f"before it were {_holding_half(before)}."
    )


def _holding_half(values: Sequence[float]) -> int:
    total, needed = 0.0, 0
    for value in sorted(values, reverse=True):
        total += value
        needed += 1
        if total >= sum(values) / 2:
            break
    return needed


def _carried(moved: Sequence[MovedComponent], put_back: PutBackCurve | None) -> str:
    if put_back is None or put_back.accuracy[0] <= put_back.accuracy[-1]:
        return ""
    needed = put_back.needed_for(0.5)
    if needed is None:
        return ""
    return (
        f"Half of the gain over lambdas of one goes when the {needed:,} of {len(moved):,} lambdas that moved farthest "
        "are put back."
    )


def _hunchback(geometry: Geometry) -> str:
    profile = geometry.profile("two_nn")
    if profile is None or profile.hunchback is None:
        return ""
    test = profile.hunchback
    if test.holds:
        rest = "; from there it falls on both sides, beyond chance."
    else:
        rest = "; a rise before it and a fall behind it are not both beyond chance."
    return f"The intrinsic dimension of the heads is largest at layer {test.peak}{rest}"


def _curvature(geometry: Geometry) -> str:
    profile = geometry.profile("ratio")
    if profile is None or profile.trend is None or math.isnan(profile.trend.spearman):
        return ""
    trend = profile.trend
    low, high = trend.interval
    if trend.grows:
        grows = "grows with depth"
    else:
        grows = "falls with depth" if high < 0 else "neither grows nor falls clearly with depth"
    between = f", 95 % between {low:.2f} and {high:.2f}" if math.isfinite(low) else ""
    correlation = f"rank correlation {trend.spearman:.2f}{between}"
    return f"How curved heads are (linear over intrinsic dimension) {grows}: {correlation}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
