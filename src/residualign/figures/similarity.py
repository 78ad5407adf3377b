"""The figures of `similarity`: every head, layer by layer, and head with head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from residualign.figures._figure import Figure
from residualign.figures._style import (
    SERIES,
    Rows,
    column,
    grouped,
    legend,
    line,
    matrix,
    number,
    panels,
    shown,
    whole_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["similarity_figures"]

_MARKS = "os^Dvp*X"
_TITLES = {"weighted": "weighted by variance", "unweighted": "unweighted"}
_KINDS = {"head": "heads, mean of a layer", "mlp": "MLPs"}


def similarity_figures(tables: Mapping[str, Rows]) -> dict[str, Figure]:
    """Figures by name: `heads` and `layers` of sources that share a space, `pairs` for each pair of sources.

    From the tables `units`, `layers` and `pairs`; any may be absent.
    """
    figures = {}
    heads = [row for row in tables.get("units", ()) if row["kind"] == "head" and row["weighted"] is not None]
    if heads:
        figures["heads"] = Figure(partial(_heads, heads))
    if layers := tables.get("layers"):
        figures["layers"] = Figure(partial(_layers, layers))
    pairs = grouped(tables.get("pairs", ()), "first", "second")
    for i, ((first, second), rows) in enumerate(pairs.items()):
        figures["pairs" if len(pairs) == 1 else f"pairs-{i + 1}"] = Figure(partial(_pairs, first, second, rows))
    return figures


def _heads(rows: Rows) -> Any:
    """Layer by head, a column of panels for each other source; both weightings share one scale."""
    groups = grouped(rows, "first", "second")
    shape = (1 + max(row["layer"] for row in rows), 1 + max(row["head"] for row in rows))
    cell = min(0.32, 4.2 / max(shape))
    width, height = max(1.5, cell * shape[1]), max(1.5, cell * shape[0])
    size = (1.8 + (width + 0.35) * len(groups), 1.3 + 2 * (height + 0.6))
    title = f"Heads: components on {shown(rows[0]['first'], 24)} compared with other images"
    figure, made = panels(2, len(groups), size, title)
    lowest = min((value for name in _TITLES for value in column(rows, name) if value >= 0), default=0.0)
    how: dict[str, Any] = {"vmin": math.floor(lowest * 10) / 10, "vmax": 1, "cmap": "viridis", "aspect": "auto"}
    for axes, (weighting, ((_, second), own)) in zip(made, product(_TITLES, groups.items()), strict=True):
        cells = {(row["layer"], row["head"]): number(row[weighting]) for row in own}
        image = matrix(axes, cells, shape, **how)
        axes.set_title(f"{shown(second, 24)}\n{_TITLES[weighting]}", fontsize=9)
        for axis, n in ((axes.xaxis, shape[1]), (axes.yaxis, shape[0])):
            axis.set_ticks(range(0, n, math.ceil(n / 12)))
    _outer_labels(made, len(groups), "head", "layer")
    figure.colorbar(image, ax=made, label="normalized spectral cosine", shrink=0.8, aspect=30)
    return figure


def _layers(rows: Rows) -> Any:
    """Means over a layer's heads, and MLPs, as lines: a panel for each kind and weighting."""
    title = f"Principal components on {shown(rows[0]['first'], 24)} and on other images"
    figure, made = panels(2, 2, (9.0, 6.4), title, sharex=True, sharey=True)
    groups = grouped(rows, "first", "second")
    for axes, (kind, weighting) in zip(made, product(_KINDS, _TITLES), strict=True):
        for k, ((_, second), group) in enumerate(groups.items()):
            own = [row for row in group if row["kind"] == kind]
            texts = [f"{second}, layer {row['layer']}: {number(row[weighting]):.3f}" for row in own]
            style = {"color": SERIES[k % len(SERIES)], "marker": _MARKS[k % len(_MARKS)]}
            line(axes, own, "layer", weighting, texts, label=shown(second, 24), **style)
        axes.set(title=f"{_KINDS[kind]}, {_TITLES[weighting]}", ylim=(0, 1.02))
        whole_ticks(axes)
    _outer_labels(made, 2, "layer", "normalized spectral cosine")
    legend(figure, made[0])
    return figure


def _outer_labels(made: Sequence[Axes], columns: int, x: str, y: str) -> None:
    """Label x below the last row of panels, and y left of the first column."""
    for axes in made[-columns:]:
        axes.set_xlabel(x)
    for axes in made[::columns]:
        axes.set_ylabel(y)


def _pairs(first: str, second: str, rows: Rows) -> Any:
    """Head with head, ordered by layer; lines between layers."""
    titles = {name: f"normalized spectral cosine,\n{title}" for name, title in _TITLES.items()}
    titles["cka"] = "linear CKA, same images"
    there = [name for name in titles if any(row[name] is not None for row in rows)]
    heads = (dict.fromkeys(row[side] for row in rows) for side in ("row", "column"))
    down, across = ({label: i for i, label in enumerate(labels)} for labels in heads)
    figure, made = panels(1, len(there), (1.0 + 4.3 * len(there), 4.7), "Heads with heads")
    for axes, name in zip(made, there, strict=True):
        cells = {(down[row["row"]], across[row["column"]]): number(row[name]) for row in rows}
        # CKA between two different models is small throughout: a scale up to 1 would hide its differences
        high = max(0.1, math.ceil(max((value for value in cells.values() if value == value), default=0.0) * 10) / 10)
        shape = (len(down), len(across))
        image = matrix(axes, cells, shape, vmin=0, vmax=high, cmap="viridis", interpolation="nearest")
        _layer_ticks(axes.yaxis, down, axes.axhline)
        _layer_ticks(axes.xaxis, across, axes.axvline)
        axes.set(title=titles[name], xlabel=f"heads by layer, {shown(second, 24)}")
        axes.set_ylabel(f"heads by layer, {shown(first, 24)}")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _layer_ticks(axis: Axis, labels: Iterable[str], line: Callable[..., object]) -> None:
    layers = [label.partition(".")[0].removeprefix("L") for label in labels]
    starts = {layer: layers.index(layer) for layer in layers}
    middles = [start + (layers.count(layer) - 1) / 2 for layer, start in starts.items()]
    step = math.ceil(len(starts) / 16)
    axis.set_ticks(middles[::step], list(starts)[::step])
    for start in list(starts.values())[1:]:
        line(start - 0.5, color="white", linewidth=0.4, alpha=0.7)
