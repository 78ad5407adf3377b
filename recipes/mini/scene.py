"""What is in each image of a batch: objects with their places and colours, and the ground truth rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.mini import sprites, strokes
from recipes.mini.attributes import COLOURS, COLUMN, LETTERS, REVERSED_RELATION, SHAPES, VALUES, empty
from recipes.mini.rng import Rng

# Share of each kind of image. "general" knows little handwriting, so that real handwriting is a shift away from its
# world, as users' images are from a pretrained model's; "handwriting" is the mix that reads handwritten digits best.
MIXES = {
    "general": {
        "written digit": 0.08, "printed digit": 0.26, "written letter": 0.08, "printed letter": 0.14, "shape": 0.16,
        "count": 0.08, "pair": 0.12, "sign": 0.08,
    },
    "handwriting": {
        "written digit": 0.34, "printed digit": 0.14, "written letter": 0.04, "printed letter": 0.06, "shape": 0.12,
        "count": 0.10, "pair": 0.12, "sign": 0.08,
    },
}  # fmt: skip
# Of the characters in pairs and on signs, the share that is handwritten.
WRITTEN_ELSEWHERE = {"general": 0.15, "handwriting": 0.5}
KIND = {name: i for i, name in enumerate(MIXES["general"])}
MAX_OBJECTS = 6
RGB = torch.tensor(list(COLOURS.values()))
WHITE, BLACK, GRAY = (list(COLOURS).index(c) for c in ("white", "black", "gray"))
# Colours this near (Euclidean, RGB) are not put next to each other: one could not see the object.
MIN_CONTRAST = 0.45


@dataclass
class Objects:
    """Objects of a batch, in drawing order within an image. All tensors have length object."""

    image: Tensor  # image each belongs to
    slot: Tensor  # drawing order within its image, 0 first
    written: Tensor  # drawn from a skeleton (True) or from a sprite
    drawing: Tensor  # index into strokes.CHARACTERS or into the atlas
    centre: Tensor  # (object, 2) in [-1, 1]
    radius: Tensor  # half of the longer side; 1 = half the image
    bold: Tensor  # stroke radius (written) or growth of the outline (sprite), in units of `radius`
    aspect: Tensor  # sprite: width factor
    shear: Tensor
    rotation: Tensor  # radians
    wave: Tensor  # amplitude of the smooth distortion, units of radius
    texture: Tensor  # index into VALUES["texture"]
    colour: Tensor  # index into COLOURS


@dataclass
class Scene:
    """A batch to be painted. `views` is the ground truth, (image, 2, attribute)."""

    kind: Tensor
    views: Tensor
    objects: Objects


def contrasting(rng: Rng, given: Tensor) -> Tensor:
    """Random colours that can be told from `given` (both indices into COLOURS)."""
    far = (torch.cdist(RGB, RGB) > MIN_CONTRAST).float()
    return torch.multinomial(far[given], 1, generator=rng.generator)[:, 0]


def _code(attribute: str, value: str) -> int:
    return VALUES[attribute].index(value)


def _undefined_between(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, undefined between."""
    return torch.where(x < low, 0, torch.where(x > high, 1, -1))


def _cell(centre: Tensor) -> Tensor:
    """Index into POSITIONS of a centre, undefined near the border of two thirds."""
    third = torch.where(centre < -0.42, 0, torch.where(centre > 0.42, 2, 1))
    clear = ((centre.abs() < 0.2) | (centre.abs() > 0.42)).all(-1)
    return torch.where(clear, third[..., 1] * 3 + third[..., 0], -1)


def _alphabet(characters: tuple[str, ...]) -> Tensor:
    """Index into LETTERS of each character after the ten digits."""
    return torch.tensor([LETTERS.index(c.lower()) for c in characters[10:]])


