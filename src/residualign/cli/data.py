"""Terminal output of `residualign data`: the registered names, or the card of one data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.data import CardOutcome, SetsOutcome
    from residualign.data.card import DataCard

_SHOWN, _BAD_SHOWN = 30, 10


def show(printer: Out, outcome: SetsOutcome | CardOutcome) -> None:
    """Print the card, or the list of names."""
    from residualign.cli.views import plain_table
    from residualign.commands.data import SetsOutcome

    if isinstance(outcome, SetsOutcome):
        rows = [(one.name, f"{one.n_classes:,}", one.source) for one in outcome.sets]
        printer.show(plain_table((("name", False), ("classes", True), ("source", False)), rows))
        return
    _show(printer, outcome.card)
    if outcome.request.out is not None:
        printer.show("", f"  card, JSON and contact sheet written to {outcome.request.out}")


def _show(printer: Out, card: DataCard) -> None:
    from residualign.cli.views import facts, plain_table, wrapped_table

    held = card.data
    splits = " · ".join(f"{split.name} {len(split):,}" for split in held.splits)
    examined = "" if card.n_examined == card.n_images else f", {card.n_examined:,} of them decoded"
    pairs = [
        ("data", held.name),
        ("images", f"{card.n_images:,} of {plural(len(held.class_names), 'class', 'classes')}{examined}"),
        ("splits", f"{splits} ({held.split_rule})"),
    ]
    if card.width is not None and card.height is not None:
        widths, heights = (f"{one.min} – {one.median:g} – {one.max}" for one in (card.width, card.height))
        pairs.append(("width, height", f"{widths}, {heights} pixels (smallest – median – largest)"))
        stored = (", ".join(f"{kind} {n:,}" for kind, n in counted.items()) for counted in (card.formats, card.modes))
        pairs.append(("stored as", "; ".join(stored)))
    pairs.append(("prompts", " · ".join(held.templates)))
    rows = [
        (name, *(f"{card.counts[split.name][label]:,}" for split in held.splits))
        for label, name in enumerate(held.class_names[:_SHOWN])
    ]
    columns = (("class", False), *((split.name, True) for split in held.splits))
    printer.show(facts(*pairs), "", plain_table(columns, rows))
    if len(held.class_names) > _SHOWN:
        printer.show("", f"  {plural(len(held.class_names) - _SHOWN, 'more class', 'more classes')}; --json lists all")
    if card.bad:
        shown = [(one.key, one.problem or "") for one in card.bad[:_BAD_SHOWN]]
        printer.show("", wrapped_table(("unreadable", "why"), shown))
        if len(card.bad) > _BAD_SHOWN:
            printer.show("", f"  {plural(len(card.bad) - _BAD_SHOWN, 'more image')}; --json lists all")
