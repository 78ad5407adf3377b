"""What a checkpoint's own preprocessing and tokenizer make fits its towers, or the model is refused by one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests import random_models

import residualign as ra
from residualign.model_check import RefusedModel, check_model
from residualign.models.proof import fixed_pictures


def _with_settings(folder: Path, **changes: Any) -> Path:
    path = next(folder.glob("*processor_config.json"))
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"do_center_crop": False}, r"pixels of the shapes \(3, 26, 37\) and \(3, 43, 26\)"),
        ({"size": {"shortest_edge": 39}, "crop_size": {"height": 39, "width": 39}}, r"shape \(3, 39, 39\): .*39\*39"),
        ({"crop_size": {"height": 26, "width": 39}}, r"shape \(3, 26, 39\)"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "RGB picture of 160 x 112: mean must have 3"),
        ({"image_mean": [float("nan"), 0.5, 0.5]}, "NaN or infinite pixels"),
    ],
)
def test_preprocessing_that_does_not_fit_the_tower_is_refused_at_load(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = _with_settings(random_models.save_clip(tmp_path / "clip"), **changes)
    with pytest.raises(ra.BadInputError, match=says) as caught:
        ra.load_model(path)
    assert "\n" not in str(caught.value)
    checked = check_model(str(path))
    assert isinstance(checked, RefusedModel)
    assert checked.reason == str(caught.value)


def test_a_tower_for_oblong_images_works(tmp_path: Path) -> None:
    path = random_models.save_vit(tmp_path / "vit", image_size=(26, 39))
    model = ra.load_model(_with_settings(path, size={"height": 26, "width": 39}), dtype="float64")
    pixels = model.pixels(list(fixed_pictures()))
    assert model.tower.pixels_shape == (3, 26, 39) == tuple(pixels.shape[1:])
    with torch.no_grad():
        expected = model.module(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(model.encode_pixels(pixels), expected, rtol=0, atol=0)
    torch.testing.assert_close(ra.decompose(model, pixels).values.sum(dim=1), expected, rtol=1e-9, atol=1e-12)
    assert ra.locate(model, pixels, ["L1.H2"]).maps.shape[2:] == (2, 3)


def test_a_tower_for_one_channel_is_refused(tmp_path: Path) -> None:
    path = random_models.save_timm(tmp_path / "timm", in_chans=1)
    config = json.loads((path / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [1, 26, 26], "mean": [0.5], "std": [0.2]}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ra.BadInputError, match=r"shape \(3, 26, 26\): .* 1 channel"):
        ra.load_model(f"timm:local-dir:{path}")


def test_a_config_that_the_library_cannot_build_is_one_sentence(tmp_path: Path) -> None:
    path = random_models.save_clip(tmp_path / "clip")
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = "many"
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ra.BadInputError, match="could not be loaded") as caught:
        ra.load_model(path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_ids_beyond_the_text_tower_is_refused(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    path = random_models.save_clip(tmp_path / "clip")
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = len(tokenizer)
    # a placeholder that no text contains does no harm
    tokenizer.add_tokens(["<extra_id_0>"])
    tokenizer.save_pretrained(path)
    ra.load_model(path)
    tokenizer.add_special_tokens({"pad_token": "[NEW]"})
    tokenizer.save_pretrained(path)
    with pytest.raises(ra.BadInputError, match=rf"'\[NEW\]' with the id {rows + 1}, .* only {rows} rows"):
        ra.load_model(path)


def test_an_open_clip_vocabulary_beyond_the_text_tower_is_refused(tmp_path: Path) -> None:
    path = random_models.save_open_clip(tmp_path / "clip")
    model = ra.load_model(f"open_clip:local-dir:{path}")
    assert model.text is not None
    model.module.token_embedding = torch.nn.Embedding(49407, 6)
    with pytest.raises(ra.BadInputError, match=r"<end_of_text>' with the id 49407"):
        model.text.refuse_foreign_ids("mine")


def test_the_two_pictures_never_change() -> None:
    wide, high = fixed_pictures()
    assert (wide.mode, wide.size, high.size) == ("RGB", (160, 112), (90, 150))
    assert [picture.getpixel((57, 83)) for picture in (wide, high)] == [(62, 147, 232)] * 2
    assert isinstance(wide, Image.Image)
