"""Terminal output of `residualign where`: one line per image and head, with the parts of its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.where import WhereOutcome

_SHOWN = 24


def show(printer: Out, outcome: WhereOutcome) -> None:
    """Print the sums, or the first of them if there are many."""
    from residualign.cli.views import facts, plain_table

    location = outcome.location
    height, width = location.maps.shape[2:]
    # parts along a direction add up, lengths do not
    signed = location.kind != "norm"
    meaning = "total = patches + prefix (class token, registers) + constant; " if signed else ""
    printer.show(
        facts(
            ("model", outcome.model),
            ("maps", outcome.along),
            ("patches", f"{height} x {width}; parts sum to each head's value within {location.error:.0e}"),
            ("columns", f"{meaning}peak: the largest patch, at row, column"),
        ),
        "",
    )
    rows = outcome.rows()
    parts = ("total", "patches", "prefix", "constant", "peak") if signed else ("total", "constant", "peak")
    figures = zip(*(_in_one_notation([one[part] for one in rows[:_SHOWN]]) for part in parts), strict=True)
    table = [
        (one["target"], *numbers, f"{one['peak_row']}, {one['peak_column']}")
        for one, numbers in zip(rows, figures, strict=False)
    ]
    titles = (("head", False), *((title, True) for title in parts), ("at", False))
    # the end of a long path says more than its beginning
    room = printer.stdout.width - sum(
        2 + max(len(title), *(len(line[i]) for line in table)) for i, (title, _) in enumerate(titles)
    )
    names = [_end(one["image"], room - 2) for one in rows]
    lines = [(name, *line) for name, line in zip(names, table, strict=False)]
    printer.show(plain_table((("image", False), *titles), lines))
    if len(rows) > _SHOWN:
        printer.show("", f"  {plural(len(rows) - _SHOWN, 'more map')}; --json lists all")
    if outcome.files:
        printer.show("", f"  {plural(len(outcome.files), 'file')} in {outcome.request.out}")


def _in_one_notation(values: Sequence[float]) -> list[str]:
    """The numbers of a column, all with as many decimals as give the largest three digits."""
    largest = max(map(abs, values))
    if largest == 0:
        return ["0"] * len(values)
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    return [f"{value:z.2e}" if decimals > 6 else f"{value:z.{decimals}f}" for value in values]


def _end(path: str, width: int) -> str:
    return path if len(path) <= width else "…" + path[len(path) - max(width, 8) + 1 :]
