"""Ground truth rows of a scene, from what was drawn."""

import torch
from torch import Tensor

from recipes.mini import sprites
from recipes.mini.attributes import COLUMN, REVERSED_RELATION, VALUES, empty
from recipes.mini.identity import Identity
from recipes.mini.kinds import KIND
from recipes.mini.looks import TEXTURED
from recipes.mini.objects import Objects


def _undefined_between(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, undefined between."""
    return torch.where(x < low, 0, torch.where(x > high, 1, -1))


def _cell(center: Tensor) -> Tensor:
    """Index into POSITIONS of a center, undefined near the border of two thirds."""
    third = torch.where(center < -0.42, 0, torch.where(center > 0.42, 2, 1))
    clear = ((center.abs() < 0.2) | (center.abs() > 0.42)).all(-1)
    return torch.where(clear, third[..., 1] * 3 + third[..., 0], -1)


def object_rows(kind: Tensor, background: Tensor, identity: Identity, objects: Objects) -> Tensor:
    """(object, attribute): what is true of each object and of its image's background."""
    m = objects.image.shape[0]
    k = kind[objects.image]
    counted, paired, signed = (k == KIND[name] for name in ("count", "pair", "sign"))
    truth = empty(m)

    def put(attribute: str, values: Tensor | int, where: Tensor | None = None) -> None:
        column = truth[:, COLUMN[attribute]]
        values = torch.as_tensor(values).to(truth.dtype).expand(m)
        truth[:, COLUMN[attribute]] = values if where is None else torch.where(where, values, column)

    fonts = torch.tensor([f[1:] for f in sprites.FONTS])[identity.font]
    put("digit", identity.digit, identity.is_digit)
    put("letter", identity.letter, identity.is_letter)
    put("case", identity.capital, identity.is_letter)
    put("family", torch.where(identity.is_digit, 0, torch.where(identity.is_letter, 1, 2)))
    put("script", (~identity.written).long(), ~identity.is_shape)
    put("font", fonts[:, 0], ~identity.is_shape & ~identity.written)
    put(
        "weight",
        torch.where(identity.written, _undefined_between(objects.bold, 0.11, 0.19), fonts[:, 1] * 2 - 1),
        ~identity.is_shape,
    )
    lean = objects.shear - objects.rotation + 0.2 * fonts[:, 2] * ~identity.written
    put("slant", _undefined_between(lean.abs(), 0.1, 0.3), ~identity.is_shape)
    put("warp", _undefined_between(objects.wave, 0.01, 0.055), ~identity.is_shape)
    put("shape", identity.shape, identity.is_shape)
    put("color", objects.color)
    put("texture", objects.texture, identity.is_shape & (objects.radius > TEXTURED))
    put("size", _undefined_between(objects.radius, 0.42, 0.7))
    put("count", torch.bincount(objects.image)[objects.image] - 1, counted)
    put("count", 0, identity.is_shape & ~counted & ~paired & ~signed)
    put("position", _cell(objects.center), (objects.radius < 0.5) & ~counted & ~signed)
    put("background", background[objects.image])
    return truth


def image_views(kind: Tensor, truth: Tensor, objects: Objects) -> Tensor:
    """(image, 2, attribute): rows of an image's first object and of its second, where there are two different ones."""
    n = kind.shape[0]
    first = torch.zeros(n, dtype=torch.long).scatter_(
        0, objects.image[objects.slot == 0], (objects.slot == 0).nonzero()[:, 0]
    )
    double = (kind == KIND["pair"]) | (kind == KIND["sign"])
    second = torch.where(double, first + 1, first)
    views = torch.stack([truth[first], truth[second]], dim=1)
    offset = objects.center[first] - objects.center[second]
    horizontal = offset[:, 0].abs() > offset[:, 1].abs()
    relation = torch.where(
        kind == KIND["sign"], VALUES["relation"].index("behind"),
        torch.where(horizontal, (offset[:, 0] > 0).long(), 2 + (offset[:, 1] > 0).long()),
    )  # fmt: skip
    reverse = torch.tensor(REVERSED_RELATION)[relation]
    for view, (seen, other) in enumerate(((relation, second), (reverse, first))):
        views[double, view, COLUMN["relation"]] = seen[double].to(views.dtype)
        for name in ("digit", "shape", "color"):
            views[double, view, COLUMN[f"other_{name}"]] = truth[other, COLUMN[name]][double]
    return views
