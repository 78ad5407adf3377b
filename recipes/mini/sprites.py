"""Printed characters and shapes: signed distance fields, drawn once and warped many times."""

import math
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import grid_sample

from recipes.mini.attributes import SHAPES

CELL = 40  # atlas cell, pixels
SPAN = 28  # longer side of the drawing in its cell
SUPER = 2  # drawings are made this much larger, for a smooth distance field

# I, O, l, o look like 1 and 0 in many fonts: their captions would contradict the digits'.
UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ"
LOWER = "abcdefghijkmnpqrtuvwxyz"
CHARACTERS = tuple("0123456789" + UPPER + LOWER)

# file, family (index into attributes.VALUES["font"]), bold, slanted
FONTS = (
    ("DejaVuSans", 0, 0, 0), ("DejaVuSans-Bold", 0, 1, 0), ("DejaVuSans-Oblique", 0, 0, 1),
    ("DejaVuSans-BoldOblique", 0, 1, 1), ("DejaVuSerif", 1, 0, 0), ("DejaVuSerif-Bold", 1, 1, 0),
    ("DejaVuSerif-Italic", 1, 0, 1), ("DejaVuSerif-BoldItalic", 1, 1, 1), ("DejaVuSansMono", 2, 0, 0),
    ("DejaVuSansMono-Bold", 2, 1, 0), ("DejaVuSansMono-Oblique", 2, 0, 1), ("DejaVuSansMono-BoldOblique", 2, 1, 1),
    ("STIXGeneral", 1, 0, 0), ("STIXGeneralBol", 1, 1, 0), ("STIXGeneralItalic", 1, 0, 1),
    ("STIXGeneralBolIta", 1, 1, 1), ("cmr10", 1, 0, 0), ("cmb10", 1, 1, 0), ("cmss10", 0, 0, 0), ("cmtt10", 2, 0, 0),
    ("cmti10", 1, 0, 1),
)  # fmt: skip


def _font_folder() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """The character in white on black, cropped to its ink."""
    canvas = Image.new("L", (260, 260))
    ImageDraw.Draw(canvas).text((70, 40), character, fill=255, font=font)
    return canvas.crop(canvas.getbbox())


def _regular(n: int, start: float, inner: float = 1.0) -> list[tuple[float, float]]:
    """n points on a circle, every second one at radius `inner`; angles in degrees, y down."""
    return [
        ((inner if i % 2 else 1) * math.cos(a), (inner if i % 2 else 1) * math.sin(a))
        for i, a in enumerate(math.radians(start + 360 * i / n) for i in range(n))
    ]


