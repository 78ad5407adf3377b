"""`adapt` and what follows it: results, files, going on, starting again."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from residualign import load_adapter
from residualign.adapter import files as adapter_file
from residualign.classification import classifier as classifiers
from residualign.fitting.fit import Accuracy, few_images
from residualign.fitting.methods import METHODS
from residualign.runs import results
from residualign.runs.folder import ADAPTER_FILES
from residualign.store import Store
from tests.cli.conftest import Ran

Run = Callable[..., Ran]

NEEDED = {"model", "data", "n_train", "n_val", "n_test", "reference", "residual_error", "seconds", "method", "accuracy"}
NEEDED |= {"parameters", "epochs", "learning_rate", "classifier"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_json_of_one_method(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    ran = run("adapt", clip, images, "--out", tmp_path / "out", "--json")
    assert ran.code == 0
    assert set(ran.json) >= NEEDED
    assert set(ran.json["seconds"]) >= {"extract", "spectrum", "fit"}
    assert set(ran.json["accuracy"]) == {"zero_shot", "adapted", "zero_shot_val", "val"}
    assert all(0 <= value <= 1 for value in ran.json["accuracy"].values())
    assert (ran.json["n_train"], ran.json["n_val"], ran.json["n_test"]) == (21, 3, 6)
    assert (ran.json["method"], ran.json["reference_kind"]) == ("residual", "training split")
    assert "methods" not in ran.json
    assert ran.json["store"] == str(tmp_path / "out" / "store")


def test_all_methods_and_the_best_of_them(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("adapt", clip, images, "--out", out, "--method", "all", "--json")
    methods = ran.json["methods"]
    assert [method["method"] for method in methods] == list(METHODS)
    best = max(methods, key=lambda method: method["accuracy"]["val"])
    assert ran.json["accuracy"]["val"] == best["accuracy"]["val"]
    chosen = ran.json["method"]
    for name in ADAPTER_FILES:
        assert (out / name).read_bytes() == (out / "methods" / chosen / name).read_bytes()


def test_the_probe_is_fitted_to_the_same_few_images(
    run: Run, clip: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[torch.Tensor]] = []
    real = classifiers.linear_probe

    def watched(*parts: Any) -> classifiers.LinearProbe:
        seen.append([embeddings for embeddings, _ in parts])
        return real(*parts)

    monkeypatch.setattr(classifiers, "linear_probe", watched)
    out = tmp_path / "out"
    ran = run("adapt", clip, images, "--out", out, "--method", "coarse", "--shots", 2, "--seed", 3, "--json")
    assert ran.json["n_train"] == 6
    assert load_adapter(out).settings["seed"] == 3
    few = few_images(Store.open(out / "store"), 2, 3)
    for got, name in zip(seen[0], ("train", "val", "test"), strict=True):
        assert torch.equal(got, few.split(name).embeddings())


@pytest.mark.parametrize(
    ("linear", "why"),
    [(0.1, "the best validation accuracy"), (0.8, "the best validation accuracy, with the fewest parameters")],
)
def test_validation_chooses_and_not_the_test_images(
    run: Run, clip: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear: float, why: str
) -> None:
    """Best on validation images, not on test images, is shipped; of equals the one with the fewest parameters."""
    real = results.method_result
    told = {"coarse": (0.8, 0.1), "linear": (linear, 0.9)}

    def altered(fitted: Any, *more: Any) -> Any:
        val, adapted = told[fitted.method]
        made = real(fitted, *more)
        accuracy = {"val": val, "adapted": adapted, "zero_shot": 0.4, "zero_shot_val": 0.3}
        return dataclasses.replace(made, accuracy=Accuracy.of({**made.accuracy, **accuracy}))

    monkeypatch.setattr(results, "method_result", altered)
    ran = run("adapt", clip, images, "--out", tmp_path / "out", "--method", "linear", "--method", "coarse")
    assert load_adapter(tmp_path / "out").method == "coarse"
    assert f"{tmp_path / 'out'}, coarse: {why}\n" in re.sub(" +\n", "\n", ran.out)
    assert "of the training split: " in ran.out
    lines = [line.strip() for line in ran.out.splitlines() if " %" in line]
    shown = {line.partition("  ")[0]: re.findall(r"[\d.]+(?= %)", line)[:2] for line in lines}
    # validation first, then test, as the titles say
    expected = {"zero-shot": (0.3, 0.4), "linear": (linear, 0.9), "coarse": (0.8, 0.1)}
    for name, figures in expected.items():
        assert shown[name] == [f"{100 * figure:.1f}" for figure in figures]


def test_hints_can_be_pasted(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    ran = run("adapt", clip, images, "--out", out, "--method", "coarse")
    assert ran.code == 0, ran.err
    lines = " ".join(ran.out.split())
    for hint in (f"report '{out}'", f"classify '{out}' IMAGE...", f"adapt '{out}/store' --out ..."):
        assert f"residualign {hint}" in lines


def test_class_means_say_so(run: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    ran = run("adapt", vit, images, "--out", tmp_path / "out", "--method", "coarse", "--json")
    assert ran.json["classifier"] == "means"
    assert "class means" in ran.json["zero_shot_is"]


def test_what_is_written(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("adapt", clip, images, "--out", out, "--seed", 7)
    assert set(ADAPTER_FILES) == {adapter_file.TENSORS, adapter_file.HISTORY, adapter_file.CARD, adapter_file.CONFIG}
    assert {path.name for path in out.iterdir()} == {
        *ADAPTER_FILES,
        "run.json",
        "summary.json",
        "thumbnails.zip",
        "store",
    }
    summary = json.loads((out / "summary.json").read_text())
    (result,) = summary["results"]
    before, after = (result[f"confusion_{when}"]["pairs"] for when in ("before", "after"))
    assert [sum(n for true, _, n in before if true == label) for label in range(3)] == [2, 2, 2]
    assert sum(n for true, guess, n in after if true == guess) == round(6 * result["accuracy"]["adapted"])
    assert {unit["label"] for unit in result["units"]} == set(load_adapter(out).lambdas)
    assert set(summary["fingerprints"]) == {"model", "store", "spectra"}
    assert summary["seed"] == 7
    with zipfile.ZipFile(out / "thumbnails.zip") as pictures:
        assert {example["thumbnail"] for example in summary["examples"]} == set(pictures.namelist())
    assert len(summary["examples"]) == 6
    assert all(json.loads(line) for line in (out / "history.jsonl").read_text().splitlines())


def test_a_store_gives_what_model_and_data_give(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run("extract", clip, images, "--store", store, "--json").json["n_train"] == 21
    one = run("adapt", store, "--out", tmp_path / "a", "--json").json
    other = run("adapt", clip, images, "--store", store, "--out", tmp_path / "b", "--json").json
    assert one["accuracy"] == other["accuracy"]
    assert one["store"] == other["store"] == str(store)
    assert (tmp_path / "a" / "adapter.safetensors").read_bytes() == (
        tmp_path / "b" / "adapter.safetensors"
    ).read_bytes()


def test_other_words_for_a_store(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    run("extract", clip, images, "--store", tmp_path / "store")
    told = ("--template", "the digit {} .", "--method", "linear", "--json")
    from_store = run("adapt", tmp_path / "store", "--out", tmp_path / "a", *told)
    from_images = run("adapt", clip, images, "--out", tmp_path / "b", *told)
    assert from_store.json["accuracy"] == from_images.json["accuracy"]
    plain = run("adapt", tmp_path / "store", "--out", tmp_path / "c", "--method", "linear", "--json")
    assert from_store.json["accuracy"] != plain.json["accuracy"]


def test_unknown_words_warn_and_suggest_means(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    (images / "zero").rename(images / "unheard")
    ran = run("adapt", clip, images, "--out", tmp_path / "out", "--method", "coarse")
    assert "does not know 1 of 3 class names ('unheard')" in ran.err
    assert "--classifier means" in ran.err


def test_a_reference_of_every_kind(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    run("extract", clip, images, "--store", tmp_path / "store")
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(images.rglob("*.png"))):
        (flat / f"{i}.png").write_bytes(path.read_bytes())
    for i, (reference, n) in enumerate(((tmp_path / "store", 21), (flat, 30), (images, 30))):
        ran = run("adapt", tmp_path / "store", "--reference", reference, "--out", tmp_path / str(i), "--json")
        assert (ran.json["reference_kind"], ran.json["n_reference"]) == ("given", n)


def test_a_reference_of_other_weights_is_refused(run: Run, clip: Path, vit: Path, images: Path, tmp_path: Path) -> None:
    run("extract", clip, images, "--store", tmp_path / "clip")
    run("extract", vit, images, "--store", tmp_path / "vit")
    ran = run("adapt", tmp_path / "clip", "--reference", tmp_path / "vit", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "different weights" in ran.sentence


def test_a_finished_run_is_kept_unless_told(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("adapt", clip, images, "--out", out, "--method", "coarse")
    run(*command)
    (out / "notes.txt").write_text("mine")
    before = files_of(out)
    ran = run(*command)
    assert ran.code == 2
    assert "contains a finished run; add --overwrite" in ran.sentence
    assert files_of(out) == before
    assert run(*command[:-1], "linear", "--overwrite").code == 0
    assert load_adapter(out).method == "linear"
    assert (out / "notes.txt").read_text() == "mine"


def test_another_unfinished_run_is_refused(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("adapt", clip, images, "--out", out, "--method", "coarse")
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(state | {"state": "unfinished"}))
    ran = run("adapt", clip, images, "--out", out, "--method", "linear")
    assert ran.code == 2
    assert "unfinished run with different settings (method: ['coarse'] there, ['linear'] here)" in ran.sentence


@pytest.mark.parametrize("moment", ["store/unfinished.json", "methods/coarse/result.json"])
def test_ctrl_c_and_going_on(
    run: Run, clip: Path, images: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("coarse", "residual-heads", "linear")
    wanted = [word for name in methods for word in ("--method", name)]

    def command(out: Path) -> list[str]:
        return ["adapt", str(clip), str(images), "--out", str(out), *wanted, "--batch-size", "1", "--json"]

    out = tmp_path / "out"
    replace = os.replace

    def then_ctrl_c(source: str, target: str) -> None:
        replace(source, target)
        if Path(target) == out / moment:
            signal.raise_signal(signal.SIGINT)

    # at the very moment, not when another process has noticed it: by then a quick run is over
    # a process that was started in the background may have inherited that Ctrl-C is ignored
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", then_ctrl_c)
        ran = run(*command(out), "--overwrite")
    signal.signal(signal.SIGINT, usual)
    assert ran.code == 130
    assert ran.out == ""
    # the plan of a store is no work yet
    told = (
        " before anything was completed. To start again: "
        if "store" in moment
        else "; completed work is kept. To resume: "
    )
    assert f"interrupted{told}residualign adapt" in ran.err
    assert "Traceback" not in ran.err
    assert "--overwrite" not in ran.err
    gone_on = run(*command(out))
    assert gone_on.code == 0
    assert gone_on.json["resumed"]
    assert f"resuming the unfinished run in {out}" in gone_on.err
    undisturbed = run(*command(tmp_path / "undisturbed"))
    for one, other in zip(gone_on.json["methods"], undisturbed.json["methods"], strict=True):
        assert one["accuracy"] == other["accuracy"]
    for name in ("adapter.safetensors", "store/train-00000.safetensors", "store/manifest.json"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
