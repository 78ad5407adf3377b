"""Preprocessing by a torchvision transform, as open_clip and timm ship it; PIL images are resized by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

__all__ = ["TransformPreprocess"]


class TransformPreprocess:
    """One PIL image in, (3, height, width) pixels out; `settings` are what the library made the transform from."""

    def __init__(self, transform: Callable[[Image.Image], Tensor], settings: Mapping[str, Any]) -> None:
        self._transform = transform
        self._settings = dict(settings)

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """The pixels of one image, float32, on the CPU."""
        return self._transform(image).to(torch.float32)

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, JSON-able, with the backend."""
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in self._settings.items()}
        return {"backend": "torchvision on pil", **settings}
