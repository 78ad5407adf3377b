"""Chinese-CLIP and AltCLIP: CLIP's image half with another text half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import random_models
from transformers import AltCLIPModel, AutoTokenizer, ChineseCLIPModel

import residualign as ra

FAMILIES: dict[str, tuple[Callable[[Path], Path], Any]] = {
    "chinese-clip": (random_models.save_chinese_clip, ChineseCLIPModel),
    "altclip": (random_models.save_altclip, AltCLIPModel),
}


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    save, kind = FAMILIES[request.param]
    return save(tmp_path_factory.mktemp("models") / request.param), kind


def test_logits_are_the_librarys_own(saved: tuple[Path, Any]) -> None:
    folder, kind = saved
    model = ra.load_model(folder, dtype="float64")
    library = kind.from_pretrained(folder).double().eval()
    pixels = model.tower.probe(3, seed=3)
    texts = ["a photo of a cat", "dog"]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = library(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels
        ).logits_per_image
    images = torch.nn.functional.normalize(model.encode_pixels(pixels), dim=-1)
    words = torch.nn.functional.normalize(model.encode_text(texts), dim=-1)
    torch.testing.assert_close(model.logit_scale * images @ words.T, output, rtol=1e-10, atol=1e-12)


def test_long_texts_are_cut_where_the_positions_end(saved: tuple[Path, Any]) -> None:
    model = ra.load_model(saved[0], dtype="float64")
    long = "a photo of the digit zero one two dog . " * 5
    cut = " ".join(long.split()[:11])
    torch.testing.assert_close(model.encode_text([long]), model.encode_text([cut]), rtol=1e-12, atol=1e-12)
    alone = model.encode_text(["a cat"])
    torch.testing.assert_close(model.encode_text(["a cat", long])[:1], alone, rtol=1e-12, atol=1e-12)


def test_every_weight_of_the_image_half_is_in_the_fingerprint(saved: tuple[Path, Any]) -> None:
    model = ra.load_model(saved[0])
    halves = (model.module.vision_model, model.module.visual_projection)
    n_weights = sum(parameter.numel() for half in halves for parameter in half.parameters())
    assert sum(tensor.numel() for tensor in model.tower.tensors.values()) == n_weights


def test_pixels_come_by_the_pil_backend(saved: tuple[Path, Any]) -> None:
    model = ra.load_model(saved[0])
    assert model.preprocess.describe()["backend"] == "pil"
    assert model.tower.image_size == 26
    assert model.tower.pixels_shape == (3, 26, 26)
