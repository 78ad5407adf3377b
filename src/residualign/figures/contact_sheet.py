"""A page of thumbnails, one row per class, as a PNG of at most 2 MB."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

__all__ = ["COLUMNS", "MAX_BYTES", "ROWS", "contact_sheet", "drawable"]

MAX_BYTES = 2_000_000
COLUMNS, ROWS = 8, 40
"""Thumbnails per class, and classes on the page; a note says how many classes are left out."""

# sides of a thumbnail in pixels, tried until the page is small enough; at the last one even noise fits
_SIDES = (96, 72, 56, 40, 28)

_GAP, _LABEL, _SIZE = 6, 190, 15
_PAPER, _INK, _QUIET = (255, 255, 255), (30, 30, 30), (120, 120, 120)


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Image.Image]]], title: str, note: str = "", max_bytes: int = MAX_BYTES
) -> bytes:
    """A PNG of the first `ROWS` rows (class name, RGB images), with the first `COLUMNS` images of each.

    The font is DejaVu Sans where the system has it, otherwise Pillow's own. Characters it lacks are written as
    escapes; long names are cut. Small images are enlarged without smoothing, by integer factors.
    """
    if len(rows) > ROWS:
        note = "; ".join(filter(None, (note, f"{len(rows) - ROWS} further classes are not shown")))
    page = b""
    for side in _SIDES:
        page = _page(rows[:ROWS], title, note, side)
        if len(page) <= max_bytes:
            break
    return page


def drawable(text: str) -> str:
    r"""The text with what the font cannot draw replaced: a letter loses its accent, other characters are escaped.

    >>> drawable("T-shirt 猫")
    'T-shirt \\u732b'
    """
    return "".join(map(_drawable, unicodedata.normalize("NFC", text)))


@cache
def _drawable(character: str) -> str:
    shapes = character, unicodedata.normalize("NFKD", character)[:1]
    escaped = character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return next(filter(_is_drawn, shapes), escaped)


def _page(rows: Sequence[tuple[str, Sequence[Image.Image]]], title: str, note: str, side: int) -> bytes:
    cell = side + _GAP
    header, footer = 40, 34 if note else _GAP
    size = (_LABEL + COLUMNS * cell + 2 * _GAP, header + len(rows) * cell + footer)
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((2 * _GAP, 20), _fitting(title, size[0] - 4 * _GAP, 18), _INK, _font(18), anchor="lm")
    for i, (name, images) in enumerate(rows):
        top = header + i * cell
        lines = _lines(name, _LABEL - 4 * _GAP, max(1, side // 24))
        for k, line in enumerate(lines):
            middle = top + side // 2 + (2 * k - len(lines) + 1) * 10
            draw.text((2 * _GAP, middle), line, _INK, _font(_SIZE), anchor="lm")
        for j, image in enumerate(images[:COLUMNS]):
            small = _thumbnail(image, side)
            x, y = (side - small.width) // 2, (side - small.height) // 2
            page.paste(small, (_LABEL + j * cell + x, top + y))
    if note:
        draw.text((2 * _GAP, size[1] - 18), _fitting(note, size[0] - 4 * _GAP, 13), _QUIET, _font(13), anchor="lm")
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _thumbnail(image: Image.Image, side: int) -> Image.Image:
    factor = side // max(image.size)
    if factor >= 2:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _lines(text: str, width: int, most: int) -> list[str]:
    """The text in at most this many lines, broken between words; the rest is cut."""
    lines = [""]
    words = text[:400].split()
    for i, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _font(_SIZE).getlength(drawable(longer)) <= width:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = " ".join([lines[-1], *words[i:]])
            break
    return [_fitting(line, width, _SIZE) for line in lines]


def _fitting(text: str, width: int, size: int) -> str:
    # no line is longer than this, and measuring a million characters is slow
    text = drawable(text[:400])
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    try:
        # has accented letters and most alphabets
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font


@cache
def _missing() -> bytes:
    """What the font draws for a character that it lacks."""
    return bytes(_font(_SIZE).getmask("\U0010fffd"))


@cache
def _is_drawn(character: str) -> bool:
    # a combining mark without its letter is drawn as a box
    if not character.isprintable() or unicodedata.category(character).startswith("M"):
        return False
    return character == " " or bytes(_font(_SIZE).getmask(character)) != _missing()
