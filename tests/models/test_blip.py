"""BLIP for image-text retrieval: the library's own scores, the weights, the words, and the BLIPs that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests import random_models
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipModel,
)

import residualign as ra
from residualign.decomposition.trace import trace_coordinates

TEXTS = ["a photo of a cat", "dog", "the digit zero one two . a a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_blip(tmp_path_factory.mktemp("models") / "blip")


def test_scores_are_the_librarys_own(folder: Path) -> None:
    """Image and text embeddings, normalized, against the matching scores of the contrastive head."""
    model = ra.load_model(folder, dtype="float64")
    library = BlipForImageTextRetrieval.from_pretrained(folder).double().eval()
    tokens = random_models._bert_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    pixels = model.tower.probe(3, seed=3)
    with torch.no_grad():
        expected = library(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixels,
            use_itm_head=False,
        ).itm_score
    images = torch.nn.functional.normalize(model.encode_pixels(pixels), dim=-1)
    texts = torch.nn.functional.normalize(model.encode_text(TEXTS), dim=-1)
    torch.testing.assert_close(images @ texts.T, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_embedding_is_the_librarys_bit_for_bit_and_not_normalized(folder: Path, dtype: str) -> None:
    model = ra.load_model(folder, dtype=dtype)
    library = BlipForImageTextRetrieval.from_pretrained(folder).to(model.dtype).eval()
    pixels = model.tower.probe(3, seed=3)
    with torch.no_grad():
        expected = library.vision_proj(library.vision_model(pixel_values=pixels).last_hidden_state[:, 0])
    traced = trace_coordinates(model.tower, pixels).output
    assert torch.equal(model.encode_pixels(pixels), expected)
    assert torch.equal(traced, expected.to(traced.dtype))
    assert not torch.allclose(expected.float().norm(dim=-1), torch.ones(3), atol=0.1)


def test_the_projections_bias_belongs_to_the_units(folder: Path) -> None:
    """A bias that is larger than all else: the units still add up, and each group holds its share of it."""
    model = ra.load_model(folder, dtype="float64")
    pixels = model.tower.probe(2)
    before = ra.decompose(model, pixels)
    with torch.no_grad():
        model.module.vision_proj.bias.add_(100.0)
    after = ra.decompose(model, pixels)
    assert after.residual_error < 1e-10
    torch.testing.assert_close(after["L1.mlp"] - before["L1.mlp"], torch.full((2, 11), 100 / 7, dtype=torch.float64))
    torch.testing.assert_close(after["L1.H3"] - before["L1.H3"], torch.full((2, 11), 100 / 35, dtype=torch.float64))


def test_positions_are_interpolated_as_the_library_does(folder: Path) -> None:
    model = ra.load_model(folder, dtype="float64")
    library = model.module
    pixels = torch.randn(2, 3, 39, 13, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        hidden = library.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        expected = library.vision_proj(hidden[:, 0])
        # without it the library takes the first positions of another grid, silently
        other = library.vision_proj(library.vision_model(pixel_values=pixels).last_hidden_state[:, 0])
    assert torch.equal(model.encode_pixels(pixels), expected)
    assert not torch.allclose(expected, other)


def test_every_weight_of_the_image_half_is_in_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    model = ra.load_model(folder)
    halves = (model.module.vision_model, model.module.vision_proj)
    n_weights = sum(parameter.numel() for half in halves for parameter in half.parameters())
    assert sum(tensor.numel() for tensor in model.tower.tensors.values()) == n_weights
    other = _copy(folder, tmp_path / "other")
    _change(other, lambda tensors: tensors["vision_proj.bias"][0].add_(0.125))
    assert ra.load_model(other).fingerprint != model.fingerprint


@pytest.mark.parametrize(("place", "part"), [(0, "query"), (1, "key"), (2, "value")])
def test_nan_in_the_packed_matrix_is_named_by_its_part(folder: Path, tmp_path: Path, place: int, part: str) -> None:
    bad = _copy(folder, tmp_path / "nan")
    at = "vision_model.encoder.layers.1.self_attn.qkv.weight"
    _change(bad, lambda tensors: tensors[at][place * 35].fill_(float("nan")))
    with pytest.raises(ra.BadInputError, match=rf"block\.1\.{part}\.weight"):
        ra.load_model(bad)


def test_text_and_logit_scale(folder: Path) -> None:
    model = ra.load_model(folder, dtype="float64")
    assert model.has_text
    assert model.logit_scale == pytest.approx(1 / 0.07)
    alone = model.encode_text(["a cat"])
    beside = model.encode_text(["a cat", "a photo of the digit zero one two dog . " * 3])
    assert beside.shape == (2, 11)
    torch.testing.assert_close(alone[0], beside[0], rtol=1e-12, atol=1e-12)
    assert model.unknown_words(["cat", "aardvark"]) == ["aardvark"]


def test_pixels_are_those_of_the_checkpoints_own_processor(folder: Path) -> None:
    model = ra.load_model(folder)
    image = Image.effect_noise((41, 29), 90).convert("RGB")
    expected = BlipImageProcessorPil.from_pretrained(folder)(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(model.preprocess(image), expected)
    assert model.preprocess.describe()["backend"] == "pil"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (BlipForConditionalGeneration, "BlipForConditionalGeneration, a captioning model, which has no projection"),
        (BlipForQuestionAnswering, "BlipForQuestionAnswering, a question answering model, which has no projection"),
        (BlipModel, "BlipModel, which norms its class token twice"),
    ],
)
def test_other_blips_are_refused_by_their_name(tmp_path: Path, kind: Any, says: str) -> None:
    saved = random_models.save_blip(tmp_path / "model", kind=kind)
    with pytest.raises(ra.BadInputError, match=says) as caught:
        ra.load_model(saved)
    assert "expected a BlipForImageTextRetrieval" in str(caught.value)


def test_a_captioning_model_whose_config_does_not_say_so_lacks_the_projection(tmp_path: Path) -> None:
    saved = random_models.save_blip(tmp_path / "model", kind=BlipForConditionalGeneration)
    config = json.loads((saved / "config.json").read_text())
    del config["architectures"]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ra.BadInputError, match="weights file lacks"):
        ra.load_model(saved)


# a random text half hardly tells one word from another
@pytest.mark.filterwarnings("ignore::residualign.classification.classifier.CoincidentClassesWarning")
def test_a_blip_is_adapted_by_its_words(folder: Path, tmp_path: Path) -> None:
    model = ra.load_model(folder)
    data = ra.load_data(random_models.save_two_colors(tmp_path / "images"))
    adapter = ra.fit(model, data, method="residual-heads", workers=0)
    assert adapter.accuracy["adapted"] >= adapter.accuracy["zero_shot"]
    adapter.save(tmp_path / "adapter")
    images = [data.test.image(i) for i in range(len(data.test))]
    assert torch.equal(ra.load_adapter(tmp_path / "adapter").predict_proba(images), adapter.predict_proba(images))


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def _change(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
