"""What can be true of a generated image: the attribute table that images, captions and tests share.

Ground truth of an image is a row of integers, one column per attribute: the index of its value in `VALUES`, or
`UNDEFINED` where the attribute does not apply or is too close to a boundary to be stated. A caption's claim is
a row of the same kind in which `UNDEFINED` means "not mentioned".

An image has two rows ("views"): with two objects, each row describes the scene from one of them (`other_*` and
`relation` name the second one); otherwise both rows are equal.
"""

import torch
from torch import Tensor

UNDEFINED = -1

DIGITS = tuple("0123456789")
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
SHAPES = (
    "circle", "oval", "square", "rectangle", "triangle", "star", "plus", "cross", "heart", "diamond", "pentagon",
    "hexagon", "ring", "crescent", "left arrow", "right arrow", "up arrow", "down arrow",
)  # fmt: skip
COLORS = {
    "red": (0.86, 0.10, 0.12), "green": (0.13, 0.62, 0.18), "blue": (0.12, 0.25, 0.86), "yellow": (0.97, 0.88, 0.12),
    "orange": (0.97, 0.53, 0.08), "purple": (0.50, 0.13, 0.66), "pink": (0.98, 0.58, 0.75),
    "brown": (0.45, 0.27, 0.12), "white": (0.98, 0.98, 0.98), "black": (0.03, 0.03, 0.03),
    "gray": (0.50, 0.50, 0.50), "cyan": (0.20, 0.82, 0.88),
}  # fmt: skip
RGB = torch.tensor(list(COLORS.values()))  # (color, 3) in [0, 1]
POSITIONS = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip

VALUES: dict[str, tuple[str, ...]] = {
    "digit": DIGITS,
    "letter": LETTERS,
    "case": ("small", "capital"),
    "family": ("digit", "letter", "shape"),
    "script": ("handwritten", "printed"),
    "font": ("sans", "serif", "mono"),
    "weight": ("thin", "bold"),
    "slant": ("upright", "slanted"),
    "warp": ("straight", "wavy"),
    "shape": SHAPES,
    "color": tuple(COLORS),
    "texture": ("plain", "striped", "dotted", "checkered", "grainy", "shaded", "hollow"),
    "size": ("small", "large"),
    "count": ("one", "two", "three", "four", "five", "six"),
    "position": POSITIONS,
    "background": tuple(COLORS),
    "ground": ("plain", "striped", "checkered", "gradient", "noisy", "cloudy"),
    "quality": ("clear", "blurry", "noisy", "pixelated"),
    "relation": ("left of", "right of", "above", "below", "on", "behind"),
    "other_digit": DIGITS,
    "other_shape": SHAPES,
    "other_color": tuple(COLORS),
}
NAMES = tuple(VALUES)
COLUMN = {name: i for i, name in enumerate(NAMES)}

# Relation seen from the other object, by index in VALUES["relation"].
REVERSED_RELATION = (1, 0, 3, 2, 5, 4)


def empty(n: int) -> Tensor:
    """(n, attribute) rows with nothing defined."""
    return torch.full((n, len(NAMES)), UNDEFINED, dtype=torch.int16)


def true_of(claims: Tensor, views: Tensor) -> Tensor:
    """Which captions are true of which images.

    claims: (caption, attribute); views: (image, 2, attribute). Returns (image, caption) booleans: every mentioned
    attribute equals the image's, all within one view. Time and memory: image x caption x attribute bytes, one
    attribute at a time.
    """
    result = torch.zeros(views.shape[0], claims.shape[0], dtype=torch.bool)
    for view in (0, 1):
        agrees = torch.ones_like(result)
        for column in range(claims.shape[1]):
            claim = claims[:, column]
            agrees &= (claim == UNDEFINED)[None, :] | (claim[None, :] == views[:, view, column][:, None])
        result |= agrees
    return result
