"""DINOv3's preprocessing, which has no PIL backend in transformers: rescale, then resize, then normalise.

Every other checkpoint resizes 8-bit pixels and rescales after it. Here floats are resized, antialiased, by torch's own
kernel, which is what torchvision's calls: the pixels are the library's bit for bit, and nothing beyond torch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError

__all__ = ["RescaleFirst", "is_rescale_first"]

_MODES = {2: "bilinear", 3: "bicubic"}


def is_rescale_first(settings: Mapping[str, Any]) -> bool:
    """Whether these are the settings of transformers' `DINOv3ViTImageProcessor` (in older files with suffix Fast)."""
    kind = settings.get("image_processor_type")
    return isinstance(kind, str) and kind.removesuffix("Fast") == "DINOv3ViTImageProcessor"


class RescaleFirst:
    """Called like a transformers image processor, for one image. `BadInputError` for settings it does not know."""

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
                "do_resize to a height and a width, do_rescale and do_normalize, and no crop"
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
