"""Two pictures of different shape through a checkpoint's own preprocessing and tower, before a model is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from residualign.errors import BadInputError
from residualign.models.hub import not_loaded

__all__ = ["fitting_pixels", "fixed_pictures", "picture_pixels", "pixel_sample"]

_SIZES = ((160, 112), (90, 150))


@cache
def fixed_pictures() -> tuple[Image.Image, Image.Image]:
    """A wide and a high picture, RGB, in which every spatial frequency occurs; integer arithmetic, so never another."""
    made = []
    for width, height in _SIZES:
        y, x, channel = np.mgrid[:height, :width, :3]
        values = (3 * x * x // 40 + 5 * y * y // 60 + x * y // 9 + 85 * channel) % 256
        made.append(Image.fromarray(values.astype(np.uint8)))
    return made[0], made[1]


def picture_pixels(
    preprocess: Callable[[Image.Image], Tensor], name: str
) -> Float[Tensor, "image channel height width"]:
    """The pixels of both pictures; `BadInputError` where they have different shapes, are not finite, or cannot be made.

    name: of the model, in error messages.
    """
    made = []
    for picture in fixed_pictures():
        try:
            made.append(preprocess(picture))
        except BadInputError:
            raise
        except Exception as error:
            # processors raise whatever their settings lead to
            shape = f"{picture.width} x {picture.height}"
            raise not_loaded(
                name, f"with its preprocessing, which fails for an RGB picture of {shape}", error
            ) from error
    first, second = (tuple(pixels.shape) for pixels in made)
    if first != second or len(first) != 3:
        raise BadInputError(
            f"model {name!r}: its preprocessing makes pixels of the shapes {first} and {second} of two pictures; "
            "expected one (channels, height, width) for all; set do_center_crop, or a size with height and width, "
            "in its preprocessor_config.json"
        )
    pixels = torch.stack(made)
    if not torch.isfinite(pixels).all():
        raise BadInputError(
            f"model {name!r}: its preprocessing makes NaN or infinite pixels; check the mean and std of its settings"
        )
    return pixels


_GRID = 4


def pixel_sample(preprocess: Callable[[Image.Image], Tensor]) -> list[float]:
    """Pixels of the wide picture at 4 x 4 places, channel by channel: they tell one preprocessing from another.

    Numbers and not a checksum, because machines differ in the last bits.
    """
    pixels = preprocess(fixed_pictures()[0])
    height, width = pixels.shape[-2:]
    rows, columns = ([size * (2 * i + 1) // (2 * _GRID) for i in range(_GRID)] for size in (height, width))
    return [round(value, 4) for value in pixels[:, rows][:, :, columns].double().flatten().tolist()]


@contextmanager
def fitting_pixels(pixels: Tensor, name: str) -> Iterator[None]:
    """`BadInputError` where a tower does not take, in here, the pixels that the checkpoint's preprocessing makes."""
    try:
        yield
    except (BadInputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # each library says in its own way that the size or the number of channels is not its own
        shape = tuple(pixels.shape[1:])
        how = f"with its preprocessing, which makes pixels (channels, height, width) of the shape {shape}"
        raise not_loaded(name, how, error) from error
