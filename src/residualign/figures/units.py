"""Figures of all heads at once: one number of each, and how their variance adds up over components."""

from __future__ import annotations

from functools import partial
from typing import Any

from residualign.figures._figure import Figure
from residualign.figures._style import Rows, level, panels, percent_axis, tips, unit_map

__all__ = ["cumulative_variance", "head_map"]


def head_map(heads: Rows, name: str, title: str, label: str) -> Figure:
    """One number of every head, layers across. heads: one row per head with `layer`, `head` and what `name` says."""
    return Figure(partial(_head_map, heads, name, title, label))


def _head_map(heads: Rows, name: str, title: str, label: str) -> Any:
    n_layers, n_heads = (1 + max(row[axis] for row in heads) for axis in ("layer", "head"))
    figure, (axes,) = panels(1, 1, (max(4.0, 1.9 + 0.46 * n_layers), max(2.4, 1.2 + 0.32 * n_heads)), title)
    figure.colorbar(unit_map(axes, heads, name), ax=axes).set_label(label)
    return figure


def cumulative_variance(layers: Rows, title: str) -> Figure:
    """The share of the variance that the first components of a head explain, the mean of the heads of each layer.

    layers: one row per layer with `layer` and `shares`, in [0, 1], of one, two, ... components.
    """
    return Figure(partial(_cumulative_variance, layers, title))


def _cumulative_variance(layers: Rows, title: str) -> Any:
    from matplotlib import colormaps
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, (axes,) = panels(1, 1, (6.0, 3.6), title)
    for i, row in enumerate(layers):
        color = colormaps["viridis"](0.9 * i / max(1, len(layers) - 1))
        counts = range(1, 1 + len(row["shares"]))
        line = axes.plot(counts, row["shares"], color=color, linewidth=1.3, label=f"layer {row['layer']}")
        tips(line[0], [f"layer {row['layer']}"])
    level(axes, 0.9, "90 %", "--")
    axes.set_ylim(0, 1.02)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("first components of a head (logarithmic)")
    axes.set_ylabel("share of its variance")
    percent_axis(axes.yaxis)
    figure.legend(loc="outside right center", ncols=1 + len(layers) // 14)
    return figure
