"""`residualign lambdas` on a small run."""

from __future__ import annotations

import csv
import shutil

import pytest

from tests.cli.conftest import make_images


@pytest.fixture(scope="module")
def adapted(clip, tmp_path_factory):
    from residualign.cli import main

    root = tmp_path_factory.mktemp("lambdas")
    images = make_images(root / "images", {"cat": 10, "dog": 10, "zero": 10})
    arguments = ["adapt", clip, images, "--out", root / "run", "--method", "residual-heads", "--method", "linear"]
    assert main([str(one) for one in arguments]) == 0
    return root / "run"


def test_prints_what_moved_and_writes_tables_and_figures(run, adapted, tmp_path):
    folder = adapted / "methods" / "residual-heads"
    ran = run("lambdas", folder, "--top", 3, "--seeds", 2, "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["method"] == "residual-heads"
    assert len(found["moved"]) == 3
    assert found["put_back"][0]["order"] == "largest"
    assert found["put_back"][0]["put_back"][-1] == found["n_lambdas"]
    assert {one["varied"] for one in table(tmp_path / "out" / "stability.csv")} == {"start", "images"}
    assert set(found["stability"]) == {"start", "images"}
    moved = table(tmp_path / "out" / "moved.csv")
    assert len(moved) == found["n_lambdas"]
    effects = [float(one["effect"]) for one in moved]
    assert effects == sorted(effects, reverse=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "lambdas.json", "moved.csv", "put_back.csv", "learning_curves.csv", "stability.csv",
        "moved.png", "put_back.png", "learning_curves.png",
    }  # fmt: skip
    shown = run("lambdas", folder, "--store", adapted / "store")
    assert shown.code == 0
    assert "largest effect first" in shown.out


def table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_bad_input(run, adapted, tmp_path, deit_store):
    alone = tmp_path / "alone"
    shutil.copytree(adapted / "methods" / "residual-heads", alone)
    assert run("lambdas", alone).code == 2
    assert run("lambdas", alone).sentence.startswith("no store of images lies with the adapter")
    assert "method 'linear' has no lambdas" in run("lambdas", adapted / "methods" / "linear").sentence
    assert "fingerprint" in run("lambdas", alone, "--store", deit_store).sentence
    assert "is no adapter" in run("lambdas", tmp_path).sentence
    assert "give --out DIR" in run("lambdas", alone, "--format", "png").sentence


@pytest.fixture
def deit_store(run, tmp_path, images):
    from tests.random_models import save_clip

    store = tmp_path / "other-store"
    assert run("extract", save_clip(tmp_path / "other", seed=1), images, "--store", store).code == 0
    return store
