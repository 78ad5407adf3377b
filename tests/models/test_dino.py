"""DINOv2 and DINOv3: what differs from other towers, and DINOv3's own order of preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests import random_models

import residualign as ra
from residualign.models.preprocess import RescaleFirst, is_rescale_first

SETTINGS = {"size": {"height": 23, "width": 31}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}


def _image(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [(97, 61), (17, 19), (31, 23)])
def test_dinov3_pixels_are_pillows_resized_as_floats(size: tuple[int, int], resample: Image.Resampling) -> None:
    image = _image(*size)
    found = RescaleFirst({**SETTINGS, "resample": int(resample)}, "x")(image)["pixel_values"][0]
    for i, (mean, std) in enumerate(zip(SETTINGS["image_mean"], SETTINGS["image_std"], strict=True)):
        channel = Image.fromarray(np.asarray(image)[:, :, i].astype(np.float32) / 255)
        expected = (np.asarray(channel.resize((31, 23), resample)) - mean) / std
        assert abs(found[i].numpy() - expected).max() < 2e-6


@pytest.mark.parametrize("size", [(97, 61), (17, 19), (31, 23), (500, 375)])
def test_dinov3_pixels_are_those_of_the_librarys_torchvision_processor_bit_for_bit(size: tuple[int, int]) -> None:
    from transformers import DINOv3ViTImageProcessor

    library = DINOv3ViTImageProcessor(size={"height": 23, "width": 31})
    image = _image(*size)
    expected = library(images=image, return_tensors="pt")["pixel_values"]
    assert torch.equal(RescaleFirst(library.to_dict(), "x")(image)["pixel_values"], expected)


@pytest.mark.parametrize(
    "change", [{"do_center_crop": True}, {"do_rescale": False}, {"size": {"shortest_edge": 9}}, {"resample": 0}]
)
def test_other_settings_of_that_processor_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ra.BadInputError, match=r"model 'x'.*not supported"):
        RescaleFirst({**SETTINGS, **change}, "x")


def test_which_processor_it_stands_for() -> None:
    assert is_rescale_first({"image_processor_type": "DINOv3ViTImageProcessor"})
    assert is_rescale_first({"image_processor_type": "DINOv3ViTImageProcessorFast"})
    assert not is_rescale_first({"image_processor_type": "ViTImageProcessor"})
    assert not is_rescale_first({})


def test_a_dinov3_says_how_it_preprocesses(tmp_path: Path) -> None:
    model = ra.load_model(random_models.save_dinov3(tmp_path / "model"))
    described = model.preprocess.describe()
    assert described["backend"] == "torch"
    assert described["order"] == "rescale, resize, normalize"
    assert json.loads(json.dumps(described)) == described
    assert model.pixels([_image(41, 29)]).shape == (1, 3, 26, 26)


def test_the_probe_has_the_size_of_preprocessed_images(tmp_path: Path) -> None:
    model = ra.load_model(random_models.save_dinov2(tmp_path / "model"))
    assert model.module.config.image_size == 39
    assert model.tower.image_size == model.pixels([_image(50, 70)]).shape[-1] == 26


@pytest.mark.parametrize(
    "tensor", ["embeddings.register_tokens", "encoder.layer.1.layer_scale2.lambda1", "embeddings.position_embeddings"]
)
def test_every_weight_that_decides_is_in_the_fingerprint(tmp_path: Path, tensor: str) -> None:
    folder = random_models.save_dinov2(tmp_path / "model", registers=2)
    before = ra.load_model(folder).fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].flatten()[0].add_(0.125)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert ra.load_model(folder).fingerprint != before


def test_the_mask_token_is_not_part_of_the_tower(tmp_path: Path) -> None:
    folder = random_models.save_dinov2(tmp_path / "model")
    model = ra.load_model(folder)
    named = {id(tensor) for tensor in model.tower.tensors.values()}
    left_out = [
        name
        for name, parameter in model.module.named_parameters()
        if not any(parameter.data_ptr() == tensor.data_ptr() for tensor in model.tower.tensors.values())
    ]
    assert left_out == ["embeddings.mask_token"]
    assert len(named) == len(model.tower.tensors)


def test_a_dino_is_adapted_with_class_means(tmp_path: Path) -> None:
    model = ra.load_model(random_models.save_dinov3(tmp_path / "model"))
    assert not model.has_text
    data = ra.load_data(random_models.save_two_colors(tmp_path / "images"))
    adapter = ra.fit(model, data, method="residual-heads", workers=0)
    adapter.save(tmp_path / "adapter")
    images = [data.test.image(i) for i in range(len(data.test))]
    assert ra.load_adapter(tmp_path / "adapter").predict(images) == adapter.predict(images)
    assert adapter.accuracy["adapted"] >= adapter.accuracy["zero_shot"]
