"""How results look in a terminal: facts, tables and bars that read well in 80 columns, in ASCII and without color."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console, JustifyMethod, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from residualign._messages import NONE, interval, percent, visible

__all__ = [
    "MethodLine",
    "bar",
    "bars_table",
    "before_name",
    "bullet",
    "facts",
    "first_and_last",
    "has_blocks",
    "heading",
    "method_line",
    "paragraph",
    "plain_table",
    "seconds",
    "share_bars",
    "wrapped_table",
]

Row = TypeVar("Row")
_SHORT_BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH, _HALF_BAR, _READABLE, _WIDEST, _SHORT_NAME = 24, 14, 84, 44, 12


@dataclass(frozen=True)
class MethodLine:
    """One classifier: accuracies in [0, 1] on validation and test images, learned parameters, seconds of the fit.

    test_interval: the 95 % interval of the test accuracy. None if there are none.
    """

    name: str
    test: float | None
    test_interval: tuple[float, float] | None
    val: float | None = None
    parameters: int | None = None
    seconds: float | None = None


def first_and_last(rows: Sequence[Row], n: int) -> Sequence[Row]:
    """All rows if they are few, else the first n and the last n."""
    return rows if len(rows) <= 2 * n else [*rows[:n], *rows[-n:]]


def before_name(classifier: str) -> str:
    """What the classifier before adapting is called, by its kind."""
    return "class means" if classifier == "means" else "zero-shot"


def seconds(value: float | None) -> str:
    """A duration for people: `0.4 s`, `2 min 05 s`."""
    if value is None:
        return NONE
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60):02d} s"


def bar(share: float, width: int, unicode: bool = True) -> str:
    """A bar for a share in [0, 1], `width` cells long when full; in eighths of a cell if the encoding has them.

    >>> bar(0.5, 4), bar(0.5, 4, unicode=False)
    ('██  ', '##  ')
    """
    share = min(max(share, 0.0), 1.0)
    if not unicode:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def has_blocks(console: Console) -> bool:
    """Whether the encoding has block characters."""
    return console.encoding.lower().startswith("utf")


def facts(*pairs: tuple[str, str]) -> RenderableType:
    """Short facts, one per line, with names in a gray column."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(visible(name), visible(value))
    return Padding(table, (0, 0, 0, 2), expand=False)


def paragraph(text: str, style: str = "") -> RenderableType:
    """Prose in lines that are comfortable to read, however wide the terminal is."""
    return Constrain(Padding(Text(text, style=style), (0, 2, 0, 2)), _READABLE)


def bullet(text: str) -> RenderableType:
    """A paragraph after a dash; its lines begin below each other."""
    table = Table.grid(padding=(0, 1))
    table.add_row("-", Text(visible(text)))
    return Constrain(Padding(table, (0, 2, 0, 2)), _READABLE)


def heading(text: str) -> RenderableType:
    """The heading of a section."""
    return Text(visible(text), style="heading")


def method_line(line: MethodLine | None, console: Console, marked: bool = False) -> Text:
    """One method: its test accuracy as a bar, validation and test accuracy, parameters, seconds. None gives the titles.

    Lines align without a table, so that each can be printed as soon as its method is done.
    """
    if line is None:
        titles = f"{'method':<15} {'':<{_SHORT_BAR}} {'val':>7} {'test':>7}  {'95 %':>11} {'parameters':>10} {'fit':>7}"
        return Text(f"  {titles}", style="quiet")
    length = bar(line.test or 0.0, _SHORT_BAR, has_blocks(console))
    figures = "" if line.parameters is None else f"{line.parameters:,}"
    spread = "" if line.test_interval is None else interval(*line.test_interval)
    return Text.assemble(
        "  ",
        (f"{line.name:<15}", "title" if marked else ""),
        " ",
        (length, "accent" if line.parameters is not None else "quiet"),
        f" {'' if line.val is None else percent(line.val):>7} ",
        (f"{percent(line.test):>7}", "title" if marked else ""),
        f"  {spread:>11} {figures:>10} {'' if line.seconds is None else seconds(line.seconds):>7}",
    )


def share_bars(rows: Sequence[tuple[str, float, float]], console: Console, title: str) -> RenderableType:
    """Two shares per row as bars side by side: (label, before, after)."""
    table = _table()
    for name in (title, "before", "", "after", ""):
        table.add_column(visible(name), no_wrap=True, justify="left" if name else "right")
    largest = max((max(before, after) for _, before, after in rows), default=1.0) or 1.0
    for label, before, after in rows:
        table.add_row(
            visible(label),
            Text(bar(before / largest, _HALF_BAR, has_blocks(console)), style="quiet"),
            percent(before),
            Text(bar(after / largest, _HALF_BAR, has_blocks(console)), style="good" if after > before else "warn"),
            percent(after),
        )
    return Padding(table, (0, 0, 0, 2), expand=False)


def plain_table(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str | Text]]) -> RenderableType:
    """A table without rules; long cells are truncated to the terminal. columns: (title, whether it holds numbers)."""
    table = _table()
    # escapes count for the width
    rows = [[visible(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    for i, (title, numeric) in enumerate(columns):
        # only the first column gives way, and not below a short name; no other takes more than half a terminal
        longest = max(cell_len(str(cell)) for cell in (title, *(row[i] for row in rows)))
        least, most = (min(longest, _WIDEST), min(longest, _WIDEST)) if i else (min(longest, _SHORT_NAME), None)
        justify: JustifyMethod = "right" if numeric else "left"
        table.add_column(title, justify=justify, no_wrap=i > 0, overflow="ellipsis", min_width=least, max_width=most)
    for row in rows:
        table.add_row(*row)
    return Padding(table, (0, 0, 0, 2), expand=False)


def wrapped_table(columns: tuple[str, str], rows: Sequence[tuple[str, str]]) -> RenderableType:
    """Two columns of text, the second in as many lines as it needs: for reasons, which must not be cut."""
    table = _table()
    longest = max(cell_len(name) for name in (columns[0], *(name for name, _ in rows)))
    table.add_column(columns[0], overflow="fold", min_width=min(longest, _SHORT_NAME), max_width=_WIDEST)
    table.add_column(columns[1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return Padding(table, (0, 0, 0, 2), expand=False)


def bars_table(
    columns: Sequence[str], rows: Sequence[tuple[str, float, Sequence[str]]], console: Console, largest: float
) -> RenderableType:
    """Labeled bars, with figures to their right: (label, value, figures). A full bar is the largest value."""
    table = _table()
    table.add_column(columns[0], no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in columns[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    unicode = has_blocks(console)
    for label, value, figures in rows:
        length = abs(value) / largest if largest > 0 else 0.0
        table.add_row(
            visible(label), Text(bar(length, _BAR_WIDTH, unicode), style="accent" if value >= 0 else "bad"), *figures
        )
    return Padding(table, (0, 0, 0, 2), expand=False)


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="quiet", pad_edge=False, show_edge=False)
