"""The figures of `geometry`: profiles by layer, and the intrinsic dimension of every head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from residualign.geometry import Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["geometry_figures", "heads_figure", "profiles_figure"]

_PANELS = (
    ("linear_dimension", "linear dimension L", "components for {threshold:g} of variance"),
    ("two_nn", "intrinsic dimension N", "TwoNN estimate"),
    ("ratio", "L / N", "linear over intrinsic"),
    ("evr_first", "first component", "share of variance"),
)
# colours that people with any colour vision tell apart (Okabe and Ito 2008), and that print
_KINDS = (("head", "heads, mean of a layer", "#0072B2", "o"), ("mlp", "MLP", "#D55E00", "s"))


def geometry_figures(geometry: Geometry, title: str) -> dict[str, Callable[[], Figure]]:
    """Figures by file name, drawn when called; none of what was not measured."""
    figures: dict[str, Callable[[], Figure]] = {}
    if geometry.profiles:
        figures["geometry_profiles"] = lambda: profiles_figure(geometry, title)
    if any(unit.kind == "head" for unit in geometry.units):
        figures["geometry_heads"] = lambda: heads_figure(geometry, title)
    return figures


def profiles_figure(geometry: Geometry, title: str) -> Figure:
    """L, N, L / N and the first component's share by layer, with 95 % bands of the mean; each head is a dot."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flatten()
    for panel, (quantity, name, unit) in zip(panels, _PANELS, strict=True):
        _panel(panel, geometry, quantity)
        panel.set_title(name, loc="left", fontsize=11)
        panel.set_ylabel(unit.format(threshold=geometry.variance_threshold), fontsize=9)
    for panel in panels[2:]:
        panel.set_xlabel("layer", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    if geometry.subsamples:
        handles.append(Patch(color="#bbbbbb", linewidth=0))
        labels.append("95 % of the mean, from half samples")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    return figure


def heads_figure(geometry: Geometry, title: str) -> Figure:
    """The intrinsic dimension of every measured head, as a map of layers and heads."""
    import numpy as np
    from matplotlib.figure import Figure

    heads = [(u.layer, u.head, u.two_nn) for u in geometry.units if u.layer is not None and u.head is not None]
    n_layers = 1 + max(layer for layer, _, _ in heads)
    n_heads = 1 + max(head for _, head, _ in heads)
    grid = np.full((n_layers, n_heads), math.nan)
    for layer, head, dimension in heads:
        grid[layer, head] = dimension
    known = grid[np.isfinite(grid)]
    middle = (known.min() + known.max()) / 2 if known.size else 0.0
    figure = Figure(figsize=(max(3.6, 1.9 + 0.5 * n_heads), max(2.4, 1.2 + 0.36 * n_layers)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis")
    for layer, head in np.ndindex(n_layers, n_heads):
        value = grid[layer, head]
        colour = "black" if value > middle else "white"
        if math.isfinite(value):
            axes.text(head, layer, f"{value:.1f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(range(n_heads))
    axes.set_yticks(range(n_layers))
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("intrinsic dimension N (TwoNN)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _panel(axes: Axes, geometry: Geometry, quantity: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for kind, label, colour, marker in _KINDS:
        profile = geometry.profile(quantity, kind)
        if profile is None:
            continue
        if kind == "head":
            heads = [(u.layer or 0, float(getattr(u, quantity))) for u in geometry.units if u.head is not None]
            axes.scatter(
                [layer for layer, _ in heads],
                [value for _, value in heads],
                s=9,
                color=colour,
                alpha=0.3,
                linewidths=0,
                label="one head",
            )
        low, high = zip(*profile.intervals, strict=True)
        axes.fill_between(profile.layers, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(profile.layers, profile.mean, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
