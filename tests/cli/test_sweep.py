"""`sweep`: the grid it runs, that it resumes, what it writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from residualign.cli import main
from residualign.fitting import sweep
from residualign.fitting.fit import FitSettings, fit_method
from residualign.store import Store
from tests.cli.conftest import Ran, make_images

Run = Callable[..., Ran]
GRID = (
    "--keep-components",
    "2",
    "--keep-components",
    "all",
    "--scaled",
    "heads",
    "--start",
    "ones",
    "--learning-rate",
    "none",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images", {"cat": 10, "dog": 10, "zero": 10})


@pytest.fixture(scope="module")
def store(clip: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    assert main(["extract", str(clip), str(data), "--store", str(path)]) == 0
    return path


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[sweep.Setting]:
    """The settings that were fitted."""
    seen: list[sweep.Setting] = []
    original = sweep.run_setting

    def counted(held: object, spectra: object, setting: sweep.Setting, **options: object) -> sweep.Run:
        seen.append(setting)
        return original(held, spectra, setting, **options)

    monkeypatch.setattr(sweep, "run_setting", counted)
    return seen


def test_figures_agree_with_the_library(run: Run, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run("sweep", store, *GRID, "--classifier", "means", "--out", out, "--json").json
    assert json.loads((out / "sweep.json").read_text()) == found
    assert (found["n_runs"], found["resumed"], found["bases"]) == (2, 0, {"target": f"{found['data']}, train"})
    expected = fit_method(
        Store.open(store),
        "residual-heads",
        classifier="means",
        settings=FitSettings(variance_threshold=1.0, rest="keep"),
    )
    everything = next(one for one in found["settings"] if one["components"] == "all")
    assert everything["test"] == pytest.approx(expected.accuracy["adapted"])
    assert everything["parameters"] == expected.parameters
    assert found["zero_shot"] == pytest.approx(expected.accuracy["zero_shot"])
    names = {"sweep.json", "sweep_settings.csv", "sweep_factors.csv", "sweep_runs.csv", "sweep_factors.png"}
    assert {path.name for path in out.iterdir() if path.name != ".lock"} == {*names, "runs.jsonl"}


def test_it_goes_on_from_what_is_there(run: Run, store: Path, tmp_path: Path, fitted: list[sweep.Setting]) -> None:
    out = tmp_path / "out"
    whole = run("sweep", store, *GRID, "--out", out, "--json").json
    assert len(fitted) == 2
    lines = (out / "runs.jsonl").read_text().splitlines(keepends=True)
    # killed while the second run was written
    (out / "runs.jsonl").write_text("".join(lines[:2]) + lines[2][:20])
    again = run("sweep", store, *GRID, "--out", out, "--json").json
    assert (len(fitted), again["resumed"]) == (3, 1)
    figures = ("components", "val", "test", "parameters", "seed")
    assert [[one[key] for key in figures] for one in again["runs"]] == [
        [one[key] for key in figures] for one in whole["runs"]
    ]
    larger = run("sweep", store, *GRID, "--scaled", "both", "--start", "randn", "--repeats", 2, "--out", out, "--json")
    # two more settings from ones, four from random starts with two seeds each
    assert (larger.json["n_runs"], larger.json["resumed"], len(fitted)) == (12, 2, 13)
    assert {one["n_seeds"] for one in larger.json["settings"] if one["start"] == "randn"} == {2}
    assert run("sweep", store, *GRID, "--out", out, "--overwrite", "--json").json["resumed"] == 0


def test_runs_of_other_conditions_are_refused(run: Run, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("sweep", store, *GRID, "--shots", 10, "--repeats", 1, "--out", out).code == 0
    for words, sentence in (
        (("--rest", "zero"), "runs with a different rest: 'keep' there, 'zero' here"),
        (("--mean", "drop"), "mean: 'keep' there, 'drop' here"),
        (("--shots", "3"), "shots: 10 there, 3 here"),
        (("--classifier", "means"), "classifier: 'text' there, 'means' here"),
        (("--template", "the digit {} ."), "template: None there, ['the digit {} .'] here"),
        # the sample of a store is not the store
        (("--quick",), "quick: None there, True here"),
    ):
        ran = run("sweep", store, *GRID, "--shots", 10, *words, "--out", out)
        assert (ran.code, sentence in ran.sentence) == (2, True), ran.err
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    ran = run("sweep", store, *GRID, "--out", foreign)
    assert (ran.code, "is not empty" in ran.sentence) == (2, True)


def test_what_all_runs_share_reaches_every_fit_and_validation_chooses(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def made(held: object, spectra: object, setting: sweep.Setting, **options: object) -> sweep.Run:
        seen.append((setting.components, setting.seed, options["mean"], options["rest"], options["shots"]))
        val, test = (0.9, 0.1) if setting.components == "2" else (0.1, 0.9)
        return sweep.Run(setting, val, test, 0.5, parameters=7, epochs=1, found_learning_rate=None, seconds=0.1)

    monkeypatch.setattr(sweep, "run_setting", made)
    words = ("--mean", "drop", "--rest", "zero", "--shots", 3, "--seed", 4, "--repeats", 2)
    found = run("sweep", store, *GRID, *words, "--json").json
    # a seed chooses the images, also where every lambda starts at one
    assert seen == [(level, seed, "drop", "zero", 3) for level in ("2", "all") for seed in (4, 5)]
    assert found["best"]["components"] == "2"


def test_model_and_data_keep_their_store_inside(run: Run, clip: Path, data: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run("sweep", clip, data, *GRID, "--out", out, "--json").json
    assert (out / "store" / "manifest.json").is_file()
    stored = run("sweep", store, *GRID, "--json").json
    assert [one["test"] for one in found["settings"]] == [one["test"] for one in stored["settings"]]
    assert run("sweep", clip, data, *GRID, "--out", out, "--json").json["resumed"] == 2


def test_a_reference_is_one_more_basis(run: Run, store: Path, clip: Path, tmp_path: Path) -> None:
    images = make_images(tmp_path / "more", {"x": 12}, seed=7)
    found = run("sweep", store, *GRID, "--reference", images, "--json").json
    assert set(found["bases"]) == {"target", "reference"}
    assert {one["basis"] for one in found["settings"]} == {"target", "reference"}
    only = run("sweep", store, *GRID, "--reference", images, "--basis", "reference", "--json").json
    assert set(only["bases"]) == {"reference"}
    assert only["settings"] == [
        {**one, "seconds": mine["seconds"]}
        for one, mine in zip(
            [one for one in found["settings"] if one["basis"] == "reference"], only["settings"], strict=True
        )
    ]
    ran = run("sweep", store, *GRID, "--basis", "reference")
    assert (ran.code, "name the images of the reference basis with --reference" in ran.sentence) == (2, True)


def test_quick_is_small_and_people_get_tables(run: Run, store: Path) -> None:
    ran = run("sweep", store, "--quick")
    assert ran.code == 0
    assert "learning rate" in ran.out
    assert "parameters" in ran.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--keep-components", "lots"), "components are 'all'"),
        (("--learning-rate", "-1"), "a learning rate is a positive number"),
        (("--format", "png"), "give --out DIR too"),
    ],
)
def test_bad_input_is_refused_before_anything_is_read(
    run: Run, tmp_path: Path, arguments: tuple, sentence: str
) -> None:
    ran = run("sweep", tmp_path / "absent", *arguments)
    assert (ran.code, sentence in ran.sentence) == (2, True), ran.err
