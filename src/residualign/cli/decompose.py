"""Terminal output of `residualign decompose`: the units that carry most of the variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import percent
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign._result import Row
    from residualign.commands.decompose import DecomposeOutcome

_SHOWN = 12


def show(printer: Out, outcome: DecomposeOutcome) -> None:
    """Print the units with the largest shares of variance."""
    from residualign.cli.views import bars_table, facts

    def share(unit: Row) -> float:
        return float(unit["variance_share"])

    statistics = outcome.statistics
    ranked = sorted(outcome.units, key=share, reverse=True)
    shown, left = ranked[:_SHOWN], ranked[_SHOWN:]
    rows = [(str(unit["label"]), share(unit), (percent(share(unit)), f"{unit['norm']:.2f}")) for unit in shown]
    error = f"{len(ranked)} units sum to the model's output within {statistics.residual_error:.0e}"
    printer.show(
        facts(("model", outcome.model), ("images", f"{statistics.n_images:,}"), ("sum check", error)),
        "",
        bars_table(("unit", "share of variance", "norm"), rows, printer.stdout, largest=max(map(share, ranked))),
    )
    if left:
        carried = percent(sum(map(share, left)))
        printer.show("", f"  {len(left)} more units carry {carried} together; --json lists all")
    if outcome.request.out is not None:
        printer.show("", f"  contributions written to {outcome.request.out}")
