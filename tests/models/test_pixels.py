"""Pixels are the checkpoint's own: bit for bit those of the processor or transform that comes with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from tests import random_models
from torch import Tensor
from transformers import AutoImageProcessor

import residualign as ra
from residualign.models.vision_model import VisionModel

SAVERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "clip": ("", random_models.save_clip),
    "siglip": ("", random_models.save_siglip),
    "vit": ("", random_models.save_vit),
    "dinov2": ("", random_models.save_dinov2),
    "open_clip": ("open_clip:local-dir:", random_models.save_open_clip),
    "timm": ("timm:local-dir:", random_models.save_timm),
}
# what a processor makes of these modes is Pillow's conversion, and ours too
MODES = ["RGB", "L", "LA", "RGBA", "P", "CMYK", "1"]
SIZES = [(37, 53), (26, 26), (91, 17), (5, 3)]


@pytest.fixture(scope="module", params=SAVERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionModel, Any]:
    """A model, and the pixels that its library makes of an image."""
    prefix, saver = SAVERS[request.param]
    path = saver(tmp_path_factory.mktemp("models") / "model")
    model = ra.load_model(f"{prefix}{path}")
    return model, _library(request.param, path)


def _library(family: str, path: Path) -> Callable[[Image.Image], Tensor]:
    if family == "open_clip":
        transform: Any = open_clip.create_model_from_pretrained(f"local-dir:{path}")[1]
        # open_clip converts after resizing: a palette is resized by nearest neighbors, black and white stays so
        return lambda image: transform(image.convert("RGB"))
    if family == "timm":
        settings = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{path}", pretrained=True))
        transform = timm.data.create_transform(**settings, is_training=False)
        # timm's transform takes RGB and converts nothing
        return lambda image: transform(image.convert("RGB"))
    processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    return lambda image: processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_the_librarys_bit_for_bit(pair: tuple[VisionModel, Any], mode: str, size: tuple[int, int]) -> None:
    model, library = pair
    noise = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA").convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(noise)
    assert torch.equal(model.pixels([image])[0], library(image))


def test_deep_grays_and_orientation_follow_our_own_rule(pair: tuple[VisionModel, Any], tmp_path: Path) -> None:
    """The two in which libraries differ or clip: 16 bits are scaled, and EXIF's orientation is applied."""
    model, library = pair
    deep = np.random.default_rng(1).integers(0, 65536, (31, 29), dtype=np.uint16)
    shallow = Image.fromarray(np.rint(deep / 257).astype(np.uint8)).convert("RGB")
    assert torch.equal(model.pixels([Image.fromarray(deep)])[0], library(shallow))
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (23, 41, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # stands on its side: to be turned by 270 degrees counterclockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(model.pixels([tmp_path / "turned.png"])[0], library(upright))
