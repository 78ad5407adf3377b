"""The one pass: what a store holds equals what the model gives, killed runs continue to the same bytes."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import residualign as ra
from residualign.data._processes import packed
from residualign.data.batches import PixelLoader, pixel_batches
from residualign.extraction import check_inputs
from residualign.models.preprocess import Preprocess, RescaleFirst, TransformPreprocess
from tests import random_models
from tests.fitting.standin import make_store

N_IMAGES = 29


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for i in range(N_IMAGES):
        file = path / ("cat", "dog")[i % 2] / f"{i:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (31, 37, 3), dtype=np.uint8)).save(file)
    return path


def _store(model_dir: Path, folder: Path, path: Path, **options: object) -> ra.Store:
    options = {"batch_size": 3, "shard_size": 7} | options
    return ra.extract(ra.load_model(model_dir), ra.load_data(folder), path, **options)


def _digests(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())}


def test_a_store_holds_what_the_model_gives(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    model, data = ra.load_model(model_dir), ra.load_data(folder)
    store = _store(model_dir, folder, tmp_path / "store")
    for split in data.splits:
        part = store.split(split.name)
        assert tuple(part.keys) == split.keys
        assert tuple(part.labels.tolist()) == split.labels
        expected = model.encode_image(list(split.images()))
        torch.testing.assert_close(part.embeddings(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(store.maps.sum(part.coordinates()), expected, rtol=1e-4, atol=1e-5)
    assert store.logit_scale == pytest.approx(model.logit_scale)
    assert store.text_vectors is not None
    assert store.text_vectors.shape == (2, model.dim)


def test_progress_counts_every_image_once(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    _store(model_dir, folder, tmp_path / "store", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (N_IMAGES, N_IMAGES)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_finished_store_is_opened_without_a_pass(
    model_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _store(model_dir, folder, tmp_path / "store")
    before = _digests(tmp_path / "store")
    monkeypatch.setattr("residualign.extraction.trace_coordinates", None)
    _store(model_dir, folder, tmp_path / "store")
    assert _digests(tmp_path / "store") == before


def test_workers_do_not_change_a_byte(
    model_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_server: None
) -> None:
    for workers in (0, 1, 3):
        _store(model_dir, folder, tmp_path / str(workers), workers=workers)
    started = []

    def processes(*arguments: object, **options: object) -> PixelLoader:
        started.append(PixelLoader(*arguments, **options, processes=True))
        return started[-1]

    monkeypatch.setattr("residualign.extraction.PixelLoader", processes)
    _store(model_dir, folder, tmp_path / "processes", workers=2)
    assert started[0]._ahead._pool is not None, "no process was started"
    assert len({str(_digests(tmp_path / name)) for name in ("0", "1", "3", "processes")}) == 1


def _preprocessings() -> dict[str, object]:
    """Preprocessing of every kind, as it comes from a checkpoint."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from transformers import CLIPImageProcessorPil

    settings = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "size": {"height": 13, "width": 17},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }
    clip = CLIPImageProcessorPil(size={"shortest_edge": 13}, crop_size=13)
    return {
        "transformers": Preprocess(clip),
        "DINOv3": Preprocess(RescaleFirst(settings, "m")),
        "torchvision": TransformPreprocess(image_transform_v2(PreprocessCfg(size=13), is_train=False), {}),
    }


@pytest.mark.parametrize("kind", ["transformers", "DINOv3", "torchvision"])
def test_every_preprocessing_gives_the_same_pixels_in_a_process(folder: Path, kind: str, fork_server: None) -> None:
    transform, split = _preprocessings()[kind], ra.load_data(folder).train
    here, there = (
        list(pixel_batches(split, range(7), transform, batch_size=3, **way))
        for way in ({"workers": 0}, {"workers": 2, "processes": True})
    )
    assert packed(transform) is not None
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(here, there, strict=True))


_RUN = """
import sys, time, torch
torch.set_num_threads(1)
import residualign as ra
def slow(done, total):
    print(done, flush=True)
    time.sleep(0.15)
model, data = ra.load_model(sys.argv[1]), ra.load_data(sys.argv[2])
ra.extract(model, data, sys.argv[3], batch_size=3, shard_size=7, progress=slow)
"""


