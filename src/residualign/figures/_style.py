"""How every figure looks: colors, fonts, axes, tooltips; names are drawn as plain text, never as mathematics."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "INK",
    "NARROW",
    "QUIET",
    "SECOND",
    "SERIES",
    "SOFT",
    "TIPS",
    "VARIABLES",
    "Row",
    "Rows",
    "column",
    "grouped",
    "legend",
    "level",
    "line",
    "log_ticks",
    "matrix",
    "number",
    "panels",
    "percent_axis",
    "shown",
    "styled",
    "tips",
    "whole_ticks",
]

Row = Mapping[str, Any]
Rows = Sequence[Row]

ACCENT, SECOND, QUIET = "#2f6fb5", "#c8741a", "#8a8f98"
"""Blue, orange and gray: readable on white and on near-black, and with red-green color blindness."""

INK, SOFT, LINE = "#1b1e23", "#5b616b", "#dfe2e6"

VARIABLES = {ACCENT: "--accent", SECOND: "--second", QUIET: "--quiet", INK: "--ink", SOFT: "--soft", LINE: "--line"}
"""CSS variables of the page that replace these colors: their values differ on light and dark screens and in print."""

SERIES = (ACCENT, SECOND, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", QUIET)
"""Colors of several lines in one panel, safe for color blindness (after Okabe and Ito 2008)."""

NARROW = 3.5
"""Width in inches of a figure for a phone."""

TIPS = "tips "
"""Prefix of the id of an SVG group whose marks have tooltips."""

# fonts with Chinese, Japanese and Korean letters; those that the system has are used
_ASIAN = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Hiragino Sans", "PingFang SC",
          "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Droid Sans Fallback")  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """The settings to draw and save in; the user's own matplotlib settings are set aside."""
    import matplotlib

    settings: dict[Any, Any] = {
        # a dollar sign in a class name is not mathematics
        "text.parse_math": False,
        "text.usetex": False,
        # text stays text: it can be searched and edited, and a browser has letters that our font lacks
        "svg.fonttype": "none",
        "svg.hashsalt": "residualign",
        "pdf.fonttype": 42,
        "font.family": list(_families()),
        "font.size": 9.0,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "figure.titlesize": 10.5,
        "axes.labelsize": 9.0,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "xtick.major.size": 0.0,
        "ytick.major.size": 0.0,
        "text.color": INK,
        "axes.titlecolor": INK,
        "axes.labelcolor": SOFT,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "axes.edgecolor": LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "lines.markersize": 4.0,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8.0,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # a letter that no font of the system has is drawn as a box
        warnings.filterwarnings("ignore", message=r".*Glyph .* missing from")
        yield


@cache
def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import get_font_names

    there = set(get_font_names())
    return ("DejaVu Sans", *(name for name in _ASIAN if name in there))


def shown(name: object, most: int = 40) -> str:
    r"""A name on one line, without characters that cannot be drawn, cut in the middle where it is long.

    >>> shown("a\nb"), shown("0123456789", most=7)
    ('a b', '012…789')
    """
    text = str(name).encode("utf-8", "replace").decode()
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    # matplotlib takes what begins with an underscore for a name of its own and leaves it out of legends
    text = f" {text}" if text.startswith("_") else text
    return text if len(text) <= most else f"{text[: (most - 1) // 2]}…{text[len(text) - most // 2 :]}"


def number(value: Any) -> float:
    """The value, or NaN for None; NaN is not drawn."""
    return math.nan if value is None else float(value)


def column(rows: Rows, name: str) -> list[float]:
    """One column of a table as numbers."""
    return [number(row[name]) for row in rows]


def grouped(rows: Rows, *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """The rows by their values in these columns, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def panels(
    rows: int, columns: int, size: tuple[float, float], title: str = "", **how: Any
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row. size: of the whole, in inches; how: passed to `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(shown(title, 90 if size[0] > 2 * NARROW else 45), x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False, **how).flatten().tolist()


def line(axes: Axes, rows: Rows, x: str, y: str, texts: Sequence[str] = (), **how: Any) -> None:
    """One column of a table against another. texts: tooltips, one per row; how: passed to `Axes.plot`."""
    (drawn,) = axes.plot(column(rows, x), column(rows, y), **how)
    if texts:
        tips(drawn, texts)


def matrix(axes: Axes, cells: Mapping[tuple[int, int], float], shape: tuple[int, int], **how: Any) -> Any:
    """Colored cells, by (row, column); those without a number are left empty. how: passed to `Axes.imshow`."""
    import numpy as np

    grid = np.full(shape, math.nan)
    for place, value in cells.items():
        grid[place] = value
    axes.grid(visible=False)
    return axes.imshow(grid, **how)


def legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """One legend for all panels, each label once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        figure.legend(list(once.values()), list(once), loc="outside lower center", ncols=min(columns, len(once)))


def level(axes: Axes, value: float, label: str, style: str = "-") -> None:
    """A horizontal line to compare the others with."""
    axes.axhline(value, color=SOFT, linestyle=style, linewidth=0.9, label=label, zorder=1)


def log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def whole_ticks(axes: Axes) -> None:
    """Integer ticks along x."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))


def percent_axis(axis: Axis) -> None:
    """Shares as percentages between 0 and 100 %, with a decimal where the axis spans only a few points.

    Called when everything is drawn, because it ends the automatic choice of limits.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    low, high = (min(1.0, max(0.0, end)) for end in axis.get_view_interval())
    axes = axis.axes
    along_x = axis is axes.xaxis
    (axes.set_xlim if along_x else axes.set_ylim)(low, high)
    for drawn in axes.lines:
        # a line along the edge at 100 % keeps its width; what is outside stays hidden, and takes no room
        shares: Any = drawn.get_xdata(orig=False) if along_x else drawn.get_ydata(orig=False)
        drawn.set_clip_on(len(shares) == 0 or min(shares) < low or max(shares) > high)
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.06 else 1, symbol=" %"))


def tips(artist: Artist, texts: Sequence[str]) -> None:
    """Tooltips of the marks of an artist, one per mark, in SVG files; PNG and PDF have none.

    They travel as the artist's gid, which becomes the id of its group in the SVG file.
    """
    artist.set_gid(TIPS + json.dumps([shown(text, 200) for text in texts]))
