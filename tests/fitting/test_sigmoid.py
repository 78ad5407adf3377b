"""SigLIP's sigmoid: logit scale and bias in the classifier, in the loss, in what is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import residualign as ra
from residualign.classification.classifier import Classifier
from residualign.cli import main
from residualign.fitting.coefficients import Features
from residualign.fitting.objective import Objective
from residualign.models.vision_model import VisionModel
from tests import random_models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    return ra.load_model(random_models.save_siglip(tmp_path_factory.mktemp("models") / "siglip"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_two_colors(tmp_path_factory.mktemp("data") / "colors", n=11)


def test_the_model_says_its_scale_and_bias(model: VisionModel, tmp_path: Path) -> None:
    assert model.logit_scale == pytest.approx(np.exp(2.0))
    assert model.logit_bias == pytest.approx(-3.0)
    assert ra.load_model(random_models.save_clip(tmp_path / "clip")).logit_bias is None


def test_probabilities_are_those_of_the_library(model: VisionModel) -> None:
    texts, pixels = ["a photo of the cat", "dog", "one two"], model.tower.probe(5)
    tokens = model.text._tokenizer(texts, padding="max_length", max_length=13, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = torch.sigmoid(model.module(pixel_values=pixels, input_ids=tokens).logits_per_image)
    vectors = torch.nn.functional.normalize(model.encode_text(texts), dim=-1)
    classifier = Classifier("text", tuple(texts), vectors, model.logit_scale, logit_bias=model.logit_bias)
    found = classifier.sigmoid(classifier.logits(model.encode_pixels(pixels)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_capitals_change_no_text_embedding(model: VisionModel) -> None:
    assert torch.equal(model.encode_text(["A photo of the CAT"]), model.encode_text(["a photo of the cat"]))
    assert model.unknown_words(["The Cat", "a zebra"]) == ["a zebra"]


def test_the_loss_is_a_sum_of_binary_cross_entropies() -> None:
    generator = torch.Generator().manual_seed(0)
    rest = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    vectors = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator, dtype=torch.float64), dim=-1)
    labels = torch.tensor([0, 6, 2, 2, 5])
    empty = torch.zeros(5, 0, dtype=torch.float64)
    features = Features(rest, torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long), empty, True)
    objective = Objective(features, labels, vectors, 11.0, logit_bias=-2.5)
    by_hand = 0.0
    for row, label in zip(rest.numpy(), labels.tolist(), strict=True):
        for c, vector in enumerate(vectors.numpy()):
            z = 11.0 * row @ vector / np.linalg.norm(row) - 2.5
            by_hand += np.log1p(np.exp(-z if c == label else z)) / 5
    assert float(objective.cross_entropy({}, slice(None))) == pytest.approx(by_hand, rel=1e-12)
    assert objective.score({}).loss == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("method", ["residual", "joint", "linear"])
def test_fitting_with_it_gives_probabilities_of_their_own(
    model: VisionModel, folder: Path, tmp_path: Path, method: str
) -> None:
    data = ra.load_data(folder, classes=["cat", "dog"])
    store = ra.extract(model, data, tmp_path / "store")
    adapter = ra.fit(store, method=method, loss="sigmoid")
    assert adapter.accuracy["adapted"] > 0.9
    adapter.save(tmp_path / "adapter")
    images = list(data.test.images())
    expected = adapter.predict_proba(images)
    wanted = torch.nn.functional.one_hot(torch.tensor(data.test.labels), 2).float()
    by_softmax = ra.fit(store, method=method)
    other = by_softmax.classifier.sigmoid(by_softmax.logits(images))
    loss, other_loss = (torch.nn.functional.binary_cross_entropy(p, wanted) for p in (expected, other))
    assert loss < other_loss
    assert not torch.allclose(expected.sum(dim=1), torch.ones(len(images)), atol=1e-4)
    again = ra.load_adapter(tmp_path / "adapter", model=model)
    torch.testing.assert_close(again.predict_proba(images), expected, rtol=1e-5, atol=1e-6)


def test_a_softmax_does_not_see_the_bias(model: VisionModel, folder: Path, tmp_path: Path) -> None:
    adapter = ra.fit(
        ra.extract(model, ra.load_data(folder, classes=["cat", "dog"]), tmp_path / "store"), method="coarse"
    )
    probabilities = adapter.predict_proba(model.tower.probe(3))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


def test_models_without_a_bias_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = str(random_models.save_clip(tmp_path / "clip"))
    out = str(tmp_path / "out")
    names = tmp_path / "names.yaml"
    names.write_text("[cat, dog]")
    assert main(["adapt", clip, str(folder), "--out", out, "--loss", "sigmoid", "--classes", str(names)]) == 2
    assert "the sigmoid needs a logit bias" in capsys.readouterr().err
    siglip = str(random_models.save_siglip(tmp_path / "siglip"))
    arguments = [
        "adapt",
        siglip,
        str(folder),
        "--out",
        f"{out}2",
        "--loss",
        "sigmoid",
        "--json",
        "--classes",
        str(names),
    ]
    assert main([*arguments, "--classifier", "means"]) == 2
    assert "the sigmoid needs a logit bias" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["adapted"] > 0.5


def test_an_unknown_loss_is_named(model: VisionModel, folder: Path, tmp_path: Path) -> None:
    from residualign.fitting.fit import FitSettings, fit_method

    store = ra.extract(model, ra.load_data(folder, classes=["cat", "dog"]), tmp_path / "store")
    with pytest.raises(ra.BadInputError, match="loss is one of softmax, sigmoid, got 'hinge'"):
        fit_method(store, "coarse", settings=FitSettings(loss="hinge"))