@pytest.mark.slow
def test_kill_9_in_mid_run_and_going_on_gives_the_same_bytes(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _store(model_dir, folder, whole)
    command = [sys.executable, "-c", _RUN, str(model_dir), str(folder), str(broken)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as run:
        assert run.stdout is not None
        while int(run.stdout.readline()) < 12:
            pass
        run.send_signal(signal.SIGKILL)
    with pytest.raises(ra.BadInputError):
        ra.Store.open(broken)
    store = _store(model_dir, folder, broken)
    assert _digests(broken) == _digests(whole)
    keys = [key for name in ("train", "val", "test") for key in store.split(name).keys]
    assert len(keys) == len(set(keys)) == N_IMAGES


def test_bad_images_stop_or_are_skipped_and_named(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for file in folder.rglob("*.png"):
        (data / file.parent.name).mkdir(parents=True, exist_ok=True)
        (data / file.parent.name / file.name).write_bytes(file.read_bytes())
    (data / "cat" / "04.png").write_bytes(b"")
    (data / "dog" / "07.png").write_bytes((data / "dog" / "09.png").read_bytes()[:60])
    with pytest.raises(ra.BadInputError, match=r"(cat/04|dog/07)\.png"):
        _store(model_dir, data, tmp_path / "store")
    seen: list[tuple[int, int]] = []
    store = _store(model_dir, data, tmp_path / "store", skip_bad=True, progress=lambda *done: seen.append(done))
    assert seen[-1] == (N_IMAGES, N_IMAGES)
    assert sorted(store.skipped) == ["cat/04.png", "dog/07.png"]
    kept = [key for name in ("train", "val", "test") for key in store.split(name).keys]
    assert len(kept) == N_IMAGES - 2
    assert not set(kept) & set(store.skipped)
    # and spectra without a store are of the same images
    assert store.split("train").skipped
    n_train = len(ra.load_data(data).train)
    spectra = ra.fit_spectrum(
        ra.load_model(model_dir), ra.load_data(data), skip_bad=True, progress=lambda *done: seen.append(done)
    )
    assert spectra.n_samples == n_train - len(store.split("train").skipped)
    assert spectra.images == ra.fit_spectrum(store).images
    assert seen[-1] == (n_train, n_train)
    (data / "cat" / "notes.txt").write_text("not an image")
    with pytest.raises(ra.BadInputError, match=r"notes\.txt"):
        _store(model_dir, data, tmp_path / "other")


def test_a_store_of_another_model_is_refused(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    _store(model_dir, folder, tmp_path / "store")
    other = random_models.save_clip(tmp_path / "other", seed=1)
    with pytest.raises(ra.BadInputError, match="fingerprint"):
        _store(other, folder, tmp_path / "store")


def test_spectra_from_store_and_from_model_agree(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    model, data = ra.load_model(model_dir), ra.load_data(folder)
    from_store = ra.fit_spectrum(_store(model_dir, folder, tmp_path / "store"))
    from_model = ra.fit_spectrum(model, data, batch_size=5)
    for label in model.units.labels:
        a, b = from_store[label], from_model[label]
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            a.explained_variance.sum(), b.explained_variance.sum(), rtol=1e-4, atol=1e-8, msg=label
        )
    assert from_store.model_fingerprint == from_model.model_fingerprint == model.fingerprint
    assert "train" in from_store.source


def test_spectra_need_images(model_dir: Path, folder: Path) -> None:
    model = ra.load_model(model_dir)
    with pytest.raises(ra.BadInputError, match="a model needs data"):
        ra.fit_spectrum(model)
    with pytest.raises(ra.BadInputError, match="spectra need images"):
        ra.fit_spectrum(model, ra.load_data(folder, split=False), split="test")
    with pytest.raises(ra.BadInputError, match="split is one of train, val, test, got 'valid'"):
        ra.fit_spectrum(model, ra.load_data(folder), split="valid")


def test_spectra_of_some_images_of_a_store(model_dir: Path, folder: Path, tmp_path: Path) -> None:
    train = _store(model_dir, folder, tmp_path / "store").split("train")
    few = torch.arange(0, len(train), 2)
    spectra = ra.fit_spectrum(train.take(few))
    assert spectra.n_samples == len(few)
    torch.testing.assert_close(spectra.output.mean, train.embeddings()[few].double().mean(dim=0))


@pytest.mark.parametrize("analyze", [ra.fit_spectrum, ra.fit, ra.measure_geometry, ra.explain, ra.select])
def test_an_analysis_says_what_it_does_not_take(analyze: Any, folder: Path) -> None:
    store = make_store(text=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sead'"):
        analyze(store, sead=1)
    with pytest.raises(ra.BadInputError, match="a store needs no data"):
        analyze(store, ra.load_data(folder))
    with pytest.raises(ra.BadInputError, match="a model needs data"):
        analyze(ra.load_model("mini"))


def test_what_is_given_in_the_place_of_data_is_named() -> None:
    with pytest.raises(ra.BadInputError, match=r"got 'residual'; .* other arguments are given by name"):
        check_inputs(make_store(), "residual", {})
    with pytest.raises(ra.BadInputError, match="data is what `load_data` returns, got 'folder'"):
        check_inputs(ra.load_model("mini"), "folder", {})
    for source in ("store", Path("store")):
        with pytest.raises(ra.BadInputError, match=r"a store \(`Store.open\(path\)`\), or a model and data"):
            check_inputs(source, None, {})


def test_a_vision_only_model_stores_no_text(folder: Path, tmp_path: Path) -> None:
    store = _store(random_models.save_vit(tmp_path / "vit"), folder, tmp_path / "store")
    assert store.text_vectors is None
    assert store.logit_scale is None
