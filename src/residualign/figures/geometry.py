"""The figures of `geometry`: profiles by layer, and the intrinsic dimension of every head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from residualign._messages import percent
from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    NARROW,
    QUIET,
    SECOND,
    Rows,
    column,
    legend,
    line,
    number,
    panels,
    percent_axis,
    tips,
    whole_ticks,
)
from residualign.figures.units import head_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["geometry_figures"]

_PANELS = (
    ("linear_dimension", "Linear dimension L", "components for {threshold:g} of variance"),
    ("two_nn", "Intrinsic dimension N", "TwoNN estimate"),
    ("ratio", "L / N", "linear over intrinsic"),
    ("evr_first", "First component", "share of variance"),
)
_KINDS = (("head", "heads, mean of a layer", ACCENT, "o"), ("mlp", "MLP", SECOND, "s"))


def geometry_figures(tables: Mapping[str, Rows], title: str, threshold: float = 0.99) -> dict[str, Figure]:
    """Figures by name, from the tables `geometry_units` and `geometry_profiles`, of what was measured."""
    units, profiles = tables["geometry_units"], tables["geometry_profiles"]
    heads = [row for row in units if row["kind"] == "head"]
    figures = {}
    if profiles:
        draw = partial(_profiles, heads, profiles, title, threshold)
        figures["geometry_profiles"] = Figure(draw, partial(draw, columns=1))
    if heads:
        figures["geometry_heads"] = head_map(heads, "two_nn", title, "intrinsic dimension N (TwoNN)")
    return figures


def _profiles(heads: Rows, profiles: Rows, title: str, threshold: float, columns: int = 2) -> Any:
    """L, N, L / N and the first component's share by layer, with 95 % bands of the mean; each head is a dot."""
    size = (9.0, 6.2) if columns > 1 else (NARROW, 9.0)
    figure, made = panels(4 // columns, columns, size, title, sharex=True)
    for axes, (quantity, name, unit) in zip(made, _PANELS, strict=True):
        _panel(axes, heads, [row for row in profiles if row["quantity"] == quantity], quantity)
        axes.set(title=name, ylabel=unit.format(threshold=threshold))
        if quantity == "evr_first":
            percent_axis(axes.yaxis)
    for axes in made[-columns:]:
        axes.set_xlabel("layer")
    legend(figure, made[0], columns=2 * columns)
    return figure


def _panel(axes: Axes, heads: Rows, profiles: Rows, quantity: str) -> None:
    dots = [row for row in heads if math.isfinite(number(row[quantity]))]
    for kind, label, color, marker in _KINDS:
        rows = sorted((row for row in profiles if row["kind"] == kind), key=lambda row: row["layer"])
        if not rows:
            continue
        if kind == "head":
            layers, values = column(dots, "layer"), column(dots, quantity)
            made = axes.scatter(layers, values, s=10, color=QUIET, alpha=0.6, linewidths=0, label="one head")
            form = percent if quantity == "evr_first" else "{:.2f}".format
            tips(made, [f"{row['label']}: {form(row[quantity])}" for row in dots])
        low, high = column(rows, "mean_low"), column(rows, "mean_high")
        if any(map(math.isfinite, low)):
            band = "95 % interval of the mean (half-samples)"
            axes.fill_between(column(rows, "layer"), low, high, color=color, alpha=0.2, linewidth=0, label=band)
        line(axes, rows, "layer", "mean", color=color, marker=marker, label=label)
    axes.set_ylim(bottom=0)
    whole_ticks(axes)
