"""Figures of all heads at once: one number of each, and how their variance adds up over components."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from residualign._messages import minus
from residualign.figures._figure import Figure
from residualign.figures._style import Rows, level, log_ticks, matrix, number, panels, percent_axis, tips

__all__ = ["cumulative_variance", "head_map"]


def head_map(
    heads: Rows, name: str, title: str = "", label: str = "", *, heading: str = "", ratio: bool = False
) -> Figure:
    """One number of every head, layers across and heads down; a ratio in logarithms around 1.

    heads: one row per head with `layer`, `head` and the column `name`. title: of the figure; label: of the color scale;
    heading: of the panel.
    """
    return Figure(partial(_head_map, heads, name, title, label, heading, ratio))


def _head_map(heads: Rows, name: str, title: str, label: str, heading: str, ratio: bool) -> Any:
    from matplotlib.colors import LogNorm

    values = {(int(row["head"]), int(row["layer"])): number(row[name]) for row in heads}
    n_heads, n_layers = (1 + max(places) for places in zip(*values, strict=True))
    cells = {place: value for place, value in values.items() if math.isfinite(value) and (value > 0 or not ratio)}
    size = (max(4.0, 1.9 + 0.46 * n_layers), max(2.4, 1.2 + 0.32 * n_heads))
    figure, (axes,) = panels(1, 1, size, title)
    how: dict[str, Any] = {"cmap": "PuOr", "norm": LogNorm(1 / 4, 4)} if ratio else {"cmap": "Blues"}
    image = matrix(axes, cells, (n_heads, n_layers), aspect="auto", interpolation="nearest", **how)
    for (head, layer), value in cells.items():
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
        text = minus(f"{value:.2f}" if ratio else f"{value:.1f}")
        axes.text(layer, head, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.spines[:].set_visible(False)
    axes.set(xticks=range(n_layers), yticks=range(n_heads), xlabel="layer", ylabel="head", title=heading)
    bar = figure.colorbar(image, ax=axes, extend="both" if ratio else "neither", label=label)
    if ratio:
        bar.set_ticks([0.25, 0.5, 1, 2, 4], labels=["¼", "½", "1", "2", "4"])
        bar.ax.minorticks_off()
    return figure


def cumulative_variance(layers: Rows, title: str) -> Figure:
    """The share of the variance that the first components of a head explain, the mean of the heads of each layer.

    layers: one row per layer with `layer` and `shares`, in [0, 1], of one, two, ... components.
    """
    return Figure(partial(_cumulative_variance, layers, title))


def _cumulative_variance(layers: Rows, title: str) -> Any:
    from matplotlib import colormaps

    figure, (axes,) = panels(1, 1, (6.0, 3.6), title)
    for i, row in enumerate(layers):
        color = colormaps["viridis"](0.9 * i / max(1, len(layers) - 1))
        counts = range(1, 1 + len(row["shares"]))
        (line,) = axes.plot(counts, row["shares"], color=color, linewidth=1.3, label=f"layer {row['layer']}")
        tips(line, [f"layer {row['layer']}"])
    level(axes, 0.9, "90 %", "--")
    axes.set(xscale="log", ylim=(0, 1.02))
    axes.set(xlabel="first components of a head (logarithmic)", ylabel="share of its variance")
    log_ticks(axes.xaxis)
    percent_axis(axes.yaxis)
    figure.legend(loc="outside right center", ncols=1 + len(layers) // 14)
    return figure
