"""What a caller may give as images, made one of two things: a tensor of pixels, or a sequence of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from residualign.data.images import read_image, to_rgb
from residualign.data.split import Split
from residualign.errors import BadInputError

__all__ = ["Images", "Picture", "SplitImages", "given_images", "open_picture"]

Picture = Image.Image | str | os.PathLike[str] | NDArray[np.uint8]
"""One image: opened, by its path, or as an array (height, width, 3) of uint8."""

Images = Tensor | Picture | Iterable[Picture] | Split
"""Preprocessed pixels (image, 3, height, width), one picture, several, or a split of a data set."""

_TAKEN = (
    "images is a PIL image, a path or a (height, width, 3) array of uint8; a list or generator of these; a split, "
    "such as data.test; or a tensor of preprocessed pixels (image, 3, height, width)"
)


class SplitImages(Sequence[Image.Image]):
    """The images of a split as a sequence; each is read when it is asked for."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> SplitImages: ...
    def __getitem__(self, index: int | slice) -> Image.Image | SplitImages:
        if isinstance(index, slice):
            return SplitImages(self.split.take(range(len(self))[index]))
        return self.split.image(index)


def given_images(images: object) -> Tensor | Sequence[Any]:
    """A tensor as it is, everything else as a sequence that can be sliced; `BadInputError` for what is neither.

    A generator is read to its end. What a sequence holds is looked at when `open_picture` opens it.
    """
    if isinstance(images, Tensor | SplitImages):
        return images
    if isinstance(images, Split):
        return SplitImages(images)
    if isinstance(images, Image.Image | str | os.PathLike):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind in "biufc":
        return [images]
    if isinstance(images, Sequence) and not isinstance(images, bytes | bytearray | memoryview) and _slices(images):
        return images
    return list(_each(images))


def _slices(images: Sequence[Any]) -> bool:
    try:
        images[:0]
    except TypeError:
        # a deque
        return False
    return True


def _each(images: Any) -> Iterator[Any]:
    """The pictures of an iterable; refused at the first that is none, before the rest is read."""
    if isinstance(images, Mapping | Set | bytes | bytearray | memoryview):
        raise BadInputError(f"{_TAKEN}; got {_kind(images)}")
    try:
        pictures = iter(images)
    except TypeError:
        raise BadInputError(f"{_TAKEN}; got {_kind(images)}") from None
    for picture in pictures:
        _check_picture(picture)
        yield picture


def open_picture(picture: Picture) -> Image.Image:
    """One picture in RGB, by the rule of `residualign.data.images`; `BadInputError` for anything else."""
    _check_picture(picture)
    if isinstance(picture, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    return to_rgb(picture) if isinstance(picture, Image.Image) else read_image(picture)


def _check_picture(picture: object) -> None:
    if isinstance(picture, np.ndarray):
        # a picture without colours has no third axis
        fits = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
        if picture.dtype != np.uint8 or not fits or not picture.size:
            raise BadInputError(
                "an image as an array has the shape (height, width, 3) and dtype uint8, with values 0 to 255; got "
                f"shape {picture.shape} and dtype {picture.dtype}"
            )
    elif isinstance(picture, Tensor):
        raise BadInputError(
            "preprocessed pixels are given as one tensor (image, 3, height, width), not as a list of tensors; "
            "stack them (torch.stack)"
        )
    elif not isinstance(picture, Image.Image | str | os.PathLike):
        hint = ""
        if isinstance(picture, tuple | list | Mapping):
            hint = " (of a data set of records, give the images alone)"
        raise BadInputError(
            "every one of images is a PIL image, a path or a (height, width, 3) array of uint8; got "
            f"{_kind(picture)}{hint}"
        )


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]}.{kind.__name__}"
