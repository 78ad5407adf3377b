"""`geometry`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import residualign as ra
from residualign.cli import main
from residualign.geometry import measure_geometry
from tests.cli.conftest import Ran, make_images
from tests.random_models import N_HEADS, N_LAYERS

Run = Callable[..., Ran]
FAST = ("--subsamples", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images", {"cat": 13, "dog": 13, "zero": 13})


@pytest.fixture(scope="module")
def store(clip: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    assert main(["extract", str(clip), str(data), "--store", str(path), "--json"]) == 0
    return path


def test_json_holds_what_the_library_finds(run: Run, store: Path) -> None:
    ran = run("geometry", store, "--seed", 5, "--variance-threshold", 0.9, "--fraction", 0.8, *FAST, "--json")
    assert ran.code == 0
    opened = ra.Store.open(store)
    expected = measure_geometry(
        opened, spectra=ra.fit_spectrum(opened), variance_threshold=0.9, fraction=0.8, subsamples=4, seed=5
    )
    assert [one["label"] for one in ran.json["units"]] == list(opened.units.labels)
    for told, one in zip(ran.json["units"], expected.units, strict=True):
        assert told["linear_dimension"] == one.linear_dimension
        assert told["two_nn"] == pytest.approx(one.two_nn, rel=1e-9)
        assert told["two_nn_interval"] == pytest.approx(one.two_nn_interval, rel=1e-9)
    assert ran.json["output"]["linear_dimension"] == expected.output.linear_dimension
    assert ran.json["spectra"]["kind"] == "the images themselves"
    assert (ran.json["split"], ran.json["n_images"]) == ("train", len(opened.split("train")))
    assert "coarse" in ran.err


def test_prints_both_profiles_and_their_tests(run: Run, store: Path) -> None:
    ran = run("geometry", store, *FAST)
    assert ran.code == 0
    lines = ran.out.splitlines()
    for title in ("layer, heads", "layer, MLPs"):
        start = next(i for i, line in enumerate(lines) if title in line)
        assert [line.split()[0] for line in lines[start + 1 : start + 1 + N_LAYERS]] == [
            str(i) for i in range(N_LAYERS)
        ]
        assert "hunchback of N: " in lines[start + 1 + N_LAYERS]
        assert "L/N grows with depth: " in lines[start + 2 + N_LAYERS]
    assert any(line.startswith("  output") for line in lines)
    assert all(len(line.rstrip()) <= 100 for line in lines if "model" not in line and "/" not in line)


def test_a_model_and_data_give_what_their_store_gives(run: Run, clip: Path, data: Path, store: Path) -> None:
    one = run("geometry", clip, data, "--split", "test", *FAST, "--json").json
    other = run("geometry", store, "--split", "test", *FAST, "--json").json
    assert one["units"] == other["units"]
    assert one["split"] == "test"


def test_chosen_units(run: Run, store: Path) -> None:
    ran = run("geometry", store, "--unit", "L1.H2", "--unit", "mlps", *FAST)
    assert ran.code == 0
    labels = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  L")]
    assert labels == [*(f"L{i}.mlp" for i in range(N_LAYERS)), "L1.H2"]
    assert run("geometry", store, "--unit", "L1.H2", *FAST, "--json").json["output"] is None


def test_files_of_every_format(run: Run, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    formats = [word for name in ("json", "csv", "png", "pdf") for word in ("--format", name)]
    ran = run("geometry", store, "--out", out, *formats, *FAST, "--json")
    assert ran.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "geometry.json",
        "geometry_heads.pdf",
        "geometry_heads.png",
        "geometry_profiles.csv",
        "geometry_profiles.pdf",
        "geometry_profiles.png",
        "geometry_units.csv",
    ]
    assert json.loads((out / "geometry.json").read_text()) == ran.json
    with (out / "geometry_units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ran.json["units"]) + 1
    assert float(rows[-1]["two_nn"]) == ran.json["output"]["two_nn"]
    for name in ("geometry_heads.png", "geometry_profiles.png"):
        with Image.open(out / name) as image:
            assert min(image.size) > 300
    assert run("geometry", store, "--out", out, *FAST).code == 2
    assert run("geometry", store, "--out", out, "--overwrite", "--unit", "L0.mlp", *FAST).code == 0


def test_other_components_by_reference(run: Run, store: Path, data: Path) -> None:
    ran = run("geometry", store, "--reference", store, "--split", "test", *FAST, "--json")
    assert ran.code == 0
    opened = ra.Store.open(store)
    assert ran.json["spectra"] == {
        "kind": "given",
        "source": f"{data}, train",
        "n_images": len(opened.split("train")),
    }
    expected = ra.fit_spectrum(opened)["L1.H2"]
    told = next(one for one in ran.json["units"] if one["label"] == "L1.H2")
    assert told["evr_first"] == pytest.approx(float(expected.explained_variance_ratio[0]), rel=1e-9)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--variance-threshold", "1.5"), "threshold is a share of variance in (0, 1], got 1.5"),
        (("--fraction", "0"), "fraction is a share of the points in (0, 1], got 0.0"),
        (("--subsamples", "5"), "expected an even number, or 0 for none, got 5"),
        (("--unit", "L7.H0"), "no unit 'L7.H0' in a tower of"),
        (("--format", "png"), "give --out DIR too"),
        (("--store", "elsewhere"), "a store is already given"),
    ],
)
def test_bad_input(run: Run, store: Path, words: tuple[str, ...], told: str) -> None:
    ran = run("geometry", store, *words)
    assert ran.code == 2
    assert told in ran.sentence


def test_numbers_are_refused_before_a_model_is_loaded(run: Run) -> None:
    ran = run("geometry", "no such model", "no such data", "--variance-threshold", "2")
    assert ran.code == 2
    assert "threshold" in ran.sentence


def test_one_image_a_split_is_no_crash(run: Run, clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "few"
    make_images(data / "train", {"cat": 3, "dog": 3})
    make_images(data / "test", {"cat": 1}, seed=1)
    ran = run("geometry", clip, data, "--split", "test", "--json")
    assert ran.code == 0
    assert ran.json["n_images"] == 1
    assert all(one["two_nn"] is None and one["linear_dimension"] == 0 for one in ran.json["units"])
    assert run("geometry", clip, data, "--split", "test").code == 0
    assert len(ran.json["units"]) == 1 + N_LAYERS * (1 + N_HEADS)
