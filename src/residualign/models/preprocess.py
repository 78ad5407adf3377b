"""From an image to the pixels a checkpoint expects: by the processor that comes with it, always on PIL.

DINOv3's processor has no PIL backend; `RescaleFirst` does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from transformers import AutoImageProcessor, ImageProcessingMixin

from residualign.errors import BadInputError
from residualign.models.trust import check_sizes

__all__ = ["Preprocess", "RescaleFirst", "TransformPreprocess", "is_rescale_first", "load_preprocess"]

# What does not decide the pixels: classes, versions and how a batch comes back. Everything else may.
_BOOKKEEPING = frozenset(
    {"image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map", "_auto_class"}
    | {"transformers_version", "device", "return_tensors", "data_format", "input_data_format", "disable_grouping"}
    | {"model_input_names", "image_seq_length", "num_image_tokens", "name_or_path", "_name_or_path"}
)


class Preprocess:
    """A transformers image processor: one PIL image in, (3, height, width) pixels out.

    The PIL backend is requested by name: the library switches to torchvision once that is installed, which changes
    pixels by up to .015, so that an optional package would change embeddings.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """The pixels of one image, float32, on the CPU."""
        pixels: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.to(torch.float32)

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, as JSON values, with the backend."""
        settings = self._processor.to_dict()
        described = {
            key: _plain(value)
            for key, value in sorted(settings.items())
            if value is not None and key not in _BOOKKEEPING
        }
        return {"backend": getattr(self._processor, "backend", "pil"), **described}


def _plain(value: Any) -> Any:
    """A setting as JSON returns it: tuples as lists, enumerations as numbers, size objects as mappings."""
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
    """The image processor of a checkpoint (local directory or hub id); `BadInputError` if it has none."""
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path)
        check_sizes(settings, f"the image preprocessing of model {name!r}")
        if is_rescale_first(settings):
            return Preprocess(RescaleFirst(settings, name))
        processor = AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)
    except BadInputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(
            f"model {name!r} has no readable image preprocessing; expected the preprocessor_config.json "
            f"that comes with the checkpoint ({type(error).__name__})"
        ) from error
    return Preprocess(processor)


@dataclass(frozen=True, eq=False)
class TransformPreprocess:
    """A torchvision transform: one PIL image in, (3, height, width) pixels out; settings: what it was made from."""

    transform: Callable[[Image.Image], Tensor]
    settings: Mapping[str, Any]

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """The pixels of one image, float32, on the CPU."""
        return self.transform(image).to(torch.float32)

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, as JSON values, with the backend."""
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in self.settings.items()}
        return {"backend": "torchvision on pil", **settings}


_MODES = {2: "bilinear", 3: "bicubic"}


def is_rescale_first(settings: Mapping[str, Any]) -> bool:
    """Whether these are settings of transformers' `DINOv3ViTImageProcessor` (with suffix Fast in older files)."""
    kind = settings.get("image_processor_type")
    return isinstance(kind, str) and kind.removesuffix("Fast") == "DINOv3ViTImageProcessor"


class RescaleFirst:
    """DINOv3's processor for one image, called like transformers' own. `BadInputError` for unknown settings."""

    backend = "torch"

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        self._settings: dict[str, Any] = {"do_resize": True, "do_rescale": True, "do_normalize": True}
        self._settings |= {"rescale_factor": 1 / 255, "resample": 2, "order": "rescale, resize, normalize"}
        self._settings |= {key: value for key, value in settings.items() if value is not None}
        size, resample = self._settings.get("size", {}), self._settings["resample"]
        steps = all(self._settings[step] is True for step in ("do_resize", "do_rescale", "do_normalize"))
        known = steps and not settings.get("do_center_crop") and {"height", "width"} <= set(size) and resample in _MODES
        if not known or not {"image_mean", "image_std"} <= set(self._settings):
            raise BadInputError(
                f"model {name!r}: its preprocessing is DINOv3's with settings that are not supported; expected "
                "do_resize to a height and a width, do_rescale and do_normalize, and do_center_crop off"
            )
        self._size = (int(size["height"]), int(size["width"]))
        self._mode = _MODES[resample]

    def __call__(self, images: Image.Image, return_tensors: str = "pt") -> dict[str, Tensor]:
        """{"pixel_values": (1, 3, height, width)}, float32."""
        pixels = torch.from_numpy(np.array(images.convert("RGB"))).permute(2, 0, 1).contiguous()[None]
        pixels = pixels * self._settings["rescale_factor"]
        pixels = F.interpolate(pixels, size=self._size, mode=self._mode, align_corners=False, antialias=True)
        mean, std = (
            torch.tensor(self._settings[key], dtype=pixels.dtype)[:, None, None] for key in ("image_mean", "image_std")
        )
        return {"pixel_values": (pixels - mean) / std}

    def to_dict(self) -> dict[str, Any]:
        """The settings, with the order of the steps."""
        return dict(self._settings)
