"""Terminal output of `residualign report`: the findings of the page, and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.report import ReportOutcome


def show(printer: Out, outcome: ReportOutcome) -> None:
    """Print the findings and the path of the page."""
    from residualign.cli.views import bullet, facts

    for sentence in outcome.report.contents.findings:
        printer.show(bullet(sentence))
    size = f"{outcome.page.stat().st_size / 1e6:.1f} MB, opens offline"
    more = len(outcome.files) - 1
    printer.show(
        "",
        facts(
            ("page", f"{outcome.page} ({size})"),
            *((("files", f"{more} more in {outcome.request.out}"),) if more else ()),
        ),
    )
