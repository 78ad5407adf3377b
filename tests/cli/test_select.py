"""`select`: what it prints and writes, adapters it saves, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import residualign as ra
from residualign.cli import main
from residualign.selection.select import best_selection
from residualign.selection.study import selection_subject
from residualign.store import Store
from tests.cli.conftest import Ran, make_images
from tests.random_models import N_HEADS, N_LAYERS

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images", {"cat": 11, "dog": 11, "zero": 11})


@pytest.fixture(scope="module")
def store(clip: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    assert main(["extract", str(clip), str(data), "--store", str(path)]) == 0
    return path


def test_figures_agree_with_the_library(run: Run, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run("select", store, "--classifier", "means", "--out", out, "--json").json
    assert json.loads((out / "select.json").read_text()) == found
    n_heads = N_LAYERS * N_HEADS
    assert (found["n_heads"], found["split"], found["scored_on"]) == (n_heads, "test", "val")
    opened = Store.open(store)
    for curve in found["curves"]:
        assert len(curve["accuracy"]) == n_heads
        for one in curve["budgets"]:
            assert one["accuracy"] == pytest.approx(curve["accuracy"][one["n_heads"] - 1])
    single = best_selection(selection_subject(opened, classifier="means"), ("cosine",), ("zero",), budget=2)
    curve = next(one for one in found["curves"] if (one["score"], one["ablation"]) == ("cosine", "zero"))
    assert curve["accuracy"][1] == pytest.approx(single.accuracy["adapted"])
    assert found["accuracy"] == pytest.approx(single.accuracy["zero_shot"])
    with (out / "select_curves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == "cosine" and row["ablation"] == "zero"]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(curve["accuracy"])
    names = {"select.json", "select_curves.png", "select_layers.png"}
    names |= {f"select_{name}.csv" for name in ("budgets", "curves", "scores", "layers", "overlap")}
    assert {path.name for path in out.iterdir()} == names


def test_model_and_data_give_what_their_store_gives(run: Run, clip: Path, data: Path, store: Path) -> None:
    options = ("--score", "S", "--ablation", "mean", "--json")
    direct, stored = run("select", clip, data, *options).json, run("select", store, *options).json
    assert direct["curves"] == stored["curves"]
    assert [one["score"] for one in direct["curves"]] == ["S"]


def test_a_saved_selection_is_an_adapter(run: Run, store: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    options = ("--classifier", "means", "--score", "UT", "--ablation", "zero", "--heads", "50%", "--adapter", folder)
    found = run("select", store, *options, "--json").json["adapter"]
    adapter = ra.load_adapter(folder)
    assert (adapter.method, adapter.parameters, len(adapter.lambdas)) == ("select", 0, N_LAYERS * N_HEADS // 2)
    evaluated = run("evaluate", folder, data, "--json").json
    assert evaluated["accuracy"]["adapted"] == pytest.approx(found["accuracy"]["adapted"])
    assert evaluated["method"] == "select"
    assert run("evaluate", folder, store, "--json").json["accuracy"] == evaluated["accuracy"]
    classified = run("classify", folder, data / "cat" / "00.png", "--json").json["images"][0]
    assert {one["head"] for one in classified["decided_by"]} <= set(found["heads"])
    again = run("select", store, *options)
    assert again.code == 2
    assert "is not empty; add --overwrite" in again.sentence
    assert run("select", store, *options, "--overwrite").code == 0


def test_people_get_tables(run: Run, store: Path, tmp_path: Path) -> None:
    ran = run("select", store, "--adapter", tmp_path / "adapter", "--keep-mlps")
    assert ran.code == 0
    assert ra.load_adapter(tmp_path / "adapter").settings["keep_mlps"]
    # named as --score takes it, and explained
    assert "U|T" not in ran.out
    assert "UT: correlation with the output in the span of the class vectors" in " ".join(ran.out.split())
    assert "all MLPs and the embedding" in " ".join(ran.out.split())
    assert ran.out.count("\n  L") == N_LAYERS
    assert "adapter" in ran.out


def test_stores_of_one_model_are_compared(run: Run, clip: Path, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    images = make_images(tmp_path / "more", {"cat": 10, "dog": 10}, seed=5)
    assert run("extract", clip, images, "--store", other).code == 0
    found = run("select", store, "--compare", other, "--out", tmp_path / "out", "--json").json
    assert len(found["compared"]) == 1
    between = [one for one in found["overlaps"] if one["data"] != one["other_data"]]
    assert {one["score"] for one in between} == {"S", "U", "U|T", "cosine"}
    assert (tmp_path / "out" / "select_overlap.png").is_file()
    # a store beside itself chooses the same heads, under two names
    same = run("select", store, "--compare", f"{store}/.", "--json").json["overlaps"]
    assert {one["jaccard"] for one in same if one["data"] != one["other_data"]} == {1.0}
    assert "overlap of the best" in run("select", store, "--compare", other).out


def test_bad_input_is_refused(run: Run, store: Path, vit: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "vit"
    assert run("extract", vit, data, "--store", other).code == 0
    for arguments, sentence in (
        (("--compare", other), "selections are compared for one model only"),
        (("--heads", "5%"), "--heads is the number of heads that the adapter keeps; give --adapter DIR too"),
        (("--heads", "many", "--adapter", tmp_path / "a"), "a budget is a number of heads"),
        (("--heads", "99", "--adapter", tmp_path / "a"), "a budget is between 1 and the"),
        (("--adapter", other / "manifest.json"), "is a file, expected a folder for the adapter"),
        (("--compare", tmp_path), "is not a store"),
        (("--format", "png"), "give --out DIR too"),
    ):
        ran = run("select", store, *arguments)
        assert (ran.code, sentence in ran.sentence) == (2, True), ran.err
    assert not (tmp_path / "a").exists()
    without_text = run("select", other, "--classifier", "text")
    assert (without_text.code, "use means" in without_text.sentence) == (2, True)
    assert run("select", store, "--score", "V").code == 2
