"""Terminal output of `residualign explain`: texts of a unit, and texts or images at both ends of its components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import percent, plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from residualign.commands.explain import ExplainOutcome
    from residualign.text.explanation import ComponentWords, UnitWords


def show(printer: Out, outcome: ExplainOutcome) -> None:
    """Print the units whose texts explain most."""
    from residualign.cli.views import facts, paragraph

    explanation, shown = outcome.explanation, outcome.shown
    words = "none: the model has no text tower"
    if explanation.dictionary is not None:
        words = f"{explanation.method}, from {plural(explanation.n_texts, 'description')} ({explanation.dictionary})"
    printer.show(
        facts(
            ("model", outcome.model),
            ("images", f"{explanation.n_images:,} of {outcome.data} ({explanation.split})"),
            ("words", words),
            ("components", f"from {outcome.components_from} ({outcome.n_reference:,})"),
        )
    )
    for unit in shown:
        printer.show("", *_unit(unit, explanation.method))
    n, left = len(shown), len(explanation.units) - len(shown)
    if left:
        which = "whose texts explain most" if explanation.dictionary is not None else "with the largest component"
        printer.show(
            "", paragraph(f"{n} of {n + left} units are shown, those {which}; --top shows more, --json lists all")
        )
    if outcome.files:
        printer.show("", f"  {plural(len(outcome.files), 'file')} in {outcome.request.out}")


def _unit(unit: UnitWords, method: str) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from residualign.cli.views import heading, paragraph

    lines: list[RenderableType] = [heading(unit.label)]
    if unit.chosen:
        whose = "the first component" if method == "omp" else "its variance"
        n = len(unit.chosen)
        said = f"{plural(n, 'text explains', 'texts explain')} {percent(unit.explained)} of {whose}"
        if unit.coherence is not None:
            said += f"; coherence {unit.coherence:+.1f}"
        lines += [paragraph("; ".join(text.text for text in unit.chosen), "title"), paragraph(said, "quiet")]
    if not unit.components:
        lines.append(paragraph("constant over these images", "quiet"))
    table = Table.grid(padding=(0, 2))
    for justify in ("right", "right", "left", "left"):
        table.add_column(justify=justify, overflow="fold", no_wrap=justify == "right")
    for component in unit.components:
        share = percent(component.explained_variance_ratio)
        table.add_row(str(component.index), share, Text("+", "good"), _end(component, positive=True))
        table.add_row("", "", Text("-", "bad"), _end(component, positive=False))
    return [*lines, Padding(table, (0, 0, 0, 2), expand=False)]


def _end(component: ComponentWords, positive: bool) -> str:
    matches = component.positive if positive else component.negative
    images = component.images_positive if positive else component.images_negative
    if matches:
        return ", ".join(f"{match.text} {match.score:.2f}" for match in matches)
    return ", ".join(key for key, _ in images)
