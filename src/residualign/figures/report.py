"""The figures only a report has: accuracy of every method, confusion, and a map of the heads per measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from residualign._messages import percent
from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    INK,
    NARROW,
    QUIET,
    SECOND,
    Row,
    Rows,
    grouped,
    number,
    panels,
    percent_axis,
    shown,
    tips,
)
from residualign.figures.units import head_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MOST_CLASSES", "map_figures", "report_figures"]

MOST_CLASSES = 60
"""A confusion matrix of more classes cannot be read, and is not drawn."""

_NARROW_CLASSES = 20

_KINDS = {"before": QUIET, "method": ACCENT, "probe": SECOND}


def report_figures(tables: Mapping[str, Rows], n_test: int, class_names: Sequence[str]) -> dict[str, Figure]:
    """`accuracy` and `confusion` by name, from the tables `methods` and `confusion`; those without data are left out.

    n_test: number of test images. class_names: in the order of rows and columns.
    """
    figures = {}
    methods = [row for row in tables["methods"] if row["accuracy"] is not None]
    if methods:
        draw = partial(_accuracy, methods, n_test)
        figures["accuracy"] = Figure(draw, partial(draw, width=NARROW))
    if tables["confusion"] and 2 <= len(class_names) <= MOST_CLASSES:
        draw = partial(_confusion, tables["confusion"], class_names)
        # with more classes the labels of one column would be as small as those of two
        figures["confusion"] = Figure(draw, partial(draw, columns=1) if len(class_names) <= _NARROW_CLASSES else None)
    return figures


def map_figures(units: Rows, measures: Sequence[tuple[str, str, str]]) -> dict[str, Figure]:
    """`map_NAME` for every measure (name, title, scale) that a head has; scale is "share", "ratio" or "number"."""
    heads = [row for row in units if row["kind"] == "head"]
    figures = {}
    for name, title, scale in measures:
        if all(row[name] is None for row in heads):
            continue
        rows: Rows = heads
        if scale == "share":
            rows, title = [{**row, name: 100 * number(row[name])} for row in heads], f"{title}, %"
        figures[f"map_{name}"] = head_map(rows, name, heading=title, ratio=scale == "ratio")
    return figures


def _accuracy(rows: Rows, n_test: int, width: float = 7.6) -> Any:
    """One bar per method with its interval; the classifier before adapting comes first."""
    narrow = width <= NARROW
    figure, (axes,) = panels(1, 1, (width, 0.75 + 0.3 * len(rows)))
    for position, row in enumerate(rows):
        value, chosen = row["accuracy"], row["kind"] != "method" or row["chosen"]
        low, high = (value if row[end] is None else row[end] for end in ("low", "high"))
        alpha = 1.0 if chosen else 0.5
        (bar,) = axes.barh(position, value, height=0.62, color=_KINDS[row["kind"]], alpha=alpha, linewidth=0)
        tips(bar, [f"{row['method']}: {percent(value)}{_numbers(row)}"])
        axes.plot((low, high), (position, position), color=INK, linewidth=1.4)
        axes.annotate(
            f"{percent(value)}{'' if narrow else _numbers(row)}",
            (max(high, value), position),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [shown(row["method"], 18 if narrow else 30) for row in rows])
    axes.tick_params(axis="y", labelcolor=INK, labelsize=8.5)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=f"accuracy on {n_test:,} test images")
    percent_axis(axes.xaxis)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines[:].set_visible(False)
    return figure


def _numbers(row: Row) -> str:
    return "" if row["parameters"] is None else f"  ·  {row['parameters']:,} parameters"


def _confusion(rows: Rows, names: Sequence[str], columns: int = 2) -> Any:
    """Confusion before and after as shares of each true class; cells without images are left out."""
    side = NARROW if columns == 1 else max(3.2, min(4.6, 0.25 * len(names) + 1.6))
    figure, made = panels(2 // columns, columns, (side * columns, side * 2 / columns))
    place = {name: i for i, name in enumerate(names)}
    labels = [shown(name, 14) for name in names]
    step = -(-len(names) // 30)
    ticks, edge = range(0, len(names), step), len(names) - 0.5
    for axes, when in zip(made, ("before", "after"), strict=True):
        _cells(axes, rows, when, place)
        axes.set_xticks(ticks, labels[::step], rotation=90, fontsize=7)
        axes.set_yticks(ticks, labels[::step], fontsize=7)
        axes.set(xlim=(-0.5, edge), ylim=(edge, -0.5), aspect="equal")
        axes.set(title=when, xlabel="predicted", ylabel="true class")
        axes.grid(visible=False)
    return figure


def _cells(axes: Axes, rows: Rows, when: str, place: Mapping[str, int]) -> None:
    """All cells in one collection: 60 classes have thousands."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    total = {true: sum(row[when] for row in own) for (true,), own in grouped(rows, "true").items()}
    squares, colors, texts = [], [], []
    for row in rows:
        if not row[when]:
            continue
        x, y, share = place[row["predicted"]], place[row["true"]], row[when] / total[row["true"]]
        squares.append([(x + a, y + b) for a, b in ((-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46))])
        colors.append(to_rgba(ACCENT if x == y else SECOND, 0.08 + 0.92 * share))
        names = f"{shown(row['true'], 30)} → {shown(row['predicted'], 30)}"
        texts.append(f"{names}: {row[when]:,} images, {percent(share)} of the class")
    cells = PolyCollection(squares, facecolors=colors, linewidths=0, clip_on=False)
    tips(cells, texts)
    axes.add_collection(cells)