def _shape(name: str, size: int = 240) -> Image.Image:
    """A shape in white on black, cropped to its ink."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)

    def polygon(points: list[tuple[float, float]]) -> None:
        draw.polygon([(size / 2 * (1 + 0.9 * x), size / 2 * (1 + 0.9 * y)) for x, y in points], fill=255)

    def ellipse(x0: float, y0: float, x1: float, y1: float, fill: int = 255) -> None:
        draw.ellipse([size / 2 * (1 + v) for v in (x0, y0, x1, y1)], fill=fill)

    plus = [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3),
            (-1, 0.3), (-1, -0.3), (-0.3, -0.3)]  # fmt: skip
    arrow = [(1, 0), (0.1, -0.8), (0.1, -0.3), (-1, -0.3), (-1, 0.3), (0.1, 0.3), (0.1, 0.8)]
    turns = {"right": 0, "down": 90, "left": 180, "up": 270}
    match name.split():
        case ["circle"]:
            ellipse(-0.9, -0.9, 0.9, 0.9)
        case ["oval"]:
            ellipse(-0.9, -0.52, 0.9, 0.52)
        case ["square"]:
            polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])
        case ["rectangle"]:
            polygon([(-1, -0.5), (1, -0.5), (1, 0.5), (-1, 0.5)])
        case ["triangle"]:
            polygon(_regular(3, -90))
        case ["star"]:
            polygon(_regular(10, -90, inner=0.4))
        case ["plus"]:
            polygon(plus)
        case ["cross"]:
            c = math.sqrt(0.5)
            polygon([(c * (x - y), c * (x + y)) for x, y in plus])
        case ["heart"]:
            t = [2 * math.pi * i / 60 for i in range(60)]
            polygon([(math.sin(a) ** 3, -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a)
                      - math.cos(4 * a)) / 16) for a in t])  # fmt: skip
        case ["diamond"]:
            polygon([(0, -1), (0.65, 0), (0, 1), (-0.65, 0)])
        case ["pentagon"]:
            polygon(_regular(5, -90))
        case ["hexagon"]:
            polygon(_regular(6, 0))
        case ["ring"]:
            ellipse(-0.9, -0.9, 0.9, 0.9)
            ellipse(-0.5, -0.5, 0.5, 0.5, fill=0)
        case ["crescent"]:
            ellipse(-0.9, -0.9, 0.9, 0.9)
            ellipse(-0.35, -0.75, 1.15, 0.75, fill=0)
        case [direction, "arrow"]:
            a = math.radians(turns[direction])
            polygon([(x * math.cos(a) - y * math.sin(a), x * math.sin(a) + y * math.cos(a)) for x, y in arrow])
        case _:
            raise ValueError(f"no drawing for shape {name!r}")
    return image.crop(image.getbbox())


def _signed_distance(drawing: Image.Image) -> NDArray[np.float32]:
    """(CELL, CELL) distance to the outline in cell pixels, positive inside; longer side of the drawing = SPAN."""
    scale = SPAN * SUPER / max(drawing.size)
    fitted = drawing.resize([max(1, round(s * scale)) for s in drawing.size], Image.Resampling.BOX)
    canvas = Image.new("L", (CELL * SUPER, CELL * SUPER))
    canvas.paste(fitted, ((canvas.width - fitted.width) // 2, (canvas.height - fitted.height) // 2))
    ink = np.asarray(canvas) >= 128
    field: NDArray[np.float64] = distance_transform_edt(ink) - distance_transform_edt(~ink)
    cells = field.reshape(CELL, SUPER, CELL, SUPER).mean((1, 3)) / SUPER
    return np.asarray(cells, dtype=np.float32)


@lru_cache(maxsize=1)
def atlas() -> Tensor:
    """(sprite, CELL, CELL): every character of every font (font-major), then every shape. About 8 MB, 3 s."""
    fields = []
    for file, *_ in FONTS:
        font = ImageFont.truetype(str(_font_folder() / f"{file}.ttf"), 100)
        fields += [_signed_distance(_glyph(font, character)) for character in CHARACTERS]
    fields += [_signed_distance(_shape(name)) for name in SHAPES]
    return torch.from_numpy(np.stack(fields))


def glyph_sprite(font: Tensor, character: Tensor) -> Tensor:
    """Atlas index of characters (indices into `CHARACTERS`) in fonts (indices into `FONTS`)."""
    return font * len(CHARACTERS) + character


def shape_sprite(shape: Tensor) -> Tensor:
    """Atlas index of shapes (indices into `SHAPES`)."""
    return len(FONTS) * len(CHARACTERS) + shape


def sample(
    sprite: Tensor, center: Tensor, radius: Tensor, aspect: Tensor, shear: Tensor, rotation: Tensor,
    wave: Tensor, wave_field: Tensor, size: int,
) -> Tensor:  # fmt: skip
    """Signed distance fields of placed sprites, in image pixels, positive inside.

    sprite: (n,); center: (n, 2) in [-1, 1]; radius: (n,) half of the longer side, 1 = half the image; aspect, shear,
    rotation: (n,); wave: (n,) amplitude in units of the radius; wave_field: (n, 4, 2) two frequencies and two
    directions. Returns (n, size, size).
    """
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    q = (torch.stack([x, y], dim=-1)[None] - center[:, None, None]) / radius[:, None, None, None]
    for k in (0, 1):
        phase = (q * wave_field[:, None, None, k]).sum(-1, keepdim=True)
        q = q + wave[:, None, None, None] * wave_field[:, None, None, 2 + k] * torch.sin(phase)
    cos, sin = rotation.cos()[:, None, None], rotation.sin()[:, None, None]
    u, v = cos * q[..., 0] + sin * q[..., 1], -sin * q[..., 0] + cos * q[..., 1]
    u = (u + shear[:, None, None] * v) / aspect[:, None, None]
    grid = torch.stack([u, v], dim=-1) * (SPAN / CELL)
    field = grid_sample(atlas()[sprite][:, None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return field[:, 0] * (radius * size / SPAN)[:, None, None]
