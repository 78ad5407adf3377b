"""Where the objects of an image are and how large."""

import torch
from torch import Tensor

from recipes.mini.kinds import KIND, MAX_OBJECTS
from recipes.mini.rng import Rng


def draw_places(rng: Rng, kind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places of up to MAX_OBJECTS objects: number (n,), center (n, MAX_OBJECTS, 2), radius (n, MAX_OBJECTS)."""
    n = kind.shape[0]
    number = torch.ones(n, dtype=torch.long)
    center = torch.zeros(n, MAX_OBJECTS, 2)
    radius = torch.zeros(n, MAX_OBJECTS)
    # One object: fills the frame (as data sets of cropped digits do), or is smaller and anywhere it fits.
    fills = rng.chance(n, 0.5)
    glyph = kind <= KIND["printed letter"]
    single = torch.where(
        fills & glyph, rng.uniform(n, low=0.78, high=1.0),
        torch.where(fills, rng.uniform(n, low=0.6, high=0.95), rng.uniform(n, low=0.26, high=0.75)),
    )  # fmt: skip
    room = (0.98 - single).clamp(min=0)
    centered = rng.chance(n, 0.35) | fills
    place = rng.uniform(n, 2, low=-1, high=1) * torch.where(centered, room * 0.25, room)[:, None]
    center[:, 0], radius[:, 0] = place, single
    # Several: distinct cells of a 3 x 3 grid, small enough not to touch.
    many = kind == KIND["count"]
    number[many] = 2 + rng.integers(int(many.sum()), MAX_OBJECTS - 1)
    cells = rng.permutations(n, 9, MAX_OBJECTS)
    grid = torch.stack([cells % 3 - 1, cells // 3 - 1], dim=-1) * 0.64 + rng.uniform(
        n, MAX_OBJECTS, 2, low=-0.05, high=0.05
    )
    center[many] = grid[many]
    radius[many] = rng.uniform(n, 1, low=0.18, high=0.24).expand(-1, MAX_OBJECTS)[many]
    # Pairs: side by side or one above the other.
    pair = kind == KIND["pair"]
    number[pair] = 2
    sign = torch.where(rng.chance(n, 0.5), 1.0, -1.0)
    along = rng.uniform(n, low=0.44, high=0.52) * sign
    across = rng.uniform(n, 2, low=-0.3, high=0.3)
    horizontal = rng.chance(n, 0.5)
    first = torch.where(
        horizontal[:, None], torch.stack([along, across[:, 0]], 1), torch.stack([across[:, 0], along], 1)
    )
    second = torch.where(
        horizontal[:, None], torch.stack([-along, across[:, 1]], 1), torch.stack([across[:, 1], -along], 1)
    )
    center[pair, 0], center[pair, 1] = first[pair], second[pair]
    radius[pair] = rng.uniform(n, MAX_OBJECTS, low=0.3, high=0.42)[pair]
    # Signs: a shape that fills most of the image (drawn first), a character on it.
    on = kind == KIND["sign"]
    number[on] = 2
    large = rng.uniform(n, low=0.7, high=0.97)
    center[on, 0] = (rng.uniform(n, 2, low=-1, high=1) * (0.98 - large)[:, None])[on]
    center[on, 1] = center[on, 0]
    radius[on, 0], radius[on, 1] = large[on], (large * rng.uniform(n, low=0.36, high=0.5))[on]
    return number, center, radius
