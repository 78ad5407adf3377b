"""A copy of a model runs its own weights, and a model comes back from pickle with the same numbers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests import random_models

import residualign as ra

SAVERS: dict[str, tuple[str, str, Callable[[Path], Path]]] = {
    "clip": ("", "", random_models.save_clip),
    "siglip": ("", "", random_models.save_siglip),
    "vit with means": ("", "#mean", random_models.save_vit),
    "dinov2": ("", "", random_models.save_dinov2),
    "open_clip": ("open_clip:local-dir:", "", random_models.save_open_clip),
    "timm": ("timm:local-dir:", "", random_models.save_timm),
}


@pytest.fixture(scope="module", params=SAVERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ra.VisionModel:
    prefix, suffix, saver = SAVERS[request.param]
    return ra.load_model(f"{prefix}{saver(tmp_path_factory.mktemp('models') / 'model')}{suffix}")


def contributions(model: ra.VisionModel, pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.encode_image(pixels)[:, None], ra.decompose(model, pixels).values], dim=1)


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_gives_the_same_numbers_and_stands_alone(model: ra.VisionModel, way: Callable) -> None:  # type: ignore[type-arg]
    pixels = model.tower.probe(2)
    before = contributions(model, pixels)
    other = way(model)
    # not bit for bit: memory that begins elsewhere is summed in a different order
    torch.testing.assert_close(contributions(other, pixels), before)
    assert other.fingerprint == model.fingerprint
    if model.has_text:
        torch.testing.assert_close(other.encode_text(["a cat"]), model.encode_text(["a cat"]))
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.zero_()
    assert torch.equal(contributions(model, pixels), before)
    assert not other.tower.forward(pixels).any()
