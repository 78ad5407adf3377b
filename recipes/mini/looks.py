"""How an object is drawn: pose, stroke, distortion, colors, texture."""

import torch
from torch import Tensor

from recipes.mini.attributes import COLORS, RGB, SHAPES, VALUES
from recipes.mini.identity import Identity
from recipes.mini.kinds import KIND
from recipes.mini.rng import Rng

WHITE, BLACK, GRAY = (list(COLORS).index(c) for c in ("white", "black", "gray"))
# Colors closer than this (Euclidean, RGB) are not put next to each other: the object would be invisible.
MIN_CONTRAST = 0.45
TEXTURED = 0.34  # radius above which a shape can show a texture


def contrasting(rng: Rng, given: Tensor) -> Tensor:
    """Random colors that can be distinguished from `given` (both indices into COLORS)."""
    far = (torch.cdist(RGB, RGB) > MIN_CONTRAST).float()
    return torch.multinomial(far[given], 1, generator=rng.generator)[:, 0]


def draw_pose(rng: Rng, identity: Identity) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """bold, aspect, shear, rotation, wave of each object, as in `scene.Objects`."""
    m = identity.written.shape[0]
    angle = rng.normal(m, std=0.13).clamp(-0.35, 0.35)
    rotation = torch.where(identity.is_shape, angle * 0.8, angle * torch.where(identity.written, 0.7, 1.0))
    shear = torch.where(
        identity.is_shape,
        torch.zeros(m),
        torch.where(identity.written, rng.normal(m, std=0.24) + 0.1, rng.normal(m, std=0.15)),
    )
    wave = torch.where(rng.chance(m, 0.6), torch.zeros(m), rng.uniform(m, high=0.08)) * ~identity.is_shape
    wave = torch.where(identity.written, rng.uniform(m, high=0.07), wave)
    aspect = torch.where(identity.is_shape, torch.ones(m), rng.uniform(m, low=0.75, high=1.2))
    bold = torch.where(
        identity.written, rng.uniform(m, low=0.07, high=0.26), rng.normal(m, std=0.03).clamp(-0.04, 0.07)
    )
    bold = torch.where(identity.is_shape, torch.zeros(m), bold)
    return bold, aspect, shear, rotation, wave


def draw_colors(
    rng: Rng, identity: Identity, kind: Tensor, image: Tensor, slot: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """background (image,), color and texture (object,), indices into the attributes' values.

    Half of the characters are white on black or black on white, as in scans.
    """
    n = kind.shape[0]
    counted, signed = kind[image] == KIND["count"], kind[image] == KIND["sign"]
    gray = rng.chance(n, 0.55) & (kind <= KIND["printed letter"])
    on_black = rng.chance(n, 0.66)
    background = torch.where(gray, torch.where(on_black, BLACK, WHITE), rng.integers(n, len(COLORS)))
    holder_color = contrasting(rng, background)
    color = contrasting(rng, torch.where(signed & (slot == 1), holder_color[image], background[image]))
    color = torch.where(counted, contrasting(rng, background)[image], color)
    color = torch.where(signed & (slot == 0), holder_color[image], color)
    ink = torch.where(
        on_black, torch.where(rng.chance(n, 0.85), WHITE, GRAY), torch.where(rng.chance(n, 0.85), BLACK, GRAY)
    )
    color = torch.where(gray[image], ink[image], color)
    texture = rng.choice(n, [0.5, 0.12, 0.08, 0.1, 0.06, 0.08, 0.06])[image]
    texture = torch.where(identity.is_shape & ~signed & (radius > TEXTURED), texture, 0)
    hollow_ok = (identity.shape != SHAPES.index("ring")) & (identity.shape != SHAPES.index("crescent"))
    texture = torch.where((texture == VALUES["texture"].index("hollow")) & ~hollow_ok, 0, texture)
    return background, color, texture
