"""The figure of `explain`: components with the images and texts of both ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from residualign._messages import minus
from residualign.figures._figure import Figure
from residualign.figures._style import SOFT, Rows, grouped, shown

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_ROWS", "explain_figures"]

MAX_ROWS = 8
"""Components per figure; more would be too small to read on a page."""

_IMAGES, _TEXTS, _LONGEST = 4, 4, 34
_ROW, _SIDE, _COLUMN, _HEADER = 1.12, 0.78, 2.6, 0.7
_PIXELS, _GAP = 160, 8
_ENDS = {"negative": "#b45309", "positive": "#0f766e"}


def explain_figures(
    tables: Mapping[str, Rows],
    title: str,
    units: Sequence[str],
    images: Callable[[], Mapping[str, Image]],
    method: str = "somp",
) -> dict[str, Figure]:
    """`explain`, from the tables `components` and `images`, with at most `MAX_ROWS` components of these units.

    images: called when the figure is drawn, gives images by key; without any, only texts are shown. method: what the
    numbers beside the texts are.
    """
    return {"explain": Figure(partial(_sheet, tables, title, units, images, method))}


def _sheet(
    tables: Mapping[str, Rows],
    title: str,
    units: Sequence[str],
    read: Callable[[], Mapping[str, Image]],
    method: str,
) -> Any:
    from matplotlib.figure import Figure as Canvas

    images = read()
    texts, pictures = (grouped(tables[name], "unit", "component", "end") for name in ("components", "images"))
    rows = _chosen(units, tables)
    strips = _IMAGES * _SIDE if images else 0.0
    width, height = 2 * (_COLUMN + strips) + 0.5, _HEADER + _ROW * max(1, len(rows))
    figure = Canvas(figsize=(width, height))
    middle = width / 2

    def write(x: float, y: float, text: str, **how: Any) -> None:
        """Text at inches from the left and from the top."""
        figure.text(x / width, 1 - y / height, text, va="center", **how)

    write(middle - 0.12, 0.2, "negative end", color=_ENDS["negative"], ha="right", fontsize=10, weight="bold")
    write(middle + 0.12, 0.2, "positive end", color=_ENDS["positive"], ha="left", fontsize=10, weight="bold")
    write(0.1, 0.2, shown(title, 60 if images else 30), fontsize=9, ha="left")
    if texts:
        told = "|weight| in a pursuit of the component" if method == "omp" else "cosine of text and component"
        write(width - 0.1, 0.2, told, color=SOFT, ha="right", fontsize=8)
    for i, (unit, component, share) in enumerate(rows):
        top = _HEADER + i * _ROW - 0.12
        name = f"{shown(unit)}, component {component}"
        told = "" if share is None else f": {100 * share:.0f} % of its variance"
        write(0.1, top - 0.12, name + told, fontsize=8.5, weight="bold")
        for end, sign in (("negative", -1), ("positive", 1)):
            keys = [row["key"] for row in pictures.get((unit, component, end), ())]
            strip = _strip([images[key] for key in keys[:_IMAGES] if key in images], sign)
            if strip is not None:
                left = middle + 0.1 if sign > 0 else middle - 0.1 - strips
                box = (left / width, 1 - (top + 0.06 + _SIDE) / height, strips / width, _SIDE / height)
                axes = figure.add_axes(box)
                axes.imshow(strip, interpolation="nearest")
                axes.set_axis_off()
            for j, row in enumerate(texts.get((unit, component, end), ())[:_TEXTS]):
                where, side = middle + sign * (0.15 + strips), "left" if sign > 0 else "right"
                line = minus(f"{shown(row['text'], _LONGEST)}  {row['score']:.2f}")
                write(where, top + 0.16 + 0.2 * j, line, ha=side, fontsize=8, color=_ENDS[end])
    return figure


def _chosen(units: Sequence[str], tables: Mapping[str, Rows]) -> list[tuple[str, int, float | None]]:
    """Components with texts or images: as many per unit as there is room for, at least one."""
    shares: dict[str, dict[int, float | None]] = {unit: {} for unit in units}
    for row in (*tables["components"], *tables["images"]):
        if row["unit"] in shares:
            own = shares[row["unit"]]
            own[row["component"]] = row.get("explained_variance_ratio", own.get(row["component"]))
    each = max(1, MAX_ROWS // max(len(units), 1))
    return [(unit, k, share) for unit, own in shares.items() for k, share in sorted(own.items())[:each]][:MAX_ROWS]


def _strip(images: Sequence[Image], sign: int) -> Image | None:
    """Pictures side by side, the first at the outer end. sign: -1 left of the middle, 1 right of it."""
    from PIL import Image

    if not images:
        return None
    strip = Image.new("RGB", (_IMAGES * _PIXELS, _PIXELS), "white")
    for j, image in enumerate(images):
        factor = (_PIXELS - _GAP) / max(image.size)
        size = [max(1, round(factor * side)) for side in image.size]
        # small pictures are enlarged without smoothing
        how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
        small = image.convert("RGB").resize((size[0], size[1]), how)
        cell = _IMAGES - 1 - j if sign > 0 else j
        strip.paste(small, (cell * _PIXELS + (_PIXELS - size[0]) // 2, (_PIXELS - size[1]) // 2))
    return strip
