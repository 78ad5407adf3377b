"""`extract`, `classify`, `evaluate`, `decompose`: what they print, and that figures agree with the library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import residualign as ra
from residualign.store import Store
from tests.cli.conftest import Ran, make_images
from tests.random_models import N_HEADS, N_LAYERS

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images", {"cat": 10, "dog": 10, "zero": 10})


@pytest.fixture(scope="module")
def adapted(clip: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from residualign.cli import main

    out = tmp_path_factory.mktemp("adapted") / "out"
    assert main(["adapt", str(clip), str(data), "--out", str(out), "--classifier", "means"]) == 0
    return out


def test_extract_opens_a_finished_store_and_overwrites_another(
    run: Run, clip: Path, vit: Path, data: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    made = run("extract", clip, data, "--store", store, "--json")
    first = made.json
    assert (first["n_train"], first["n_val"], first["n_test"]) == (21, 3, 6)
    again = run("extract", clip, data, "--store", store, "--json")
    assert again.json["fingerprint"] == first["fingerprint"]
    assert [f"{store} was already complete" in one.err for one in (made, again)] == [False, True]
    refused = run("extract", vit, data, "--store", store)
    assert refused.code == 2
    assert "holds a store that differs in" in refused.sentence
    assert run("extract", vit, data, "--store", store, "--overwrite").code == 0
    assert Store.open(store).model["name"] == str(vit)


def test_classify_agrees_with_the_library(run: Run, adapted: Path, data: Path) -> None:
    ran = run("classify", adapted, data / "cat", data / "dog" / "03.png", "--json")
    assert ran.code == 0
    paths = [*sorted((data / "cat").iterdir()), data / "dog" / "03.png"]
    assert [verdict["image"] for verdict in ran.json["images"]] == [str(path) for path in paths]
    adapter = ra.load_adapter(adapted)
    assert [verdict["label"] for verdict in ran.json["images"]] == adapter.predict([str(path) for path in paths])
    probabilities = adapter.predict_proba([str(path) for path in paths]).max(dim=-1).values
    told = torch.tensor([verdict["probability"] for verdict in ran.json["images"]])
    torch.testing.assert_close(told, probabilities, rtol=0, atol=1e-5)
    for verdict in ran.json["images"]:
        assert sum(verdict["kinds"].values()) == pytest.approx(1.0)
        assert all(".H" in one["head"] for one in verdict["decided_by"])
        assert sum(one["probability"] for one in verdict["first"]) == pytest.approx(1.0, abs=1e-5)


def test_classify_prints_one_line_an_image(run: Run, adapted: Path, data: Path) -> None:
    ran = run("classify", adapted, data / "cat")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 11
    assert all(" %" in line for line in ran.out.splitlines()[1:])


def test_classify_names_bad_images_and_can_skip_them(run: Run, adapted: Path, data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    ran = run("classify", adapted, bad, data / "cat" / "00.png")
    assert ran.code == 2
    assert "bad.png' cannot be used: it is empty" in ran.sentence
    assert ran.sentence.endswith("leave such images out with --skip-bad")
    ran = run("classify", adapted, bad, data / "cat" / "00.png", "--skip-bad", "--json")
    assert (ran.code, ran.json["n_images"], ran.json["skipped"]) == (0, 1, [str(bad)])
    assert run("classify", adapted, bad, "--skip-bad").code == 2


def test_classify_refuses_a_path_that_is_not_there(run: Run, adapted: Path, tmp_path: Path) -> None:
    ran = run("classify", adapted, tmp_path / "nowhere.png")
    assert ran.code == 2
    assert "there is no such file or folder" in ran.sentence


def test_a_model_that_has_moved(run: Run, adapted: Path, clip: Path, vit: Path, data: Path, tmp_path: Path) -> None:
    moved = clip.rename(tmp_path / "moved")
    try:
        ran = run("classify", adapted, data / "cat")
        assert ran.code == 2
        assert run("classify", adapted, data / "cat", "--model", moved).code == 0
        ran = run("classify", adapted, data / "cat", "--model", vit)
        assert ran.code == 2
        assert "does not fit model" in ran.sentence or "other weights" in ran.sentence
    finally:
        moved.rename(clip)


def test_evaluate_agrees_with_adapt(run: Run, adapted: Path, data: Path) -> None:
    summary = json.loads((adapted / "summary.json").read_text())
    ran = run("evaluate", adapted, data, "--json")
    assert ran.code == 0
    for name in ("zero_shot", "adapted"):
        assert ran.json["accuracy"][name] == pytest.approx(summary["accuracy"][name])
    assert ran.json["n_images"] == 6
    low, high = ran.json["adapted"]["interval"]
    assert low <= ran.json["accuracy"]["adapted"] <= high
    assert {"macro_accuracy", "calibration_error", "per_class"} <= set(ran.json["adapted"])
    assert "class means" in ran.json["zero_shot_is"]
    of_store = run("evaluate", adapted, adapted / "store", "--json")
    assert of_store.json["accuracy"] == ran.json["accuracy"]


def test_evaluate_matches_classes_by_name(run: Run, adapted: Path, data: Path, tmp_path: Path) -> None:
    names = {"cat": "a", "dog": "b", "zero": "c"}
    other = tmp_path / "other"
    for own, new in names.items():
        (other / new).mkdir(parents=True)
        for path in (data / own).iterdir():
            (other / new / path.name).write_bytes(path.read_bytes())
    refused = run("evaluate", adapted, other)
    assert refused.code == 2
    assert "does not know 3 of the data's 3 classes" in refused.sentence
    (tmp_path / "names.json").write_text('["cat", "dog", "zero"]')
    ran = run("evaluate", adapted, other, "--classes", tmp_path / "names.json", "--json")
    assert ran.json["accuracy"] == run("evaluate", adapted, data, "--json").json["accuracy"]


def test_decompose_everything_that_can_be_named(run: Run, clip: Path, data: Path, adapted: Path) -> None:
    n_units = 1 + N_LAYERS * (1 + N_HEADS)
    sources = (
        (clip, data, 30),
        (clip, data / "cat" / "00.png", 1),
        (clip, data / "cat", 10),
        (adapted / "store", None, 30),
    )
    for source, images, n in sources:
        ran = run("decompose", source, *([] if images is None else [images]), "--json")
        assert ran.code == 0
        assert ran.json["n_images"] == n
        assert len(ran.json["units"]) == n_units
        assert ran.json["residual_error"] < 1e-4
        if n > 1:
            assert sum(unit["variance_share"] for unit in ran.json["units"]) == pytest.approx(1.0, abs=1e-4)


def test_decompose_writes_contributions(run: Run, clip: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "contributions.safetensors"
    paths = sorted((data / "dog").iterdir())[:3]
    assert run("decompose", clip, *paths, "--out", out).code == 0
    expected = ra.decompose(ra.load_model(str(clip)), [str(path) for path in paths])
    with safe_open(out, "pt") as file:
        torch.testing.assert_close(file.get_tensor("contributions"), expected.values)
        torch.testing.assert_close(file.get_tensor("output"), expected.output)
        header = json.loads(file.metadata()["residualign"])
    assert header["keys"] == [str(path) for path in paths]
    assert header["units"] == list(ra.load_model(str(clip)).units.labels)
    refused = run("decompose", clip, *paths, "--out", out)
    assert refused.code == 2
    assert "exists; add --overwrite" in refused.sentence
    assert run("decompose", clip, *paths, "--out", out, "--overwrite").code == 0


def test_evaluate_takes_new_names_for_a_store(run: Run, clip: Path, adapted: Path, data: Path, tmp_path: Path) -> None:
    other, store, names = tmp_path / "other", tmp_path / "store", tmp_path / "names.json"
    for own, new in {"cat": "c", "dog": "b", "zero": "a"}.items():
        shutil.copytree(data / own, other / new)
    assert run("extract", clip, other, "--store", store).code == 0
    assert "does not know 3 of the data's 3 classes" in run("evaluate", adapted, store).sentence
    # in a different order than the adapter's
    names.write_text('["zero", "dog", "cat"]')
    ran = run("evaluate", adapted, store, "--classes", names, "--json")
    assert ran.code == 0, ran.err
    adapter, test = ra.load_adapter(adapted), Store.open(store).split("test")
    predicted = [adapter.class_names[i] for i in adapter.logits(test.coordinates()).argmax(dim=1)]
    right = [
        name == {"a": "zero", "b": "dog", "c": "cat"}[key[0]] for name, key in zip(predicted, test.keys, strict=True)
    ]
    assert ran.json["accuracy"]["adapted"] == pytest.approx(sum(right) / len(right))


def test_evaluate_on_a_store_counts_its_skipped_test_images(
    run: Run, clip: Path, adapted: Path, data: Path, tmp_path: Path
) -> None:
    images, store = tmp_path / "images", tmp_path / "store"
    for split in ("train", "val", "test"):
        shutil.copytree(data, images / split)
    (images / "train" / "cat" / "00.png").write_bytes(b"")
    (images / "test" / "dog" / "00.png").write_bytes(b"")
    assert run("extract", clip, images, "--store", store, "--skip-bad").code == 0
    of_store = run("evaluate", adapted, store, "--json").json
    assert (of_store["n_images"], of_store["skipped"]) == (29, ["test/dog/00.png"])
    assert of_store["skipped"] == run("evaluate", adapted, images, "--skip-bad", "--json").json["skipped"]


def test_an_interrupted_extract_says_how_to_resume(
    run: Run, clip: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("residualign.inputs.store.extract", interrupted)
    store = tmp_path / "store"
    ran = run("extract", clip, data, "--store", store, "--overwrite")
    assert ran.code == 130
    again = f"residualign extract {clip} {data} --store {store}"
    assert f"interrupted before anything was completed. To start again: {again}" in ran.err
    store.mkdir()
    (store / "train-00000.safetensors").write_bytes(b"a shard")
    ran = run("extract", clip, data, "--store", store, "--overwrite")
    # a resumed command must not throw away what it has
    assert f"completed work is kept. To resume: {again}" in ran.err
    assert "--overwrite" not in ran.err
