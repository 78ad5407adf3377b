"""What is recorded of a model's preprocessing in stores and adapters, compared with what a model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PIXELS", "preprocessing_differences"]

PIXELS = "pixels"
"""The key under which some pixels of a fixed picture are recorded."""

# all that versions before `PIXELS` recorded of a processor; of a transform they recorded everything
_RECORDED_BEFORE = frozenset(
    {"backend", "do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale"}
    | {"rescale_factor", "do_normalize", "image_mean", "image_std", "do_pad", "pad_size", "order"}
)

# of the range of the pixels: above the rounding of different machines, below one step of 8 bits in every pixel
_TOLERANCE = 0.01


def preprocessing_differences(
    recorded: Mapping[str, Any] | None, found: Mapping[str, Any] | None
) -> list[tuple[str, Any, Any]]:
    """(setting, what is recorded, what is found) of each that differs; empty where pixels are the same.

    Settings first; where these agree, the pixels of the fixed picture, which also depend on the libraries. What an
    older version did not record is not compared.
    """
    wanted, got = dict(recorded or {}), dict(found or {})
    expected, made = wanted.pop(PIXELS, None), got.pop(PIXELS, None)
    is_old = expected is None or made is None
    keys = sorted({*wanted, *got})
    if is_old:
        keys = [key for key in keys if (key in wanted and key in got) or key in _RECORDED_BEFORE]
    different = [(key, wanted.get(key), got.get(key)) for key in keys if wanted.get(key) != got.get(key)]
    if different or is_old:
        return different
    low, high = min(expected), max(expected)
    off = max((abs(a - b) for a, b in zip(expected, made, strict=False)), default=0.0)
    if len(expected) == len(made) and off <= _TOLERANCE * (high - low):
        return []
    return [("the pixels of a fixed picture", f"{low:.3g} to {high:.3g}", f"off by up to {off:.2g}")]
