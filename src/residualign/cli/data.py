"""`residualign data`: what a data set holds, before anything is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.data import DataCard

_SHOWN, _BAD_SHOWN = 30, 10


def data(
    name: o.DataName = None,
    out: o.OptionalOut = None,
    stream: o.Stream = False,
    quick: o.Quick = False,
    overwrite: o.Overwrite = False,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Say what a data set holds: classes and splits, sizes, bad images, duplicates across splits.

    Decodes every image, with --quick a few of each class. --out writes a card, its JSON and a contact sheet. Without
    DATA it lists the registered names.
    """
    printer = Out(json)
    if name is None:
        from dataclasses import asdict

        from residualign.cli.views import plain_table
        from residualign.data import registered_sets
        from residualign.errors import BadInputError

        if out is not None:
            raise BadInputError("--out needs DATA: a folder or a registered name whose card to write")
        sets = registered_sets()
        printer.finish({"names": [one.name for one in sets], "sets": [asdict(one) for one in sets]})
        rows = [(one.name, f"{one.n_classes:,}", one.source) for one in sets]
        printer.show(plain_table((("name", False), ("classes", True), ("source", False)), rows))
        return
    from residualign.commands.data import run_data

    card = run_data(name, out=out, stream=stream, quick=quick, overwrite=overwrite, workers=workers, progress=printer)
    printer.finish(card.to_json() | {"out": None if out is None else str(out)})
    if not json:
        _show(printer, card)
        if out is not None:
            printer.show("", f"  card, JSON and contact sheet written to {out}")
    for sentence in card.warnings:
        printer.warn(sentence)


def _show(printer: Out, card: DataCard) -> None:
    from residualign.cli.views import facts, plain_table

    held = card.data
    splits = " · ".join(f"{split.name} {len(split):,}" for split in held.splits)
    examined = "" if card.n_examined == card.n_images else f", {card.n_examined:,} of them decoded"
    pairs = [
        ("data", held.name),
        ("images", f"{card.n_images:,} of {len(held.class_names):,} classes{examined}"),
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
        printer.show("", f"  {len(held.class_names) - _SHOWN} further classes; --json lists all")
    if card.bad:
        shown = [(one.key, one.problem or "") for one in card.bad[:_BAD_SHOWN]]
        printer.show("", plain_table((("cannot be read", False), ("why", False)), shown))
        if len(card.bad) > _BAD_SHOWN:
            printer.show("", f"  {len(card.bad) - _BAD_SHOWN} further images; --json lists all")
