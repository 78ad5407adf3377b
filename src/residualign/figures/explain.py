"""A figure of components: the images at both ends, and the texts of each end beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from residualign.text.explanation import ComponentWords, TextMatch, UnitWords

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["MAX_ROWS", "explain_figure"]

MAX_ROWS = 8
"""Components on one figure; a page can hold no more that is still readable."""

_IMAGES, _TEXTS, _LONGEST = 4, 4, 34
_ROW, _SIDE, _COLUMN, _HEADER = 1.12, 0.78, 2.6, 0.7
_PIXELS, _GAP = 160, 8
_QUIET, _POSITIVE, _NEGATIVE = "#6b7280", "#0f766e", "#b45309"


def explain_figure(units: Sequence[UnitWords], images: Mapping[str, Image.Image], method: str = "somp") -> Figure:
    """Rows of components, at most `MAX_ROWS`: as many of each unit as fit for all of them, one at least.

    images: by key, the one that lies furthest beside the texts; without any the figure shows texts alone. method: says
    what the numbers beside the texts are.
    """
    from matplotlib.figure import Figure

    rows = _rows(units)
    strips = _IMAGES * _SIDE if images else 0.0
    width = 2 * (_COLUMN + strips) + 0.5
    height = _HEADER + _ROW * len(rows)
    figure = Figure(figsize=(width, height))
    middle = width / 2
    for x, text, colour, side in (
        (middle - 0.12, "negative end", _NEGATIVE, "right"),
        (middle + 0.12, "positive end", _POSITIVE, "left"),
    ):
        figure.text(x / width, 1 - 0.2 / height, text, color=colour, ha=side, va="center", fontsize=10, weight="bold")
    if any(component.positive or component.negative for _, component in rows):
        number = "|weight| in a pursuit of the component" if method == "omp" else "cosine of text and component"
        figure.text(1 - 0.1 / width, 1 - 0.2 / height, number, color=_QUIET, ha="right", va="center", fontsize=8)
    for i, (unit, component) in enumerate(rows):
        top = _HEADER + i * _ROW - 0.12
        share = 100 * component.explained_variance_ratio
        title = f"{unit.label}, component {component.index}: {share:.0f} % of its variance"
        figure.text(0.1 / width, 1 - (top - 0.12) / height, title, fontsize=8.5, weight="bold", va="center")
        for end, sign in ((component.images_negative, -1), (component.images_positive, 1)):
            strip = _strip([images[key] for key, _ in end[:_IMAGES] if key in images], sign)
            if strip is None:
                continue
            left = middle + 0.1 if sign > 0 else middle - 0.1 - strips
            axes = figure.add_axes((left / width, 1 - (top + 0.06 + _SIDE) / height, strips / width, _SIDE / height))
            axes.imshow(strip, interpolation="nearest")
            axes.set_axis_off()
        for matches, x, side, colour in (
            (component.negative, middle - 0.15 - strips, "right", _NEGATIVE),
            (component.positive, middle + 0.15 + strips, "left", _POSITIVE),
        ):
            for j, match in enumerate(matches[:_TEXTS]):
                y = 1 - (top + 0.16 + 0.2 * j) / height
                figure.text(x / width, y, _line(match), ha=side, va="center", fontsize=8, color=colour)
    return figure


def _rows(units: Sequence[UnitWords]) -> list[tuple[UnitWords, ComponentWords]]:
    each = max(1, MAX_ROWS // max(len(units), 1))
    return [(unit, component) for unit in units for component in unit.components[:each]][:MAX_ROWS]


def _strip(images: Sequence[Image.Image], sign: int) -> Image.Image | None:
    """Pictures side by side, the first at the outer end: at the right of a strip that stands right of the middle."""
    from PIL import Image

    if not images:
        return None
    strip = Image.new("RGB", (_IMAGES * _PIXELS, _PIXELS), "white")
    for j, image in enumerate(images):
        factor = (_PIXELS - _GAP) / max(image.size)
        size = [max(1, round(factor * side)) for side in image.size]
        # small pictures keep their pixels, large ones are smoothed
        small = image.convert("RGB").resize(
            (size[0], size[1]), Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
        )
        cell = _IMAGES - 1 - j if sign > 0 else j
        strip.paste(small, (cell * _PIXELS + (_PIXELS - size[0]) // 2, (_PIXELS - size[1]) // 2))
    return strip


def _line(match: TextMatch) -> str:
    text = match.text if len(match.text) <= _LONGEST else match.text[: _LONGEST - 1] + "…"
    # matplotlib reads what stands between two dollars as mathematics
    return f"{text}  {match.score:.2f}".replace("$", r"\$")
