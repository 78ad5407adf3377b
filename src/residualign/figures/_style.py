"""How every figure looks: colors, type, axes, tips; and names as text that nothing takes for markup or mathematics."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    "legend",
    "level",
    "number",
    "panels",
    "percent_axis",
    "shown",
    "styled",
    "tips",
    "unit_map",
    "whole_ticks",
]

Row = Mapping[str, Any]
Rows = Sequence[Row]

ACCENT, SECOND, QUIET = "#2f6fb5", "#c8741a", "#8a8f98"
"""Blue, orange and gray that hold their own on white and near-black, and for readers who see red and green alike."""

INK, SOFT, LINE = "#1b1e23", "#5b616b", "#dfe2e6"

VARIABLES = {ACCENT: "--accent", SECOND: "--second", QUIET: "--quiet", INK: "--ink", SOFT: "--soft", LINE: "--line"}
"""The page's style sheet has its own value of each of these: light, dark and paper differ."""

SERIES = (ACCENT, SECOND, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", QUIET)
"""For lines side by side: told apart with any color vision (after Okabe and Ito 2008), in print and on the screen."""

NARROW = 3.5
"""Inches: the width of a phone's screen less its margins."""

TIPS = "tips "
"""What the id of a group begins with whose marks have texts to show while they are pointed at."""

# families with Chinese, Japanese and Korean, of which a system has some, one or none
_ASIAN = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Hiragino Sans", "PingFang SC",
          "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Droid Sans Fallback")  # fmt: skip


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in here. What a user has set up for other figures does not matter."""
    import matplotlib

    settings: dict[Any, Any] = {
        # a dollar in the name of a class is a dollar
        "text.parse_math": False,
        "text.usetex": False,
        # text that can be searched, edited, and drawn by a browser in letters that our font lacks
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
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8.0,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # what no font of this system has is drawn as a box
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
    """The value, nan where there is none: what is not a number is not drawn."""
    return math.nan if value is None else float(value)


def panels(
    rows: int, columns: int, size: tuple[float, float], title: str = "", **how: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, in reading order. size: inches of the whole; how: for `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    made = figure.subplots(rows, columns, squeeze=False, **how).flatten().tolist()
    if title:
        figure.suptitle(shown(title, 90 if size[0] > 2 * NARROW else 45), x=0.01, ha="left")
    for axes in made:
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    return figure, made


def legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """One legend for all panels, with every label once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        figure.legend(list(once.values()), list(once), loc="outside lower center", ncols=min(columns, len(once)))


def level(axes: Axes, value: float, label: str, style: str = "-") -> None:
    """A level that other things are compared with."""
    axes.axhline(value, color=SOFT, linestyle=style, linewidth=0.9, label=label, zorder=1)


def whole_ticks(axes: Axes, most: int = 9) -> None:
    """Along x, ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True, min_n_ticks=1))


def percent_axis(axis: Any, span: float = 1.0) -> None:
    """Shares as percentages; with a decimal where the axis spans only a few points."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(nbins=6, steps=(1, 2, 5, 10)))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0 if span > 0.06 else 1, symbol=" %"))


def tips(artist: Any, texts: Sequence[str]) -> None:
    """What to show while a mark of the artist is pointed at, one text per mark; in PNG and PDF there is none.

    The texts travel as the artist's gid, which an SVG file has as the id of the group of its marks.
    """
    artist.set_gid(TIPS + json.dumps([shown(text, 200) for text in texts]))


def unit_map(axes: Axes, rows: Rows, name: str, *, ratio: bool = False, form: str = ".1f") -> Any:
    """One number of every head, layers across and heads down; a ratio by its logarithm, around 1."""
    import numpy as np
    from matplotlib.colors import LogNorm

    cells = [(int(row["layer"]), int(row["head"]), number(row[name])) for row in rows]
    grid = np.full((1 + max(head for _, head, _ in cells), 1 + max(layer for layer, _, _ in cells)), math.nan)
    for layer, head, value in cells:
        grid[head, layer] = value if value > 0 or not ratio else math.nan
    widest = 4.0
    norm = LogNorm(1 / widest, widest) if ratio else None
    image = axes.imshow(grid, cmap="PuOr" if ratio else "Blues", norm=norm, aspect="auto", interpolation="nearest")
    for head, layer in np.ndindex(*grid.shape):
        if math.isfinite(grid[head, layer]):
            red, green, blue, _ = image.cmap(image.norm(grid[head, layer]))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            text = format(grid[head, layer], form)
            axes.text(layer, head, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(grid.shape[1]))
    axes.set_yticks(range(grid.shape[0]))
    axes.set_xlabel("layer")
    axes.set_ylabel("head")
    return image
