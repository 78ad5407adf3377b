"""Small pictures of images, for pages that show them: one zip file of JPEGs, each picture once, at most 2 MB in all."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

__all__ = ["MAX_BYTES", "SIDE", "Thumbnails", "make_thumbnails"]

MAX_BYTES = 2_000_000
SIDE = 96
"""Longest side in pixels; smaller images keep their own size."""

_QUALITY = 80
# what a zip adds to a file: local header, entry of the central directory, and the name in both; and the end record
_OVERHEAD_EACH, _OVERHEAD = 46 + 30 + 2 * len("0123456789abcdef.jpg"), 22


@dataclass(frozen=True)
class Thumbnails:
    """content: the bytes of the zip file. names: from an image's key to the file in it.

    There are fewer than asked for where the size allows no more.
    """

    content: bytes
    names: dict[str, str]


def make_thumbnails(
    images: Iterable[tuple[str, Image.Image]], max_bytes: int = MAX_BYTES, wanted: Sequence[str] = ()
) -> Thumbnails:
    """Thumbnails of (key, RGB image), until the file is full: those in `wanted` first, then as they come.

    Files are named by their content, so equal pictures are stored once. The same images give the same bytes. All
    thumbnails are in memory, a few kilobytes each.
    """
    rank = {key: i for i, key in enumerate(wanted)}
    small = sorted(((key, _jpeg(image)) for key, image in images), key=lambda pair: rank.get(pair[0], len(rank)))
    pictures: dict[str, bytes] = {}
    names: dict[str, str] = {}
    size = _OVERHEAD
    for key, picture in small:
        name = f"{hashlib.sha256(picture).hexdigest()[:16]}.jpg"
        if name not in pictures:
            if size + len(picture) + _OVERHEAD_EACH > max_bytes:
                continue
            size += len(picture) + _OVERHEAD_EACH
            pictures[name] = picture
        names[key] = name
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, picture in sorted(pictures.items()):
            # without a date of its own the entry would carry the clock's
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), picture)
    return Thumbnails(buffer.getvalue(), names)


def _jpeg(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
