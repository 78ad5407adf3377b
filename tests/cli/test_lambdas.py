"""`residualign lambdas` on a small run."""

from __future__ import annotations

import csv
import re
import shutil

import pytest

import residualign as ra
from tests.cli.conftest import make_images
from tests.random_models import save_clip


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
    assert "Accuracy as lambdas are reset to 1" in shown.out
    assert "largest first" in shown.out


def table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_bad_input(run, adapted, tmp_path, other_store):
    alone = tmp_path / "alone"
    shutil.copytree(adapted / "methods" / "residual-heads", alone)
    assert run("lambdas", alone).code == 2
    assert run("lambdas", alone).sentence.startswith("no activation store found")
    assert "method 'linear' has no lambdas" in run("lambdas", adapted / "methods" / "linear").sentence
    assert "fingerprint" in run("lambdas", alone, "--store", other_store).sentence
    assert "adapter" in run("lambdas", tmp_path).sentence
    assert "give --out DIR" in run("lambdas", alone, "--format", "png").sentence


@pytest.fixture
def other_store(tmp_path, images):
    model = ra.load_model(save_clip(tmp_path / "other", seed=1))
    ra.extract(model, ra.load_data(images), tmp_path / "other-store", workers=0)
    return tmp_path / "other-store"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_model_that_has_moved_is_used_and_a_different_one_refused(run, adapted, clip, other_store, tmp_path, seeds):
    folder = adapted / "methods" / "residual-heads"
    refused = run("lambdas", folder, "--seeds", seeds, "--model", other_store.with_name("other"))
    assert refused.code == 2
    assert "fingerprint" in refused.sentence
    moved = shutil.copytree(clip, tmp_path / "moved")
    ran = run("lambdas", folder, "--seeds", seeds, "--model", moved, "--json")
    assert ran.code == 0, ran.err
    assert "components of" not in ran.err


def test_fits_to_compare_use_the_spectra_beside_a_model_that_has_moved(run, adapted, clip, tmp_path):
    folder = adapted / "methods" / "residual-heads"
    moved = shutil.copytree(clip, tmp_path / "moved")
    spectra = ra.fit_spectrum(ra.Store.open(adapted / "store"), split="test")
    spectra.save(moved / "spectra.safetensors")
    ran = run("lambdas", folder, "--seeds", 2, "--model", moved)
    assert ran.code == 0, ran.err
    assert f"the fits to compare use components of {spectra.source}" in ran.err


def test_the_tables_fit_80_columns(run, adapted, monkeypatch):
    monkeypatch.setattr("residualign.cli.console._PIPE_WIDTH", 80)
    ran = run("lambdas", adapted / "methods" / "residual-heads", "--seeds", 2)
    titles = ("  unit ", "  effect ", "  lambdas of ")
    tables = [line for line in ran.out.splitlines() if line.startswith(titles)]
    assert len(tables) == 3
    assert [line.split()[-1] for line in tables] == ["variance", "%", "range"]
    rows = [line.rstrip() for line in ran.out.splitlines() if line.startswith(("  largest", "  random"))]
    assert all(line.endswith("%") and line.count("%") == 7 for line in rows), ran.out
    ranges = [line for line in ran.out.splitlines() if "80 % of the images" in line]
    assert ranges
    assert all(re.search(r"-?\d\.\d{3} – -?\d\.\d{3} *$", line) for line in ranges), ran.out


def test_a_store_that_is_only_read_keeps_no_work(run, adapted, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("residualign.adapter.lambdas.put_back_curve", stopped)
    ran = run("lambdas", adapted / "methods" / "residual-heads", "--store", adapted / "store")
    assert (ran.code, ran.err.strip()) == (130, "interrupted")
