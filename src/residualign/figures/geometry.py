"""The figures of `geometry`: profiles by layer, and the intrinsic dimension of every head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    NARROW,
    QUIET,
    SECOND,
    Row,
    Rows,
    legend,
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
    """Figures by name, of the tables `geometry_units` and `geometry_profiles`; none of what was not measured."""
    units, profiles = tables["geometry_units"], tables["geometry_profiles"]
    figures = {}
    if profiles:
        draw = partial(_profiles, units, profiles, title, threshold)
        figures["geometry_profiles"] = Figure(draw, partial(draw, columns=1))
    if any(row["kind"] == "head" for row in units):
        heads = [row for row in units if row["kind"] == "head"]
        figures["geometry_heads"] = head_map(heads, "two_nn", title, "intrinsic dimension N (TwoNN)")
    return figures


def _profiles(units: Rows, profiles: Rows, title: str, threshold: float, columns: int = 2) -> Any:
    """L, N, L / N and the first component's share by layer, with 95 % bands of the mean; each head is a dot."""
    size = (9.0, 6.2) if columns > 1 else (NARROW, 9.0)
    figure, made = panels(4 // columns, columns, size, title, sharex=True)
    for axes, (quantity, name, unit) in zip(made, _PANELS, strict=True):
        _panel(axes, units, [row for row in profiles if row["quantity"] == quantity], quantity)
        axes.set_title(name)
        axes.set_ylabel(unit.format(threshold=threshold))
        if quantity == "evr_first":
            percent_axis(axes.yaxis)
    for axes in made[-columns:]:
        axes.set_xlabel("layer")
    legend(figure, made[0], columns=2 * columns)
    return figure


def _panel(axes: Axes, units: Rows, profiles: Rows, quantity: str) -> None:
    for kind, label, color, marker in _KINDS:
        lines = sorted((row for row in profiles if row["kind"] == kind), key=lambda row: row["layer"])
        if not lines:
            continue
        layers = [row["layer"] for row in lines]
        if kind == "head":
            heads = [row for row in units if row["kind"] == "head" and number(row[quantity]) == number(row[quantity])]
            values = [number(row[quantity]) for row in heads]
            dots = axes.scatter(
                [row["layer"] for row in heads], values, s=10, color=QUIET, alpha=0.6, linewidths=0, label="one head"
            )
            tips(dots, [f"{row['label']}: {_figure(row, quantity)}" for row in heads])
        low, high = ([number(row[end]) for row in lines] for end in ("mean_low", "mean_high"))
        if any(value == value for value in low):
            axes.fill_between(
                layers, low, high, color=color, alpha=0.2, linewidth=0, label="95 % of the mean, from half samples"
            )
        means = [number(row["mean"]) for row in lines]
        axes.plot(layers, means, color=color, marker=marker, markersize=4, linewidth=1.5, label=label)
    axes.set_ylim(bottom=0)
    whole_ticks(axes)


def _figure(row: Row, quantity: str) -> str:
    value = number(row[quantity])
    return f"{100 * value:.1f} %" if quantity == "evr_first" else f"{value:.2f}"
