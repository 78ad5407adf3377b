"""How an image becomes the pixels a checkpoint was trained on: the processor that ships with it, PIL backend always.

The one without a PIL backend, DINOv3's, is in `rescale_first`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, ImageProcessingMixin

from residualign.errors import BadInputError
from residualign.models.rescale_first import RescaleFirst, is_rescale_first

__all__ = ["Preprocess", "load_preprocess"]

# What decides the pixels; the rest of a processor's file is bookkeeping that differs between library versions.
_DECISIVE = (
    "do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std", "do_pad", "pad_size", "order",
)  # fmt: skip


class Preprocess:
    """One PIL image in, (3, height, width) pixels out. `describe()` is what a store and an adapter record of it.

    The PIL backend is asked for by name: the library's default turns to torchvision once that is installed and moves
    pixels by up to .015, so an optional package would change embeddings.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """The pixels of one image, float32, on the CPU."""
        pixels: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.to(torch.float32)

    def image_size(self) -> int:
        """Height (and width) of the pixels it yields, of a square image."""
        return int(self(Image.new("RGB", (64, 64))).shape[-1])

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, JSON-able, with the backend."""
        settings = self._processor.to_dict()
        described = {key: _plain(settings[key]) for key in _DECISIVE if settings.get(key) is not None}
        return {"backend": getattr(self._processor, "backend", "pil"), **described}


def _plain(value: Any) -> Any:
    """A setting as JSON would give it back: tuples are lists, enumerations numbers, size objects mappings."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    return value


def load_preprocess(path: str, name: str) -> Preprocess:
    """The image processor of a checkpoint (local directory or hub id); `BadInputError` where it ships none."""
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path)
        if is_rescale_first(settings):
            return Preprocess(RescaleFirst(settings, name))
        processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(
            f"model {name!r} has no readable image preprocessing; expected the preprocessor_config.json "
            f"that ships with the checkpoint ({type(error).__name__})"
        ) from error
    return Preprocess(processor)
