"""A figure that is drawn only when it is shown or saved; files, the page and notebooks show the same one."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from residualign._files import publish
from residualign.errors import BadInputError
from residualign.figures._style import TIPS, VARIABLES, styled

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["IMAGE_FORMATS", "Figure"]

IMAGE_FORMATS = ("png", "svg", "pdf")

_DPI = 200
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

# without dates and library versions, the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


@dataclass(frozen=True, repr=False)
class Figure:
    """One figure. Nothing is drawn, and matplotlib is not imported, before it is shown or saved.

    draw: makes the matplotlib figure. narrow: makes its version for a phone; None where it is the same.
    """

    draw: Callable[[], Any]
    narrow: Callable[[], Any] | None = None

    def to_bytes(self, format: str) -> bytes:
        """The figure as a file in the format "png", "svg" or "pdf". The same figure gives the same bytes."""
        if format not in IMAGE_FORMATS:
            raise BadInputError(f"format is one of {', '.join(IMAGE_FORMATS)}; got {format!r}")
        if format == "svg":
            written: bytes = ElementTree.tostring(_svg(self.draw), encoding="utf-8", xml_declaration=True)
            return written
        return _saved(self.draw, format)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure; the file name ends in .png, .svg or .pdf."""
        publish(Path(path), self.to_bytes(Path(path).suffix.removeprefix(".").lower()))

    def to_page(self, name: str) -> str:
        """The figure as HTML in the colors of the page: one drawing, or one each for wide and narrow screens.

        name: unique on the page; the prefix of all ids in the drawings.
        """
        if self.narrow is None:
            return _inline(self.draw, name)
        wide, narrow = _inline(self.draw, name), _inline(self.narrow, f"{name}-narrow")
        return f'<div class="on-wide">{wide}</div><div class="on-narrow">{narrow}</div>'

    def __repr__(self) -> str:
        return "Figure(.save('name.png|svg|pdf'))"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.to_bytes("svg").decode()}


def _saved(draw: Callable[[], Any], format: str, transparent: bool = False) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure = draw()
        how = {"bbox_inches": "tight", "pad_inches": 0.05, "metadata": _METADATA[format]}
        figure.savefig(buffer, format=format, dpi=_DPI if format != "svg" else 72, transparent=transparent, **how)
    return buffer.getvalue()


def _svg(draw: Callable[[], Any], transparent: bool = False) -> Element:
    """The SVG tree, with tooltips as titles of the marks, which browsers show on hover."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(_saved(draw, "svg", transparent))
    for data in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(data)
    for k, group in enumerate([one for one in root.iter() if one.get("id", "").startswith(TIPS)]):
        _add_tips(group, json.loads(group.get("id", "").removeprefix(TIPS)))
        group.set("id", f"tips-{k}")
    return root


def _add_tips(group: Element, texts: Sequence[str]) -> None:
    hidden = {id(one) for part in group.iter(f"{{{_SVG}}}defs") for one in part.iter()}
    marks = [one for one in group.iter(f"{{{_SVG}}}use") if id(one) not in hidden]
    marks = marks or [one for one in group.iter(f"{{{_SVG}}}path") if id(one) not in hidden]
    for mark, text in zip(marks, texts, strict=False):
        ElementTree.SubElement(mark, f"{{{_SVG}}}title").text = text


def _inline(draw: Callable[[], Any], name: str) -> str:
    """The SVG for a page: unique ids, the colors of the page, no background."""
    root = _svg(draw, transparent=True)
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        for key, value in element.attrib.items():
            if value.startswith("url(#"):
                element.set(key, f"url(#{name}-{value[5:]}")
            elif key == f"{{{_LINK}}}href" and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif key == "style":
                for color, variable in VARIABLES.items():
                    value = value.replace(color, f"var({variable})")
                element.set(key, value)
    # a style sheet of the drawing would apply to the whole page
    for defs in root.iter(f"{{{_SVG}}}defs"):
        for sheet in defs.findall(f"{{{_SVG}}}style"):
            defs.remove(sheet)
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    # from points to CSS pixels
    for side in ("width", "height"):
        root.set(side, f"{float(root.get(side, '0').removesuffix('pt')) * 4 / 3:.0f}")
    for image in root.iter(f"{{{_SVG}}}image"):
        # matplotlib derives it from the content, so two equal images would share it
        image.attrib.pop("id", None)
    root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")
