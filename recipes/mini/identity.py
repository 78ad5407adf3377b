"""What each object is: a digit, a letter or a shape, and which drawing of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.mini import sprites, strokes
from recipes.mini.attributes import LETTERS, SHAPES
from recipes.mini.kinds import KIND, WRITTEN_ELSEWHERE
from recipes.mini.rng import Rng


@dataclass
class Identity:
    """All tensors have length object; a value is used only where its flag is set."""

    is_digit: Tensor
    is_letter: Tensor
    is_shape: Tensor
    written: Tensor  # handwritten; otherwise printed
    digit: Tensor
    letter: Tensor  # index into LETTERS
    capital: Tensor
    font: Tensor  # index into sprites.FONTS
    shape: Tensor  # index into SHAPES
    drawing: Tensor  # index into strokes.CHARACTERS where written, else into the atlas


def _alphabet(characters: tuple[str, ...]) -> Tensor:
    """Index into LETTERS of each character after the ten digits."""
    return torch.tensor([LETTERS.index(c.lower()) for c in characters[10:]])


def draw_identity(rng: Rng, kind: Tensor, image: Tensor, slot: Tensor, mix: str) -> Identity:
    """kind: (n,) of the images; image, slot: (object,) the image of each object and its place in it.

    Objects of a "count" image are equal: one shape per image.
    """
    m = image.shape[0]
    k = kind[image]
    paired, signed = k == KIND["pair"], k == KIND["sign"]
    digit_in_pair = paired & rng.chance(m, 0.3)
    digit_on_sign = signed & (slot == 1) & rng.chance(m, 0.8)
    letter_on_sign = signed & (slot == 1) & ~digit_on_sign
    is_digit = (k == KIND["written digit"]) | (k == KIND["printed digit"]) | digit_in_pair | digit_on_sign
    is_letter = (k == KIND["written letter"]) | (k == KIND["printed letter"]) | letter_on_sign
    is_shape = ~(is_digit | is_letter)
    by_hand = rng.chance(m, WRITTEN_ELSEWHERE[mix])
    written = (k == KIND["written digit"]) | (k == KIND["written letter"]) | ((paired | signed) & ~is_shape & by_hand)
    digit = rng.integers(m, 10)
    written_letter = 10 + rng.integers(m, len(strokes.CHARACTERS) - 10)
    printed_letter = 10 + rng.integers(m, len(sprites.CHARACTERS) - 10)
    font = rng.integers(m, len(sprites.FONTS))
    # Shapes that can contain a character: closed and wide enough.
    holder = torch.tensor([SHAPES.index(s) for s in ("circle", "square", "hexagon", "pentagon", "diamond", "heart")])
    shape = torch.where(signed, holder[rng.integers(m, len(holder))], rng.integers(kind.shape[0], len(SHAPES))[image])
    shape = torch.where(paired, rng.integers(m, len(SHAPES)), shape)
    drawing = torch.where(
        is_shape, sprites.shape_sprite(shape),
        torch.where(
            written, torch.where(is_digit, digit, written_letter),
            sprites.glyph_sprite(font, torch.where(is_digit, digit, printed_letter)),
        ),
    )  # fmt: skip
    letter = torch.where(
        written,
        _alphabet(strokes.CHARACTERS)[written_letter - 10],
        _alphabet(sprites.CHARACTERS)[printed_letter - 10],
    )
    capital = written | (printed_letter < 10 + len(sprites.UPPER))
    return Identity(is_digit, is_letter, is_shape, written, digit, letter, capital, font, shape, drawing)