def _slots(rng: Rng, kind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places of up to MAX_OBJECTS objects: number (n,), centre (n, MAX_OBJECTS, 2), radius (n, MAX_OBJECTS)."""
    n = kind.shape[0]
    number = torch.ones(n, dtype=torch.long)
    centre = torch.zeros(n, MAX_OBJECTS, 2)
    radius = torch.zeros(n, MAX_OBJECTS)
    # One object: fills the frame (as data sets of cropped digits do), or is smaller and anywhere it fits.
    fills = rng.chance(n, 0.5)
    glyph = kind <= KIND["printed letter"]
    single = torch.where(
        fills & glyph, rng.uniform(n, low=0.78, high=1.0),
        torch.where(fills, rng.uniform(n, low=0.6, high=0.95), rng.uniform(n, low=0.26, high=0.75)),
    )  # fmt: skip
    room = (0.98 - single).clamp(min=0)
    centred = rng.chance(n, 0.35) | fills
    place = rng.uniform(n, 2, low=-1, high=1) * torch.where(centred, room * 0.25, room)[:, None]
    centre[:, 0], radius[:, 0] = place, single
    # Several: distinct cells of a 3 x 3 grid, small enough not to touch.
    many = kind == KIND["count"]
    number[many] = 2 + rng.integers(int(many.sum()), MAX_OBJECTS - 1)
    cells = rng.permutations(n, 9, MAX_OBJECTS)
    grid = torch.stack([cells % 3 - 1, cells // 3 - 1], dim=-1) * 0.64 + rng.uniform(
        n, MAX_OBJECTS, 2, low=-0.05, high=0.05
    )
    centre[many] = grid[many]
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
    centre[pair, 0], centre[pair, 1] = first[pair], second[pair]
    radius[pair] = rng.uniform(n, MAX_OBJECTS, low=0.3, high=0.42)[pair]
    # Signs: a shape that fills most of the image (drawn first), a character on it.
    on = kind == KIND["sign"]
    number[on] = 2
    large = rng.uniform(n, low=0.7, high=0.97)
    centre[on, 0] = (rng.uniform(n, 2, low=-1, high=1) * (0.98 - large)[:, None])[on]
    centre[on, 1] = centre[on, 0]
    radius[on, 0], radius[on, 1] = large[on], (large * rng.uniform(n, low=0.36, high=0.5))[on]
    return number, centre, radius


def compose(rng: Rng, n: int, mix: str = "general") -> Scene:
    """Draw the content of n images; `mix` names one of `MIXES`."""
    kind = rng.choice(n, list(MIXES[mix].values()))
    number, centre, radius = _slots(rng, kind)
    present = torch.arange(MAX_OBJECTS)[None] < number[:, None]
    image, slot = present.nonzero(as_tuple=True)
    m = image.shape[0]
    k = kind[image]
    counted, paired, signed = (k == KIND[name] for name in ("count", "pair", "sign"))

    # What each object is. Objects of a "count" image are equal: shape, colour, texture are drawn once an image.
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
    # Shapes that hold a character: closed and wide enough.
    holder = torch.tensor([SHAPES.index(s) for s in ("circle", "square", "hexagon", "pentagon", "diamond", "heart")])
    shape = torch.where(signed, holder[rng.integers(m, len(holder))], rng.integers(n, len(SHAPES))[image])
    shape = torch.where(paired, rng.integers(m, len(SHAPES)), shape)
    drawing = torch.where(
        is_shape, sprites.shape_sprite(shape),
        torch.where(
            written, torch.where(is_digit, digit, written_letter),
            sprites.glyph_sprite(font, torch.where(is_digit, digit, printed_letter)),
        ),
    )  # fmt: skip

    # How it is drawn.
    angle = rng.normal(m, std=0.13).clamp(-0.35, 0.35)
    rotation = torch.where(is_shape, angle * 0.8, angle * torch.where(written, 0.7, 1.0))
    shear = torch.where(
        is_shape, torch.zeros(m), torch.where(written, rng.normal(m, std=0.24) + 0.1, rng.normal(m, std=0.15))
    )
    wave = torch.where(rng.chance(m, 0.6), torch.zeros(m), rng.uniform(m, high=0.08)) * ~is_shape
    wave = torch.where(written, rng.uniform(m, high=0.07), wave)
    aspect = torch.where(is_shape, torch.ones(m), rng.uniform(m, low=0.75, high=1.2))
    bold = torch.where(written, rng.uniform(m, low=0.07, high=0.26), rng.normal(m, std=0.03).clamp(-0.04, 0.07))
    bold = torch.where(is_shape, torch.zeros(m), bold)

    # Colours. Half of the characters are white on black or black on white, as scans are.
    grey = rng.chance(n, 0.55) & (kind <= KIND["printed letter"])
    on_black = rng.chance(n, 0.66)
    background = torch.where(grey, torch.where(on_black, BLACK, WHITE), rng.integers(n, len(COLOURS)))
    holder_colour = contrasting(rng, background)
    colour = contrasting(rng, torch.where(signed & (slot == 1), holder_colour[image], background[image]))
    colour = torch.where(counted, contrasting(rng, background)[image], colour)
    colour = torch.where(signed & (slot == 0), holder_colour[image], colour)
    ink = torch.where(
        on_black, torch.where(rng.chance(n, 0.85), WHITE, GRAY), torch.where(rng.chance(n, 0.85), BLACK, GRAY)
    )
    colour = torch.where(grey[image], ink[image], colour)
    texture = rng.choice(n, [0.5, 0.12, 0.08, 0.1, 0.06, 0.08, 0.06])[image]
    texture = torch.where(is_shape & ~signed & (radius[image, slot] > 0.34), texture, 0)
    hollow_ok = (shape != SHAPES.index("ring")) & (shape != SHAPES.index("crescent"))
    texture = torch.where((texture == _code("texture", "hollow")) & ~hollow_ok, 0, texture)

    objects = Objects(
        image, slot, written, drawing, centre[image, slot], radius[image, slot], bold, aspect, shear, rotation, wave,
        texture, colour,
    )  # fmt: skip

    # Ground truth, one row an object.
    truth = empty(m)

    def put(attribute: str, values: Tensor | int, where: Tensor | None = None) -> None:
        column = truth[:, COLUMN[attribute]]
        values = torch.as_tensor(values).to(truth.dtype).expand(m)
        truth[:, COLUMN[attribute]] = values if where is None else torch.where(where, values, column)

    letter = torch.where(
        written,
        _alphabet(strokes.CHARACTERS)[written_letter - 10],
        _alphabet(sprites.CHARACTERS)[printed_letter - 10],
    )
    capital = written | (printed_letter < 10 + len(sprites.UPPER))
    fonts = torch.tensor([f[1:] for f in sprites.FONTS])[font]
    put("digit", digit, is_digit)
    put("letter", letter, is_letter)
    put("case", capital, is_letter)
    put("family", torch.where(is_digit, 0, torch.where(is_letter, 1, 2)))
    put("script", (~written).long(), ~is_shape)
    put("font", fonts[:, 0], ~is_shape & ~written)
    put("weight", torch.where(written, _undefined_between(bold, 0.11, 0.19), fonts[:, 1] * 2 - 1), ~is_shape)
    lean = shear - rotation + 0.2 * fonts[:, 2] * ~written
    put("slant", _undefined_between(lean.abs(), 0.1, 0.3), ~is_shape)
    put("warp", _undefined_between(wave, 0.01, 0.055), ~is_shape)
    put("shape", shape, is_shape)
    put("colour", colour)
    put("texture", texture, is_shape & (radius[image, slot] > 0.34))
    put("size", _undefined_between(objects.radius, 0.42, 0.7))
    put("count", number[image] - 1, counted)
    put("count", 0, is_shape & ~counted & ~paired & ~signed)
    put("position", _cell(objects.centre), (objects.radius < 0.5) & ~counted & ~signed)
    put("background", background[image])

    # The two views of each image: its first object, and its second where there are two different ones.
    first = torch.zeros(n, dtype=torch.long).scatter_(0, image[slot == 0], (slot == 0).nonzero()[:, 0])
    double = (kind == KIND["pair"]) | (kind == KIND["sign"])
    second = torch.where(double, first + 1, first)
    views = torch.stack([truth[first], truth[second]], dim=1)
    offset = centre[:, 0] - centre[:, 1]
    horizontal = offset[:, 0].abs() > offset[:, 1].abs()
    relation = torch.where(
        kind == KIND["sign"], _code("relation", "behind"),
        torch.where(horizontal, (offset[:, 0] > 0).long(), 2 + (offset[:, 1] > 0).long()),
    )  # fmt: skip
    reverse = torch.tensor(REVERSED_RELATION)[relation]
    for view, (seen, other) in enumerate(((relation, second), (reverse, first))):
        views[double, view, COLUMN["relation"]] = seen[double].to(views.dtype)
        for name in ("digit", "shape", "colour"):
            views[double, view, COLUMN[f"other_{name}"]] = truth[other, COLUMN[name]][double]
    return Scene(kind, views, objects)
