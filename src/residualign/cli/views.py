"""How results look in a terminal: facts, tables and bars that read well in 80 columns, in any encoding, in no colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["bar", "bars_table", "facts", "heading", "method_bars", "percent", "plain_table", "seconds"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH = 24

MethodRow = tuple[str, float | None, int | None, float | None]
"""Name, accuracy in [0, 1], learned parameters, seconds; None where there is none."""


def percent(share: float | None) -> str:
    """A share as people read it: `70.1 %`."""
    return "–" if share is None else f"{100 * share:.1f} %"


def seconds(value: float | None) -> str:
    """A duration as people read it: `0.4 s`, `2 min 05 s`."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60):02d} s"


def bar(share: float, width: int, unicode: bool = True) -> str:
    """A bar for a share in [0, 1], `width` cells long when full; eighths of a cell where the encoding has them.

    >>> bar(0.5, 4), bar(0.5, 4, unicode=False)
    ('██  ', '##  ')
    """
    share = min(max(share, 0.0), 1.0)
    if not unicode:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def facts(*pairs: tuple[str, str]) -> RenderableType:
    """Short facts, one a line, names in a quiet column."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value)
    return Padding(table, (0, 0, 0, 2), expand=False)


def heading(text: str, detail: str = "") -> RenderableType:
    """A section's first line, with a detail at its right end."""
    line = Table.grid(expand=True)
    line.add_column(style="title")
    line.add_column(justify="right", style="quiet")
    line.add_row(text, detail)
    return line


def method_bars(rows: Sequence[MethodRow], console: Console, chosen: str | None = None) -> RenderableType:
    """Test accuracy of methods as bars, with learned parameters and seconds; the chosen one is marked."""
    table = _table()
    table.add_column("method", no_wrap=True)
    table.add_column("test accuracy", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("fit", justify="right", no_wrap=True)
    unicode = console.encoding.lower().startswith("utf")
    for name, accuracy, parameters, duration in rows:
        marked = name == chosen
        style = "accent" if parameters is not None else "quiet"
        table.add_row(
            Text(name, style="title" if marked else ""),
            Text(bar(accuracy or 0.0, _BAR_WIDTH, unicode), style=style),
            Text(percent(accuracy), style="title" if marked else ""),
            "" if parameters is None else f"{parameters:,}",
            "" if duration is None else seconds(duration),
        )
    return Padding(table, (0, 0, 0, 2), expand=False)


def plain_table(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str | Text]]) -> RenderableType:
    """A table without lines, one line a row; what is too long for the terminal is cut. columns: (title, holds numbers)."""
    table = _table()
    for title, numeric in columns:
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return Padding(table, (0, 0, 0, 2), expand=False)


def bars_table(
    columns: Sequence[str], rows: Sequence[tuple[str, float, Sequence[str]]], console: Console, largest: float
) -> RenderableType:
    """Labelled bars with further figures at their right: (label, value, figures); the full width stands for largest."""
    table = _table()
    table.add_column(columns[0], no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in columns[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    unicode = console.encoding.lower().startswith("utf")
    for label, value, figures in rows:
        length = abs(value) / largest if largest > 0 else 0.0
        table.add_row(label, Text(bar(length, _BAR_WIDTH, unicode), style="accent" if value >= 0 else "bad"), *figures)
    return Padding(table, (0, 0, 0, 2), expand=False)


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="quiet", pad_edge=False, show_edge=False)
