"""The figures of a report that no analysis has: accuracy of every method, confusion, and a map of heads per measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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
    number,
    panels,
    percent_axis,
    shown,
    tips,
    unit_map,
)

__all__ = ["MOST_CLASSES", "map_figures", "report_figures"]

MOST_CLASSES = 60
"""Of more classes a confusion matrix shows nothing that can be read."""

_NARROW_CLASSES = 20

_KINDS = {"before": QUIET, "method": ACCENT, "probe": SECOND}


def report_figures(tables: Mapping[str, Rows], n_test: int, class_names: Sequence[str]) -> dict[str, Figure]:
    """`accuracy` and `confusion` by name, of the tables `methods` and `confusion`; those without data are left out.

    n_test: images behind the accuracies. class_names: in the order of rows and columns.
    """
    figures = {}
    methods = [row for row in tables["methods"] if row["accuracy"] is not None]
    if methods:
        draw = partial(_accuracy, methods, n_test)
        figures["accuracy"] = Figure(draw, partial(draw, width=NARROW))
    if tables["confusion"] and 2 <= len(class_names) <= MOST_CLASSES:
        draw = partial(_confusion, tables["confusion"], class_names)
        # with more classes its letters would be too small there too
        figures["confusion"] = Figure(draw, partial(draw, columns=1) if len(class_names) <= _NARROW_CLASSES else None)
    return figures


def map_figures(units: Rows, measures: Sequence[tuple[str, str, str]]) -> dict[str, Figure]:
    """`map_NAME` for every measure (name, title, scale) that a head has; scale is "share", "ratio" or "number"."""
    heads = [row for row in units if row["kind"] == "head"]
    return {
        f"map_{name}": Figure(partial(_map, heads, name, title, scale))
        for name, title, scale in measures
        if any(row[name] is not None for row in heads)
    }


def _accuracy(rows: Rows, n_test: int, width: float = 7.6) -> Any:
    """One bar per method with its interval; the classifier before adapting comes first."""
    narrow = width <= NARROW
    figure, (axes,) = panels(1, 1, (width, 0.75 + 0.3 * len(rows)))
    for position, row in enumerate(rows):
        value, chosen = row["accuracy"], row["kind"] != "method" or row["chosen"]
        low, high = (value if row[end] is None else row[end] for end in ("low", "high"))
        (bar,) = axes.barh(
            position, value, height=0.62, color=_KINDS[row["kind"]], alpha=1.0 if chosen else 0.5, linewidth=0
        )
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
    axes.set_xlim(0, 1)
    percent_axis(axes.xaxis)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"accuracy on {n_test:,} test images")
    return figure


def _numbers(row: Row) -> str:
    return "" if row["parameters"] is None else f"  ·  {row['parameters']:,} parameters"


def _confusion(rows: Rows, names: Sequence[str], columns: int = 2) -> Any:
    """Confusion before and after as shares of each true class; cells without images are left out."""
    side = NARROW if columns == 1 else max(3.2, min(4.6, 0.25 * len(names) + 1.6))
    figure, made = panels(2 // columns, columns, (side * columns, side * 2 / columns))
    place = {name: i for i, name in enumerate(names)}
    for axes, when in zip(made, ("before", "after"), strict=True):
        total = dict.fromkeys(names, 0)
        for row in rows:
            total[row["true"]] += row[when]
        cells = [row for row in rows if row[when]]
        _cells(axes, cells, when, [row[when] / total[row["true"]] for row in cells], place)
        labels = [shown(name, 14) for name in names]
        step = -(-len(names) // 30)
        axes.set_xticks(range(0, len(names), step), labels[::step], rotation=90, fontsize=7)
        axes.set_yticks(range(0, len(names), step), labels[::step], fontsize=7)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_title(when)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true class")
    return figure


def _cells(axes: Any, rows: Rows, when: str, shares: Sequence[float], place: Mapping[str, int]) -> None:
    """All in one collection: a page with 60 classes has thousands."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    squares, colors, texts = [], [], []
    for row, share in zip(rows, shares, strict=True):
        x, y = place[row["predicted"]], place[row["true"]]
        squares.append([(x + a, y + b) for a, b in ((-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46))])
        colors.append(to_rgba(ACCENT if x == y else SECOND, 0.08 + 0.92 * share))
        names = f"{shown(row['true'], 30)} → {shown(row['predicted'], 30)}"
        texts.append(f"{names}: {row[when]:,} images, {percent(share)} of the class")
    cells = PolyCollection(squares, facecolors=colors, linewidths=0, clip_on=False)
    tips(cells, texts)
    axes.add_collection(cells)


def _map(heads: Rows, name: str, title: str, scale: str) -> Any:
    """One measure of every head."""
    n_layers, n_heads = (1 + max(row[place] for row in heads) for place in ("layer", "head"))
    figure, (axes,) = panels(1, 1, (max(3.6, 1.6 + 0.44 * n_layers), max(2.4, 1.2 + 0.32 * n_heads)))
    rows = [{**row, name: 100 * number(row[name])} for row in heads] if scale == "share" else heads
    form = {"share": ".1f", "ratio": ".2f", "number": ".1f"}[scale]
    image = unit_map(axes, rows, name, ratio=scale == "ratio", form=form)
    axes.set_title(f"{title}, %" if scale == "share" else title)
    bar = figure.colorbar(image, ax=axes, extend="both" if scale == "ratio" else "neither")
    if scale == "ratio":
        bar.set_ticks([0.25, 0.5, 1, 2, 4], labels=["¼", "½", "1", "2", "4"])
        bar.ax.minorticks_off()
    return figure
