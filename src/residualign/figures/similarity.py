"""The figures of `similarity`: every head, layer by layer, and head with head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from residualign.figures._figure import Figure
from residualign.figures._style import SERIES, Rows, legend, number, panels, shown, tips, whole_ticks

__all__ = ["similarity_figures"]

_MARKS = "os^Dvp*X"
_TITLES = {"weighted": "weighted by variance", "unweighted": "unweighted"}


def similarity_figures(tables: Mapping[str, Rows]) -> dict[str, Figure]:
    """By name: `heads` and `layers` of what shares a space, `pairs` for each pair of sources it was asked for.

    Of the tables `units`, `layers` and `pairs`; any may be absent.
    """
    figures = {}
    heads = [row for row in tables.get("units", ()) if row["kind"] == "head" and row["weighted"] is not None]
    if heads:
        figures["heads"] = Figure(partial(_heads, heads))
    if layers := tables.get("layers"):
        figures["layers"] = Figure(partial(_layers, layers))
    pairs = _grouped(tables.get("pairs", ()))
    for i, ((first, second), rows) in enumerate(pairs.items()):
        figures["pairs" if len(pairs) == 1 else f"pairs-{i + 1}"] = Figure(partial(_pairs, first, second, rows))
    return figures


def _grouped(rows: Rows) -> dict[tuple[str, str], list[Any]]:
    """The rows of every comparison, by the names of both sources."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        groups.setdefault((row["first"], row["second"]), []).append(row)
    return groups


def _heads(rows: Rows) -> Any:
    """Layer by head, a column of panels for each other source; both weightings share one scale."""
    import numpy as np

    groups = _grouped(rows)
    shape = (1 + max(row["layer"] for row in rows), 1 + max(row["head"] for row in rows))
    cell = min(0.32, 4.2 / max(shape))
    width, height = max(1.5, cell * shape[1]), max(1.5, cell * shape[0])
    first = next(iter(groups))[0]
    title = f"Heads: components on {shown(first, 24)} compared with other images"
    size = (1.8 + (width + 0.35) * len(groups), 1.3 + 2 * (height + 0.6))
    figure, made = panels(2, len(groups), size, title)
    lowest = min((number(row[name]) for row in rows for name in _TITLES if number(row[name]) >= 0), default=0.0)
    image: Any = None
    for i, axes in enumerate(made):
        weighting = list(_TITLES)[i // len(groups)]
        (_, second), own = list(groups.items())[i % len(groups)]
        grid = np.full(shape, math.nan)
        for row in own:
            grid[row["layer"], row["head"]] = number(row[weighting])
        floor = max(0.0, math.floor(lowest * 10) / 10)
        image = axes.imshow(grid, vmin=floor, vmax=1, cmap="viridis", aspect="auto")
        axes.set_title(f"{shown(second, 24)}\n{_TITLES[weighting]}", fontsize=9)
        axes.grid(visible=False)
        for axis, n in ((axes.xaxis, shape[1]), (axes.yaxis, shape[0])):
            axis.set_ticks(range(0, n, math.ceil(n / 12)))
        if i >= len(groups):
            axes.set_xlabel("head")
        if i % len(groups) == 0:
            axes.set_ylabel("layer")
    figure.colorbar(image, ax=made, label="normalized spectral cosine", shrink=0.8, aspect=30)
    return figure


def _layers(rows: Rows) -> Any:
    """Means over a layer's heads, and MLPs, as lines: a panel for each kind and weighting."""
    groups = _grouped(rows)
    title = f"Principal components on {shown(next(iter(groups))[0], 24)} and on other images"
    figure, made = panels(2, 2, (9.0, 6.4), title, sharex=True, sharey=True)
    for i, axes in enumerate(made):
        kind, weighting = ("head", "mlp")[i // 2], list(_TITLES)[i % 2]
        for k, ((_, second), group) in enumerate(groups.items()):
            own = [row for row in group if row["kind"] == kind]
            (line,) = axes.plot(
                [row["layer"] for row in own],
                [number(row[weighting]) for row in own],
                label=shown(second, 24),
                color=SERIES[k % len(SERIES)],
                marker=_MARKS[k % len(_MARKS)],
                markersize=4,
                linewidth=1.5,
            )
            tips(line, [f"{second}, layer {row['layer']}: {number(row[weighting]):.3f}" for row in own])
        axes.set_title(f"{'heads, mean of a layer' if kind == 'head' else 'MLPs'}, {_TITLES[weighting]}")
        axes.set_ylim(0, 1.02)
        whole_ticks(axes)
        if i >= 2:
            axes.set_xlabel("layer")
        if i % 2 == 0:
            axes.set_ylabel("normalized spectral cosine")
    legend(figure, made[0], columns=3)
    return figure


def _pairs(first: str, second: str, rows: Rows) -> Any:
    """Head with head, ordered by layer; lines between layers."""
    import numpy as np

    names = {**_TITLES, "cka": "linear CKA, same images"}
    there = [name for name in names if any(row[name] is not None for row in rows)]
    heads = [list(dict.fromkeys(row[side] for row in rows)) for side in ("row", "column")]
    places = [{label: i for i, label in enumerate(side)} for side in heads]
    figure, made = panels(1, len(there), (1.0 + 4.3 * len(there), 4.7), "Heads with heads")
    for axes, name in zip(made, there, strict=True):
        grid = np.full((len(heads[0]), len(heads[1])), math.nan)
        for row in rows:
            grid[places[0][row["row"]], places[1][row["column"]]] = number(row[name])
        # between two different models CKA is small throughout, and a scale up to one would hide what there is
        high = max(0.1, math.ceil(np.nanmax(grid, initial=0.0) * 10) / 10)
        image = axes.imshow(grid, vmin=0, vmax=high, cmap="viridis", interpolation="nearest")
        axes.grid(visible=False)
        axes.set_title(names[name] if name == "cka" else f"normalized spectral cosine,\n{names[name]}")
        _layer_ticks(axes.yaxis, heads[0], axes.axhline)
        _layer_ticks(axes.xaxis, heads[1], axes.axvline)
        axes.set_xlabel(f"heads by layer, {shown(second, 24)}")
        axes.set_ylabel(f"heads by layer, {shown(first, 24)}")
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _layer_ticks(axis: Any, labels: Sequence[str], line: Callable[..., object]) -> None:
    layers = [label.partition(".")[0].removeprefix("L") for label in labels]
    starts = [i for i, layer in enumerate(layers) if i == 0 or layer != layers[i - 1]]
    ends = [*starts[1:], len(layers)]
    step = math.ceil(len(starts) / 16)
    axis.set_ticks(
        [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)][::step],
        [layers[start] for start in starts][::step],
    )
    for start in starts[1:]:
        line(start - 0.5, color="white", linewidth=0.4, alpha=0.7)
