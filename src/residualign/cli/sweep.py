"""Terminal output of `residualign sweep`: the best settings, and how much each choice matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.sweep import SweepOutcome
    from residualign.fitting.sweep import SettingSummary

_SHOWN = 10


def show(out: Out, outcome: SweepOutcome) -> None:
    """Print the grid: the best settings on validation images, and the mean of every level."""
    from residualign._messages import percent
    from residualign.cli.views import before_name, facts, plain_table, seconds

    sizes = " · ".join(f"{name} {size:,}" for name, size in outcome.sizes.items())
    resumed = f", {outcome.resumed} of them from an earlier run" if outcome.resumed else ""
    out.show(
        facts(
            ("model", outcome.model),
            ("data", f"{outcome.data}: {sizes}"),
            ("components", "; ".join(f"{name}: {source}" for name, source in outcome.bases.items())),
            ("before", f"{before_name(outcome.classifier)} {percent(outcome.zero_shot)}"),
            ("runs", f"{len(outcome.runs)} in {seconds(outcome.seconds)}{resumed}"),
        )
    )
    ranked = sorted(outcome.summaries, key=lambda one: (-one.val, one.parameters))
    columns = (("components", False), ("scaled", False), ("basis", False), ("start", False), ("rate", False))
    figures = (("parameters", True), ("seeds", True), ("val", True), ("test", True))
    rows = [(*one.factors, f"{one.parameters:,}", str(one.n_seeds), *_accuracies(one)) for one in ranked[:_SHOWN]]
    out.show("", plain_table((*columns, *figures), rows))
    if len(ranked) > _SHOWN:
        out.show(
            "", f"  {plural(len(ranked) - _SHOWN, 'more setting')}, best validation accuracy first; --json lists all"
        )
    levels = [
        (one.factor.replace("_", " "), one.level, percent(one.test), percent(one.best.test), " ".join(one.best.factors))
        for one in outcome.levels
    ]
    titles = (("factor", False), ("level", False), ("mean test", True), ("best", True), ("best setting", False))
    out.show("", plain_table(titles, levels))
    if outcome.request.out is not None:
        out.show("", f"  runs, tables and figures in {outcome.request.out}")


def _accuracies(one: SettingSummary) -> tuple[str, str]:
    def told(value: float | None, sd: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if sd is None else f"{100 * value:.1f} ± {100 * sd:.1f}"

    return told(one.val, one.val_sd), told(one.test, one.test_sd)
