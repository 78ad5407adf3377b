"""`residualign where`: which patches of an image a head read its contribution from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.where import WhereOutcome

_SHOWN = 24


def where(
    source: o.ModelOrAdapter,
    images: o.Images,
    unit: o.UnitLabels = None,
    component: o.Components = None,
    text: o.TextOption = None,
    against: o.AgainstTexts = None,
    reference: o.Reference = None,
    model: o.ModelPath = None,
    out: o.AnalysisOut = None,
    formats: o.Formats = None,
    overwrite: o.Overwrite = False,
    skip_bad: o.SkipBad = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 8,
    json: o.Json = False,
) -> None:
    """Show where in images chosen heads (--unit) read what they contribute, patch by patch, as exact sums.

    Along a --component of the head, or a --text; with an adapter's DIR in place of MODEL along what set the first class
    apart from the second; else the length of every part. --out writes heat maps over the pictures.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.where import run_where

    printer = Out(json)
    outcome = run_where(
        source,
        images,
        Machine(device, dtype.value, batch_size, 0),
        units=unit,
        components=component,
        text=text,
        against=against,
        reference=reference,
        model=model,
        skip_bad=skip_bad,
        out=out,
        formats=None if formats is None else [one.value for one in formats],
        overwrite=overwrite,
        progress=printer,
    )
    printer.finish(outcome.to_json())
    if not json:
        _show(printer, outcome)
        if out is not None:
            printer.show("", f"  maps written to {out}")


def _show(printer: Out, outcome: WhereOutcome) -> None:
    from residualign.cli.views import facts, plain_table

    location = outcome.location
    rows, columns = location.maps.shape[2:]
    printer.show(
        facts(
            ("model", outcome.model),
            ("maps", outcome.along),
            ("patches", f"{rows} x {columns}; parts sum to each head's value within {location.error:.0e}"),
        ),
        "",
    )
    table = [
        (
            one["image"],
            one["target"],
            f"{one['total']:.4g}",
            *(() if location.kind == "norm" else (f"{one['patches']:.4g}", f"{one['prefix']:.4g}")),
            f"{one['constant']:.4g}",
            f"{one['peak']:.3g} at {one['peak_row']}, {one['peak_column']}",
        )
        for one in outcome.rows()
    ]
    parts = () if location.kind == "norm" else (("patches", True), ("class token, registers", True))
    titles = (("image", False), ("head", False), ("total", True), *parts, ("constant", True))
    printer.show(plain_table((*titles, ("largest patch: row, column", True)), table[:_SHOWN]))
    if len(table) > _SHOWN:
        printer.show("", f"  {len(table) - _SHOWN} further maps; --json lists all")
