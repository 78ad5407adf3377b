"""The public fit: a store, or a model and data, give the same adapter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import residualign as ra
from residualign.data import ImageData
from residualign.fitting.fit import FitSettings, fit_method
from residualign.fitting.solvers import ScheduleFree
from residualign.models.vision_model import VisionModel
from tests import random_models
from tests.fitting.standin import make_spectra, make_store

QUICK = ScheduleFree(learning_rate=0.1, max_epochs=2)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionModel, ImageData]:
    base = tmp_path_factory.mktemp("subject")
    generator = np.random.default_rng(0)
    for i in range(30):
        file = base / "images" / ("cat", "dog")[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (31, 37, 3), dtype=np.uint8)).save(file)
    return ra.load_model(random_models.save_clip(base / "clip")), ra.load_data(base / "images")


def test_a_model_and_data_give_what_their_store_gives(
    subject: tuple[VisionModel, ImageData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = subject
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    seen: list[tuple[int, int]] = []
    direct = ra.fit(model, data, solver=QUICK, batch_size=3, progress=lambda *done: seen.append(done))
    store = ra.extract(model, data, tmp_path / "store", batch_size=3)
    from_store = ra.fit(store, solver=QUICK)
    assert direct.lambdas.keys() == from_store.lambdas.keys()
    for label, expected in from_store.lambdas.items():
        torch.testing.assert_close(direct.lambdas[label], expected, rtol=0, atol=0)
    assert direct.accuracy == from_store.accuracy
    assert seen[-1] == (30, 30)
    # the temporary store is gone, and the adapter lives without it
    assert list((tmp_path / "scratch").iterdir()) == []
    pixels = model.pixels(torch.stack([model.preprocess(image) for image in data.test.images()]))
    torch.testing.assert_close(direct.predict_proba(pixels), from_store.predict_proba(pixels), rtol=0, atol=0)


def test_the_temporary_store_goes_when_fitting_fails(
    subject: tuple[VisionModel, ImageData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ra.BadInputError, match="variance_threshold"):
        ra.fit(*subject, method="residual-heads", variance_threshold=2.0)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_method_is_refused_before_the_pass(
    subject: tuple[VisionModel, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residualign.extraction.extract", None)
    with pytest.raises(ra.BadInputError, match="no method 'residuals'"):
        ra.fit(*subject, method="residuals")


def test_every_option_reaches_the_fit() -> None:
    store = make_store(text=True, sizes={"train": 41, "val": 23, "test": 11})
    spectra = make_spectra(store.maps)
    options: dict[str, Any] = {
        **{"shots": 5, "variance_threshold": 0.6, "seed": 3, "solver": QUICK},
        **{"mean": "drop", "rest": "mean", "start": "randn", "dtype": torch.float64},
    }
    adapter = ra.fit(store, None, "residual-heads", spectra, classifier="means", **options)
    fitted = fit_method(store, "residual-heads", spectra, classifier="means", settings=FitSettings(**options))
    assert adapter.settings == fitted.settings
    assert (fitted.settings["classifier"], fitted.settings["n_train"], fitted.settings["seed"]) == ("means", 15, 3)
    torch.testing.assert_close(adapter.learned["lambdas"], fitted.learned["lambdas"].float(), rtol=0, atol=0)
    # and the adapter says where its components are from
    assert adapter.spectra == {"source": "noise", "fingerprint": spectra.fingerprint, "n_samples": spectra.n_samples}
    own = ra.fit(store, method="coarse", solver=QUICK)
    assert own.spectra == {"source": "training split", "fingerprint": None, "n_samples": 41}


def test_what_does_not_belong_together_is_refused(subject: tuple[VisionModel, ImageData]) -> None:
    with pytest.raises(ra.BadInputError, match="a model needs data"):
        ra.fit(subject[0])
    with pytest.raises(ra.BadInputError, match="a store needs no data"):
        ra.fit(make_store(), subject[1])
