"""The figures of `where`: pictures under heat maps, red along a direction and blue against it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from residualign._messages import minus
from residualign.figures._figure import Figure
from residualign.figures._style import Rows, panels, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["where_figures"]

_ROWS = 8
_CELL = 2.1
# a patch above this share of the scale has the greatest opacity
_FULL, _MOST = 0.6, 0.85
_WASHED = 0.3
_QUANTILE = 0.99


def where_figures(
    rows: Rows, title: str, pictures: Sequence[NDArray[np.float32]], maps: NDArray[np.float64], *, signed: bool
) -> dict[str, Figure]:
    """Sheets by name, eight images each.

    rows: the table, one row per image and target, image by image. pictures: (height, width, 3) in [0, 1], as the model
    saw them. maps: (image, target, row, column). signed: whether maps are parts along a direction, or lengths of parts.
    """
    starts = range(0, len(pictures), _ROWS)
    return {
        "where" if len(starts) == 1 else f"where_{i + 1}": Figure(
            partial(_sheet, rows, title, pictures, maps, signed, range(start, min(start + _ROWS, len(pictures))))
        )
        for i, start in enumerate(starts)
    }


def _sheet(
    rows: Rows,
    title: str,
    pictures: Sequence[NDArray[np.float32]],
    maps: NDArray[np.float64],
    signed: bool,
    positions: range,
) -> Any:
    """A row per image: the picture as the model saw it, then a map per target; one scale per target for all sheets.

    The picture shows through in gray where a part is small. Below each map is what its total is the sum of.
    """
    n_targets = maps.shape[1]
    height, width = pictures[0].shape[:2]
    row_height = _CELL * height / width + (0.62 if signed else 0.45)
    size = (_CELL * (1 + n_targets) + 0.3 * n_targets, row_height * len(positions) + 1.35)
    figure, axes = panels(len(positions), 1 + n_targets, size, title)
    for cell in axes:
        cell.set(xticks=[], yticks=[])
        cell.grid(visible=False)
        cell.spines[:].set_visible(False)
    first, *columns = (axes[k :: 1 + n_targets] for k in range(1 + n_targets))
    first[0].set_title("as the model saw it", loc="center", fontsize=9)
    for cell, i in zip(first, positions, strict=True):
        cell.imshow(pictures[i], extent=(0, width, height, 0))
        cell.set_xlabel(_caption(rows[i * n_targets]), fontsize=7)
    for k, column in enumerate(columns):
        column[0].set_title(shown(rows[k]["target"], 24), loc="center", fontsize=10)
        _maps(figure, column, [pictures[i] for i in positions], maps[positions, k], maps[:, k], signed)
        for cell, i in zip(column, positions, strict=True):
            cell.set_xlabel(_sum_of(rows[i * n_targets + k], signed), fontsize=6.5)
    return figure


def _maps(figure: Any, column: Sequence[Any], pictures: Sequence[Any], maps: Any, whole: Any, signed: bool) -> None:
    """The maps of one target over the pictures, and their scale. whole: its maps of all images."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # a few extreme patches may exceed the scale: otherwise all others would be pale
    sizes = np.abs(whole)
    largest = float(np.quantile(sizes, _QUANTILE)) or float(sizes.max()) or 1.0
    beyond = bool(sizes.max() > largest)
    norm, colors = Normalize(-largest if signed else 0.0, largest), "RdBu_r" if signed else "YlOrRd"
    for cell, picture, values in zip(column, pictures, maps, strict=True):
        extent = (0, picture.shape[1], picture.shape[0], 0)
        gray = _WASHED + (1 - _WASHED) * picture.mean(axis=-1)
        cell.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=extent)
        strength = _MOST * np.clip(np.abs(values) / (largest * _FULL), 0, 1)
        cell.imshow(values, cmap=colors, norm=norm, alpha=strength, extent=extent, interpolation="nearest")
    extend = ("both" if signed else "max") if beyond else "neither"
    where = {"location": "bottom", "shrink": 0.9, "aspect": 18, "pad": 0.02}
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=list(column), extend=extend, **where)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("part along it" if signed else "length of part", fontsize=7.5)


def _sum_of(row: Any, signed: bool) -> str:
    if not signed:
        return minus(f"whole head: {row['total']:.3g}")
    tokens = "" if not row["prefix"] else f", class and other tokens {row['prefix']:+.2g}"
    return minus(f"patches {row['patches']:+.2g}{tokens}\nconstant {row['constant']:+.2g}: in all {row['total']:+.2g}")


def _caption(row: Any) -> str:
    name = shown(os.path.basename(row["image"]), 30)
    if row.get("label") is None:
        return name
    return f"{name}\n{shown(row['label'], 30)} (not {shown(row['second'], 30)})"
