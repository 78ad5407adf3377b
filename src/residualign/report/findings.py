"""What the numbers of a report say, in sentences, and how they were made, in facts; what is absent is left out."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from residualign._messages import percent, points
from residualign.adapter.lambdas import MovedComponent, PutBackCurve
from residualign.classification.evaluation import Comparison
from residualign.geometry import Geometry
from residualign.report.contents import Fact, UnitLine

__all__ = ["findings", "made_facts"]

_NAMED = 3


def findings(
    comparison: Comparison | None,
    method: str,
    units: Sequence[UnitLine],
    moved: Sequence[MovedComponent],
    put_back: PutBackCurve | None,
    geometry: Geometry,
    changed: Mapping[str, int],
) -> tuple[str, ...]:
    """Sentences for the head of the page, the most useful first.

    put_back: accuracy as lambdas are reset to 1, largest effect first. changed: images whose class changed, by kind.
    """
    sentences = [
        _accuracy(comparison, method),
        _changed(changed),
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
    verb = "rose" if after > before else "fell" if after < before else "stayed the same:"
    chance = "" if low > 0 or high < 0 else "; the difference may be due to chance"
    return (
        f"Test accuracy {verb} from {percent(before)} to {percent(after)} with {method}: {points(after - before)} "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}){chance}."
    )


def _changed(changed: Mapping[str, int]) -> str:
    n = sum(changed.values())
    if not n:
        return ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in changed.items())
    return f"The predicted class of {n:,} test {'image' if n == 1 else 'images'} changed: {kinds}."


def _heads(units: Sequence[UnitLine]) -> str:
    heads = [unit for unit in units if unit.kind == "head" and unit.measures.get("change") is not None]
    if len(heads) < 2 * _NAMED:
        return ""
    ranked = sorted(heads, key=lambda unit: -(unit.measures["change"] or 0.0))
    up = ", ".join(_named(unit) for unit in ranked[:_NAMED])
    down = ", ".join(_named(unit) for unit in ranked[: -_NAMED - 1 : -1])
    return f"Heads amplified most, by their share of the variance: {up}. Suppressed most: {down}."


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
        f"After adapting, {_holding_half(after)} of {len(heads)} heads hold half of the variance of all heads; before, "
        f"it took {_holding_half(before)}."
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
        f"Half of the gain over lambdas of 1 is lost when the {needed:,} of {len(moved):,} lambdas with the largest "
        "effect are reset to 1."
    )


def _hunchback(geometry: Geometry) -> str:
    profile = geometry.profile("two_nn")
    if profile is None or profile.hunchback is None:
        return ""
    test = profile.hunchback
    if test.holds:
        rest = "the rise before it and the fall after it are both significant."
    else:
        rest = "the rise before it and the fall after it are not both significant."
    return f"The intrinsic dimension of the heads peaks at layer {test.peak}; {rest}"


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


_SETTINGS = ("classifier", "solver", "mean", "rest", "start", "shots", "threshold", "loss", "logit_scale")


def made_facts(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Facts from the summary of a run and the settings of its method, in the order a reader asks for them."""
    made, prints = summary["made_with"], summary["fingerprints"]
    pairs: list[tuple[str, Any]] = [
        ("command", shlex.join(made["command"]) if made.get("command") else "from Python"),
        ("model", summary["model"]),
        ("data", summary["data"]),
        ("splits", f"{summary['split_rule']}: {_sizes(summary)}"),
        ("prompts", "; ".join(summary.get("templates", ()))),
        ("components from", f"{summary['reference']} ({summary['n_reference']:,} images; {summary['reference_kind']})"),
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


def _sizes(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {summary[f'n_{name}']:,}" for name in ("train", "val", "test") if f"n_{name}" in summary)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
