"""What the numbers of a report say, in sentences, and how the run was made, in facts."""

from __future__ import annotations

import math
import re
import shlex
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from residualign._messages import percent, plural, points
from residualign.classification.evaluation import Comparison
from residualign.geometry import Geometry
from residualign.geometry.result import Hunchback
from residualign.report.contents import Fact, UnitLine
from residualign.report.measure import Measured

__all__ = ["components_from", "findings", "made_facts"]

_NAMED = 3


def findings(method: str, measured: Measured) -> tuple[str, ...]:
    """Sentences for the top of the page, the most useful first. method: of the adapter."""
    sentences = (
        _accuracy(measured.comparison, method),
        _changed(measured),
        _heads(measured.units),
        _concentration(measured.units),
        _carried(measured),
        _hunchback(measured.geometry),
        _curvature(measured.geometry),
    )
    return tuple(filter(None, sentences))


def _accuracy(comparison: Comparison | None, method: str) -> str:
    if comparison is None:
        return ""
    before, after = comparison.before.accuracy, comparison.after.accuracy
    low, high = comparison.interval
    if after == before:
        n, unnoticed = comparison.after.n, 100 * max(abs(low), abs(high))
        return (
            f"Test accuracy is {percent(after)} before and after; with {n:,} test {'image' if n == 1 else 'images'} a "
            f"change of up to {unnoticed:.1f} points could go unnoticed."
        )
    verb = "rose" if after > before else "fell"
    chance = "" if low > 0 or high < 0 else "; the difference may be due to chance"
    return (
        f"Test accuracy {verb} from {percent(before)} to {percent(after)} with {method}: {points(after - before)} "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}){chance}."
    )


def _changed(measured: Measured) -> str:
    changed = measured.changed_kinds
    n = sum(changed.values())
    if not n:
        return "No test image changed class." if changed and measured.comparison is not None else ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in changed.items())
    return f"The predicted class of {n:,} test {'image' if n == 1 else 'images'} changed: {kinds}."


def _heads(units: Sequence[UnitLine]) -> str:
    known = [(change, unit) for unit in _heads_of(units) if (change := unit.measures.get("change")) is not None]
    if len(known) < 2 * _NAMED:
        return ""
    ranked = [_named(*pair) for pair in sorted(known, key=lambda pair: -pair[0])]
    up, down = ", ".join(ranked[:_NAMED]), ", ".join(ranked[: -_NAMED - 1 : -1])
    return f"Heads amplified most, by their share of the variance: {up}. Suppressed most: {down}."


def _heads_of(units: Sequence[UnitLine]) -> list[UnitLine]:
    return [unit for unit in units if unit.kind == "head"]


def _named(change: float, unit: UnitLine) -> str:
    words = f", “{unit.texts[0]}”" if unit.texts else ""
    return f"{unit.label} (× {change:.2g}{words})"


def _concentration(units: Sequence[UnitLine]) -> str:
    """How few heads hold half of the variance, before and after."""
    heads = [unit.measures for unit in _heads_of(units) if unit.measures.get("energy") is not None]
    after = [one["energy"] or 0.0 for one in heads]
    before = [
        energy / change if (change := one.get("change")) else 0.0 for one, energy in zip(heads, after, strict=True)
    ]
    if not sum(after) or not sum(before):
        return ""
    return (
        f"After adapting, {_holding_half(after)} of {len(heads)} heads hold half of the variance of all heads; before, "
        f"it took {_holding_half(before)}."
    )


def _holding_half(values: Sequence[float]) -> int:
    return 1 + bisect_left(list(accumulate(sorted(values, reverse=True))), sum(values) / 2)


def _carried(measured: Measured) -> str:
    curve = measured.curves[0] if measured.curves else None
    if curve is None or curve.accuracy[0] <= curve.accuracy[-1] or (needed := curve.needed_for(0.5)) is None:
        return ""
    return (
        f"Half of the gain over lambdas of 1 is lost when the {needed:,} of {len(measured.moved):,} lambdas with the "
        "largest effect are reset to 1."
    )


