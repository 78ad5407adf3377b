"""The figures of `similarity`: every head, layer by layer, and head with head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from residualign.commands.similarity import Compared, SimilarityOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from residualign.units import Unit

__all__ = ["similarity_figures"]

Grid = NDArray[np.float64]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31")
_MARKERS = "os^Dvp*X"
_TITLE = {"weighted": "weighted by variance", "unweighted": "unweighted"}
_SMALL = 8


def similarity_figures(outcome: SimilarityOutcome) -> dict[str, Callable[[], Figure]]:
    """By name: `heads` and `layers` of what shares a space, `pairs` for each pair of sources it was asked for."""
    figures: dict[str, Callable[[], Figure]] = {}
    alike = [compared for compared in outcome.compared if compared.spectral is not None]
    if alike:
        figures["heads"] = partial(_heads, outcome.first.name, alike)
        figures["layers"] = partial(_layers, outcome.first.name, alike)
    with_pairs = [c for c in outcome.compared if c.pairs is not None or c.pairs_cka is not None]
    for i, compared in enumerate(with_pairs):
        figures["pairs" if len(with_pairs) == 1 else f"pairs-{i + 1}"] = partial(_pairs, compared)
    return figures


def _heads(first: str, compared: Sequence[Compared]) -> Figure:
    """Layer by head, a column of panels for each other source; both weightings share one scale."""
    grids = [[_grid(one, weighting) for one in compared] for weighting in _TITLE]
    n_layers, n_heads = grids[0][0].shape
    cell = min(0.32, 4.2 / max(n_layers, n_heads))
    width, height = max(1.5, cell * n_heads), max(1.5, cell * n_layers)
    figure = Figure(figsize=(1.6 + (width + 0.35) * len(compared), 1.1 + 2 * (height + 0.6)), layout="constrained")
    axes = figure.subplots(2, len(compared), squeeze=False)
    low = _floor(np.nanmin(grids)) if np.isfinite(grids).any() else 0.0
    image = None
    for row, weighting in enumerate(_TITLE):
        for column, one in enumerate(compared):
            panel: Axes = axes[row, column]
            image = panel.imshow(grids[row][column], vmin=low, vmax=1, cmap="viridis", aspect="auto")
            panel.set_title(f"{_cut(one.second.name)}\n{_TITLE[weighting]}", fontsize=9)
            _whole_ticks(panel, n_heads, n_layers)
            if row == 1:
                panel.set_xlabel("head")
            if column == 0:
                panel.set_ylabel("layer")
    assert image is not None
    figure.colorbar(image, ax=axes, label="normalised spectral cosine", shrink=0.8, aspect=30)
    figure.suptitle(f"Heads: components on {_cut(first)}\nbeside those on other images", fontsize=11)
    return figure


def _layers(first: str, compared: Sequence[Compared]) -> Figure:
    """Means over a layer's heads, and MLPs, as lines: a panel for each kind and weighting."""
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, (kind, what) in enumerate((("head", "heads, mean of a layer"), ("mlp", "MLPs"))):
        for column, weighting in enumerate(_TITLE):
            panel: Axes = axes[row, column]
            for i, one in enumerate(compared):
                assert one.spectral is not None
                lines = one.spectral.layers("head" if kind == "head" else "mlp")
                at, values = [line.layer for line in lines], [getattr(line.cosine, weighting) for line in lines]
                colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
                name = _cut(one.second.name)
                panel.plot(at, values, label=name, markersize=4, linewidth=1.5, color=colour, marker=marker)
            panel.set_title(f"{what}, {_TITLE[weighting]}", fontsize=10)
            panel.grid(alpha=0.3)
            panel.set_ylim(0, 1.02)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if row == 1:
                panel.set_xlabel("layer")
            if column == 0:
                panel.set_ylabel("normalised spectral cosine")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(compared)), frameon=False)
    figure.suptitle(f"Principal components on {_cut(first)} and on other images", fontsize=11)
    return figure


def _pairs(compared: Compared) -> Figure:
    """Head with head, ordered by layer; lines between layers."""
    panels: list[tuple[str, Any]] = []
    if compared.pairs is not None:
        panels += [(_TITLE[name], getattr(compared.pairs, name)) for name in _TITLE]
    if compared.pairs_cka is not None:
        panels.append(("linear CKA, same images", compared.pairs_cka.cka))
    either = compared.pairs or compared.pairs_cka
    assert either is not None
    figure = Figure(figsize=(1.0 + 4.3 * len(panels), 4.6), layout="constrained")
    for panel, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        # of two unlike models CKA is small throughout, and a scale up to one would hide what there is
        high = max(0.1, math.ceil(np.nanmax(values.cpu().numpy(), initial=0.0) * 10) / 10)
        image = panel.imshow(values.cpu().numpy(), vmin=0, vmax=high, cmap="viridis", interpolation="nearest")
        panel.set_title(title, fontsize=10)
        _layer_ticks(panel.xaxis, either.columns, panel.axvline)
        _layer_ticks(panel.yaxis, either.rows, panel.axhline)
        panel.set_xlabel(f"heads by layer, {_cut(compared.second.name)}")
        panel.set_ylabel(f"heads by layer, {_cut(compared.first.name)}")
        figure.colorbar(image, ax=panel, shrink=0.8)
    figure.suptitle(
        "Heads with heads: normalised spectral cosine" if compared.pairs else "Heads with heads", fontsize=11
    )
    return figure


def _layer_ticks(axis: Any, units: Sequence[Unit], line: Callable[..., object]) -> None:
    layers = [unit.layer for unit in units]
    starts = [i for i, layer in enumerate(layers) if i == 0 or layer != layers[i - 1]]
    ends = [*starts[1:], len(layers)]
    step = math.ceil(len(starts) / 16)
    axis.set_ticks(
        [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)][::step],
        [str(layers[start]) for start in starts][::step],
        fontsize=_SMALL,
    )
    axis.set_tick_params(length=0)
    for start in starts[1:]:
        line(start - 0.5, color="white", linewidth=0.4, alpha=0.7)


def _grid(compared: Compared, weighting: str) -> Grid:
    assert compared.spectral is not None
    heads = [unit for unit in compared.spectral.units if unit.kind == "head"]
    n_layers = 1 + max(unit.layer for unit in heads if unit.layer is not None)
    values = [getattr(unit.cosine, weighting) for unit in heads]
    return np.array(values, dtype=np.float64).reshape(n_layers, -1)


def _whole_ticks(panel: Axes, n_columns: int, n_rows: int) -> None:
    panel.set_xticks(range(0, n_columns, math.ceil(n_columns / 12)))
    panel.set_yticks(range(0, n_rows, math.ceil(n_rows / 12)))
    panel.tick_params(labelsize=_SMALL)


def _floor(value: float) -> float:
    """The tenth below, where the colour scale begins."""
    return max(0.0, math.floor(value * 10) / 10)


def _cut(name: str, longest: int = 24) -> str:
    # a $ would begin a formula
    name = name if len(name) <= longest else f"…{name[1 - longest :]}"
    return name.replace("$", r"\$")
