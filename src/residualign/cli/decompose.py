"""Terminal output of `residualign decompose`: the units that carry most of the variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import percent, plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign._result import Row
    from residualign.commands.decompose import DecomposeOutcome

_SHOWN = 12


def show(printer: Out, outcome: DecomposeOutcome) -> None:
    """Print the units with the largest shares of variance; of images without variance, those with the largest norms."""
    from residualign.cli.views import bars_table, facts, paragraph

    statistics = outcome.statistics
    varies = any(unit["variance_share"] != 0 for unit in outcome.units)

    def size(unit: Row) -> float:
        return float(unit["variance_share" if varies else "norm"])

    ranked = sorted(outcome.units, key=size, reverse=True)
    shown, left = ranked[:_SHOWN], ranked[_SHOWN:]
    shares = ("share of variance",) if varies else ()
    rows = [
        (str(unit["label"]), size(unit), (*(percent(size(unit)) for _ in shares), f"{unit['norm']:.2f}"))
        for unit in shown
    ]
    error = f"{len(ranked)} units sum to the model's output within {statistics.residual_error:.0e}"
    printer.show(
        facts(("model", outcome.model), ("images", f"{statistics.n_images:,}"), ("sum check", error)),
        "",
        bars_table(("unit", *shares, "norm"), rows, printer.stdout, largest=max(map(size, ranked))),
    )
    if not varies:
        alike = "one image has" if statistics.n_images == 1 else "images that are all alike have"
        printer.show("", paragraph(f"No shares of variance: {alike} no variance. Units are sorted by norm."))
    if left:
        carried = f" carry {percent(sum(map(size, left)))} together" if varies else ""
        printer.show("", f"  {plural(len(left), 'more unit')}{carried}; --json lists all")
    if outcome.request.out is not None:
        printer.show("", f"  contributions written to {outcome.request.out}")