def _hunchback(geometry: Geometry) -> str:
    profile = geometry.profile("two_nn")
    if profile is None or profile.hunchback is None:
        return ""
    found, first, last = profile.hunchback, profile.layers[0], profile.layers[-1]
    dimension = "The intrinsic dimension of the heads"
    if found.peak == first:
        return f"{dimension} is largest at layer {first}, the first, so it does not rise and then fall with depth."
    if found.peak == last:
        return f"{dimension} is largest at layer {last}, the last, so it does not rise and then fall with depth."
    return f"{dimension} peaks at layer {found.peak}{_significance(found)}."


def _significance(found: Hunchback) -> str:
    """Which of the rise to a peak and the fall after it is significant; nothing where no interval is known."""
    lows = found.rise_interval[0], found.fall_interval[0]
    if not all(map(math.isfinite, lows)):
        return ""
    rises, falls = (low > 0 for low in lows)
    if rises == falls:
        pair = (
            "the rise before it and the fall after it are both"
            if rises
            else "neither the rise before it nor the fall after it is"
        )
        return f"; {pair} significant"
    return (
        f"; the rise before it is {'' if rises else 'not '}significant, the fall after it is{' not' if rises else ''}"
    )


def _curvature(geometry: Geometry) -> str:
    profile = geometry.profile("ratio")
    if profile is None or profile.trend is None or math.isnan(profile.trend.spearman):
        return ""
    trend = profile.trend
    low, high = trend.interval
    falls = "falls with depth" if high < 0 else "shows no clear trend with depth"
    grows = "grows with depth" if trend.grows else falls
    interval = f", 95 % interval {low:.2f} to {high:.2f}" if math.isfinite(low) else ""
    return (
        f"The curvature of the heads (linear over intrinsic dimension) {grows}: rank correlation "
        f"{trend.spearman:.2f}{interval}."
    )


_WHOSE = {"given": "given with --reference", "shipped": "comes with the model"}
_SETTINGS = ("classifier", "solver", "mean", "rest", "start", "shots", "threshold", "loss", "logit_scale")


def made_facts(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Facts from the summary of a run and the settings of its method."""
    made, prints = summary["made_with"], summary["fingerprints"]
    pairs: list[tuple[str, Any]] = [
        ("command", shlex.join(made["command"]) if made.get("command") else "from Python"),
        ("model", summary["model"]),
        ("data", summary["data"]),
        ("splits", f"{summary['split_rule']}: {_sizes(summary)}"),
        ("prompts", "; ".join(summary.get("templates", ()))),
        ("components from", components_from(summary)),
        ("method", summary["chosen"]),
        *((name.replace("_", " "), settings.get(name)) for name in _SETTINGS),
        ("seed", summary["seed"]),
        ("sum check", f"units sum to the model's output within {summary['residual_error']:.0e}"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())),
        ("images skipped", summary["n_skipped"] or None),
        ("versions", ", ".join(f"{name} {value}" for name, value in made.items() if name != "command")),
        *((f"{name} fingerprint", value) for name, value in prints.items()),
    ]
    return tuple(Fact(name, _text(value)) for name, value in pairs if value not in (None, ""))


def components_from(summary: Mapping[str, Any]) -> str:
    """The images that the components come from: what they are, whose, and their number where that does not say it."""
    source, n = str(summary["reference"]), summary["n_reference"]
    images = () if re.search(rf"\b{n}\b", source.replace(",", "")) else (f"{plural(n, 'image')}",)
    kind = _WHOSE.get(summary["reference_kind"], summary["reference_kind"])
    return f"{source} ({'; '.join((*images, kind))})"


def _sizes(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {summary[f'n_{name}']:,}" for name in ("train", "val", "test") if f"n_{name}" in summary)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
