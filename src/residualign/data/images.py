"""The rule by which stored bytes become an RGB image.

1. Only raster formats that Pillow itself decodes are opened (`FORMATS`); EPS and PS, which start another program, are
   not. Of an animation or multi-page file the first frame is used.
2. The EXIF orientation is applied, as an image viewer does.
3. Grayscale of more than 8 bits is scaled to 8 bits, where Pillow would clip it to white: 16-bit integers (modes
   `I;16*`, and `I` with values in 0..65535) are divided by 257 and rounded, so 65535 becomes 255; floats (`F`) are
   multiplied by 255 if all are in 0..1, and only rounded if all are in 0..255. Other ranges are refused.
4. Everything else (palette, grayscale, alpha, CMYK) goes through Pillow's `convert("RGB")`, as in the image processors
   that ship with checkpoints: alpha is dropped, not blended.

What cannot be decoded in full (truncated, empty, unsupported, or so large that Pillow suspects a decompression bomb)
raises `BadImageError`; an image is never partly decoded, whatever other code does to Pillow's `LOAD_TRUNCATED_IMAGES`.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from residualign.errors import BadInputError

__all__ = [
    "EXTENSIONS",
    "BadImageError",
    "decode",
    "has_image_extension",
    "read_bytes",
    "read_image",
    "stored_as",
    "to_rgb",
    "unread_format",
]

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened, if the installed Pillow has them. "JPEG" also opens the multi-picture
files of phones and cameras."""

EXTENSIONS = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg"}
    | {".jpx", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""File name extensions of images. The list is fixed: it must not depend on the installed Pillow."""

_UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), "a camera's raw format"),
    ".svg": "SVG",
    ".psd": "PSD",
    ".dcm": "DICOM",
    ".jxl": "JPEG XL",
}

_HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")

# what Pillow's decoders and EXIF reader raise on damaged files
_DECODING_ERRORS = (
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    # an error only if the caller turns warnings into errors
    Image.DecompressionBombWarning,
)


class BadImageError(BadInputError):
    """An image that cannot be used. `.key` names it, `.reason` says why."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"image {key!r} cannot be used: {reason}")
        self.key = key
        self.reason = reason

    def skippable(self) -> BadImageError:
        """The same, said where such images can be left out."""
        return BadImageError(self.key, f"{self.reason}; leave such images out with skip_bad=True")

    def __reduce__(self) -> tuple[type[BadImageError], tuple[str, str]]:
        # exceptions pickle only their message; workers send this one to their parent
        return type(self), (self.key, self.reason)


def has_image_extension(name: str) -> bool:
    """Whether a file of this name is treated as an image.

    >>> has_image_extension("cat.JPG"), has_image_extension("README.txt")
    (True, False)
    """
    return Path(name).suffix.lower() in EXTENSIONS


def unread_format(name: str) -> str | None:
    """What pictures in a file of this name are in, if that is a format that is not read.

    >>> unread_format("IMG_0001.HEIC"), unread_format("cat.jpg")
    ('HEIC', None)
    """
    return _UNREAD.get(Path(name).suffix.lower())


def read_image(path: str | PathLike[str], key: str | None = None) -> Image.Image:
    """The image in a file, in RGB. `BadImageError` names `key`, or the path without one."""
    key = os.fspath(path) if key is None else key
    return decode(read_bytes(path, key), key)


def read_bytes(path: str | PathLike[str], key: str) -> bytes:
    """The bytes of an image file; `BadImageError` names `key`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadImageError(key, f"the file cannot be read ({error.strerror or error})") from error


def stored_as(data: bytes) -> tuple[str, str]:
    """Pillow's names of the format and mode of an encoded image; only its header is read."""
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        return str(image.format), image.mode


def decode(data: bytes, key: str) -> Image.Image:
    """Decode an image to RGB; raises `BadImageError` naming `key` if that fails."""
    if not data:
        raise BadImageError(key, "it is empty (0 bytes)")
    # what is in a HEIF container may be AVIF, which is read
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF and b"av01" not in data[:4096]:
        raise BadImageError(key, "it is a picture in HEIC, which is not read; convert it to JPEG or PNG")
    with _decoding(key), Image.open(io.BytesIO(data), formats=_formats()) as image:
        return _convert(image, key)


def to_rgb(image: Image.Image, key: str = "image") -> Image.Image:
    """An opened image in RGB, by the same rule; raises `BadImageError` naming `key` if it cannot be read."""
    with _decoding(key):
        return _convert(image, key)


@contextmanager
def _decoding(key: str) -> Iterator[None]:
    """Turn what Pillow raises into `BadImageError` naming `key`."""
    try:
        with _in_full():
            yield
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(key, "its image format is not supported, or it is damaged") from error
    except _DECODING_ERRORS as error:
        message = " ".join(str(error).split()).rstrip(".")
        raise BadImageError(key, message or f"decoding failed with {type(error).__name__}") from error


class _Strict:
    """Pillow's switch that lets half an image pass, off while any thread of ours decodes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_decoding = 0
        self.was_on = False


_STRICT = _Strict()


@contextmanager
def _in_full() -> Iterator[None]:
    """Decode in full, even where other code of the program has set `ImageFile.LOAD_TRUNCATED_IMAGES`.

    The switch is put back once none of our threads decodes. Pillow has it for the whole program only.
    """
    with _STRICT.lock:
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            _STRICT.was_on, ImageFile.LOAD_TRUNCATED_IMAGES = True, False
        _STRICT.n_decoding += 1
    try:
        yield
    finally:
        with _STRICT.lock:
            _STRICT.n_decoding -= 1
            if _STRICT.was_on and not _STRICT.n_decoding:
                _STRICT.was_on, ImageFile.LOAD_TRUNCATED_IMAGES = False, True


def _convert(image: Image.Image, key: str) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), key)).convert("RGB")
    # alpha is dropped anyway, and Pillow would warn about every such palette image
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _eight_bits(pixels: NDArray[np.generic], key: str) -> NDArray[np.uint8]:
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    is_float = np.issubdtype(pixels.dtype, np.floating)
    limit = 255 if is_float else 65535
    if not (low >= 0 and high <= limit):  # so that NaN fails too
        expected = "0..1 or 0..255" if is_float else "0..65535"
        raise BadImageError(key, f"its pixels are in {low:g}..{high:g}, expected {expected}")
    factor = 1 / 257 if not is_float else 255 if high <= 1 else 1
    return np.rint(values * factor).astype(np.uint8)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
