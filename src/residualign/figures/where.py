"""A sheet of pictures with heat maps over them: red speaks for the direction, blue against it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from residualign.commands.where import WhereOutcome

__all__ = ["where_figure"]

_CELL = 2.1
# above this share of the scale a patch hides the picture below it as far as it ever does
_FULL, _MOST = 0.6, 0.85
_WASHED = 0.3
_QUANTILE = 0.99


def where_figure(outcome: WhereOutcome, part: slice = slice(None)) -> Figure:
    """Rows of images: the picture as the model saw it, then a map a target, each target with one scale for all images.

    The grey picture shows through where a part is small. Below each map is what its total is the sum of.
    """
    location = outcome.location
    positions = range(*part.indices(len(outcome.images)))
    n_rows, n_columns = len(positions), 1 + len(location.targets)
    height, width = outcome.pictures[0].shape[:2]
    signed = location.kind == "direction"
    row_height = _CELL * height / width + (0.62 if signed else 0.45)
    size = (_CELL * n_columns + 0.3 * (n_columns - 1), row_height * n_rows + 1.35)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    colours = "RdBu_r" if signed else "YlOrRd"
    for k, target in enumerate(location.targets):
        # one scale for all sheets of a run; a few patches may lie above it, so that they do not hide all others
        values = location.maps[:, k].abs().double().cpu().numpy()
        largest = float(np.quantile(values, _QUANTILE)) or float(values.max()) or 1.0
        beyond = bool(values.max() > largest)
        norm = Normalize(-largest if signed else 0.0, largest)
        for row, i in enumerate(positions):
            cell = axes[row, k + 1]
            values = location.maps[i, k].double().cpu().numpy()
            grey = _WASHED + (1 - _WASHED) * outcome.pictures[i].mean(axis=-1)
            cell.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
            strength = _MOST * np.clip(np.abs(values) / (largest * _FULL), 0, 1)
            cell.imshow(
                values, cmap=colours, norm=norm, alpha=strength, extent=(0, width, height, 0), interpolation="nearest"
            )
            cell.set_xlabel(_sum_of(outcome, i, k), fontsize=6.5)
        axes[0, k + 1].set_title(target.label, fontsize=10)
        bar = figure.colorbar(
            ScalarMappable(norm, colours),
            ax=list(axes[:, k + 1]),
            location="bottom",
            shrink=0.9,
            aspect=18,
            pad=0.02,
            extend=("both" if signed else "max") if beyond else "neither",
        )
        bar.ax.tick_params(labelsize=7)
        bar.set_label("length of part" if not signed else "part along it", fontsize=7.5)
    for row, i in enumerate(positions):
        axes[row, 0].imshow(outcome.pictures[i], extent=(0, width, height, 0))
        axes[row, 0].set_xlabel(_caption(outcome, i), fontsize=7)
    axes[0, 0].set_title("as the model saw it", fontsize=9)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        cell.spines[:].set_visible(False)
    unit = "logits" if outcome.classes else "embedding units"
    # names and texts may hold dollar signs, which matplotlib would take for mathematics
    name = _short(os.path.basename(os.path.normpath(outcome.model)))
    figure.suptitle(_plain(f"{name}: {outcome.along}, in {unit}"), fontsize=9.5)
    return figure


def _sum_of(outcome: WhereOutcome, image: int, target: int) -> str:
    location = outcome.location
    if location.kind == "norm":
        return f"whole head: {float(location.total[image, target]):.3g}"
    patches = float(location.maps[image, target].sum())
    prefix = float(location.prefix[image, target].sum())
    constant, total = float(location.constant[image, target]), float(location.total[image, target])
    names = {0: "", 1: f", class token {prefix:+.2g}"}
    before = names.get(location.prefix.shape[2], f", other tokens {prefix:+.2g}")
    return f"patches {patches:+.2g}{before}\nconstant {constant:+.2g}: in all {total:+.2g}"


def _caption(outcome: WhereOutcome, image: int) -> str:
    name = os.path.basename(outcome.images[image])
    if not outcome.classes:
        return _plain(_short(name))
    first, second = outcome.classes[image]
    return _plain(f"{_short(name)}\n{_short(first)} (not {_short(second)})")


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else name[: most // 2 - 1] + "…" + name[-most // 2 :]


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
