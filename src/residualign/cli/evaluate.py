"""Terminal output of `residualign evaluate`: an adapter compared with the classifier before adapting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import interval, percent, plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.evaluate import EvaluateOutcome

_SHOWN = 20


def show(out: Out, outcome: EvaluateOutcome) -> None:
    """Print both classifiers, the change, and the classes, worst first."""
    from residualign.cli.views import before_name, facts, plain_table

    adapter, comparison = outcome.adapter, outcome.comparison
    before = before_name(adapter.classifier.kind)
    rows = []
    for name, one in ((before, comparison.before), (adapter.method, comparison.after)):
        low, high = one.interval
        rows.append(
            (
                name,
                percent(one.accuracy),
                interval(low, high),
                percent(one.macro_accuracy),
                percent(one.calibration_error),
            )
        )
    low, high = comparison.interval
    gained = f"{100 * comparison.difference:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    per_class = list(zip(comparison.before.per_class, comparison.after.per_class, strict=True))
    ranked = sorted(per_class, key=lambda pair: 2.0 if pair[1].accuracy is None else pair[1].accuracy)
    shown = ranked[:_SHOWN]
    columns = (("accuracy", True), ("95 %", True), ("mean of classes", True), ("calibration error", True))
    out.show(
        facts(
            ("adapter", f"{outcome.request.adapter} on {adapter.model_info.get('name')}"),
            ("images", f"{comparison.after.n:,} test images of {outcome.request.data} ({outcome.split_rule})"),
            ("change", gained),
        ),
        "",
        plain_table((("", False), *columns), rows),
        "",
        plain_table(
            (("class, worst first", False), ("images", True), (before, True), ("adapted", True)),
            [(new.name, f"{new.n:,}", percent(old.accuracy), percent(new.accuracy)) for old, new in shown],
        ),
    )
    if len(ranked) > len(shown):
        out.show("", f"  {plural(len(ranked) - len(shown), 'more class', 'more classes')}; --json lists all")
