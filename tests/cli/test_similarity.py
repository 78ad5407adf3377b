"""`similarity` as typed: stores, spectra files, data sets of one model, other models, and what is refused."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import residualign as ra
from residualign.similarity import compare_heads, compare_means, compare_spectra, draw_anchors, relative_means
from tests import random_models
from tests.cli.conftest import Ran, make_images
from tests.random_models import save_clip

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("similarity")


@pytest.fixture(scope="module")
def stores(folder: Path, clip: Path) -> tuple[Path, Path, Path]:
    """Three data sets of one model."""
    model, found = ra.load_model(str(clip)), []
    for i, name in enumerate(("birds", "cars", "signs")):
        counts = {"cat": 11, "dog": 13 + i}
        data = ra.load_data(make_images(folder / name, counts, seed=i))
        ra.extract(model, data, folder / f"store-{name}", workers=0)
        found.append(folder / f"store-{name}")
    return found[0], found[1], found[2]


@pytest.fixture(scope="module")
def other_model(folder: Path, stores: tuple[Path, Path, Path]) -> Path:
    """The first data set through a model of other weights and the same size."""
    model = ra.load_model(str(save_clip(folder / "other", seed=7)))
    ra.extract(model, ra.load_data(folder / "birds"), folder / "store-other", workers=0)
    return folder / "store-other"


def test_two_stores(run: Run, stores: tuple[Path, Path, Path]) -> None:
    ran = run(
        "similarity", *stores[:2], "--json", "--pairs", "--variance-threshold", "0.8", "--anchors", "5", "--seed", "3"
    )
    found = ran.json
    assert (ran.code, found["split"], found["variance_threshold"], found["first"]["name"]) == (0, "train", 0.8, "birds")
    (one,) = found["comparisons"]
    a, b = (ra.fit_spectrum(ra.Store.open(path)) for path in stores[:2])
    expected = compare_spectra(a, b, variance_threshold=0.8)
    assert [unit["label"] for unit in one["units"]] == list(a.units.labels)
    for unit in (*one["units"], one["output"]):
        cosine = expected[unit["label"]].cosine
        assert (unit["weighted"], unit["unweighted_optimal"]) == (cosine.weighted, cosine.unweighted_optimal)
        assert unit["cka"] is None
    splits = [ra.Store.open(path).split("train") for path in stores[:2]]
    anchors = draw_anchors(splits[0], 5, seed=3)
    means = compare_means(a, b, (relative_means(splits[0], anchors), relative_means(splits[1], anchors)))
    assert [unit["mean_relative_cosine"] for unit in one["units"]] == [mean.relative_cosine for mean in means]
    pairs = compare_heads(a, b, variance_threshold=0.8)
    assert one["pairs"]["weighted"] == pairs.weighted.tolist()
    assert one["pairs"]["cka"] is None
    assert [line["kind"] for line in one["layers"]].count("head") == a.units.n_layers


def test_one_against_several_with_files(run: Run, stores: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("similarity", *stores, "--out", out, "--pairs", "--format", "json", "--format", "csv")
    assert ran.code == 0, ran.err
    assert {path.name for path in out.iterdir()} == {"similarity.json", "units.csv", "layers.csv", "pairs.csv"}
    with (out / "units.csv").open() as file:
        lines = list(csv.DictReader(file))
    n_units = len(ra.Store.open(stores[0]).units) + 1
    assert [line["second"] for line in lines] == ["cars"] * n_units + ["signs"] * n_units
    assert "weighted by variance: greedy (optimal)" in ran.out
    assert "heads are most similar to the head in the same position" in ran.out
    again = run("similarity", *stores, "--out", out)
    assert (again.code, "--overwrite" in again.sentence) == (2, True)
    only = run("similarity", *stores, "--out", out, "--overwrite", "--pairs", "--format", "pdf", "--json")
    names = ["heads.pdf", "layers.pdf", "pairs-1.pdf", "pairs-2.pdf"]
    assert [Path(path).name for path in only.json["files"]] == names


def test_a_model_and_data_sets_are_the_same_as_their_stores(
    run: Run, folder: Path, clip: Path, stores: tuple[Path, Path, Path]
) -> None:
    of_stores = run("similarity", *stores, "--json").json
    ran = run("similarity", clip, folder / "birds", folder / "cars", folder / "signs", "--json", "--workers", 0)
    for one, other in zip(ran.json["comparisons"], of_stores["comparisons"], strict=True):
        assert one["second"]["name"] == other["second"]["name"]
        for unit, same in zip(one["units"], other["units"], strict=True):
            assert unit["weighted"] == pytest.approx(same["weighted"], abs=1e-4)


def test_units_and_splits_are_chosen(run: Run, stores: tuple[Path, Path, Path]) -> None:
    ran = run("similarity", *stores[:2], "--json", "--unit", "L1.H2", "--unit", "mlps", "--split", "val")
    (one,) = ran.json["comparisons"]
    labels = [unit["label"] for unit in one["units"]]
    assert labels[-1] == "L1.H2"
    assert all(label.endswith("mlp") for label in labels[:-1])
    assert ran.json["first"]["n_images"] == len(ra.Store.open(stores[0]).split("val"))
    shown = run("similarity", *stores[:2], "--unit", "L1.H2")
    assert "L1.H2" in shown.out
    assert "L1.H1" not in shown.out


def test_a_spectra_file_stands_for_a_store(run: Run, stores: tuple[Path, Path, Path], tmp_path: Path) -> None:
    ra.fit_spectrum(ra.Store.open(stores[1])).save(tmp_path / "cars.safetensors")
    (of_file,) = run("similarity", stores[0], tmp_path / "cars.safetensors", "--json").json["comparisons"]
    (of_store,) = run("similarity", stores[0], stores[1], "--json").json["comparisons"]
    for one, other in zip(of_file["units"], of_store["units"], strict=True):
        assert (one["weighted"], one["mean_euclidean"]) == (other["weighted"], other["mean_euclidean"])
        assert one["mean_relative_cosine"] is None
        assert other["mean_relative_cosine"] is not None
    both = run("similarity", tmp_path / "cars.safetensors", tmp_path / "cars.safetensors", "--json").json
    assert both["comparisons"][0]["output"]["weighted"] == pytest.approx(1, abs=1e-12)
    assert both["comparisons"][0]["output"]["cka"] is None


def test_other_weights_need_a_word_or_the_same_images(
    run: Run, stores: tuple[Path, Path, Path], other_model: Path
) -> None:
    refused = run("similarity", stores[1], other_model)
    assert refused.code == 2
    assert "--same-space" in refused.sentence
    assert "CKA" in refused.sentence
    (vouched,) = run("similarity", stores[1], other_model, "--same-space", "--json").json["comparisons"]
    assert 0 <= vouched["output"]["weighted"] <= 1
    assert vouched["output"]["cka"] is None
    (same_images,) = run("similarity", stores[0], other_model, "--json").json["comparisons"]
    assert same_images["output"]["weighted"] is None
    assert 0 < same_images["output"]["cka"] < 1
    assert all(0 <= unit["cka"] <= 1 for unit in same_images["units"] if unit["cka"] is not None)
    assert same_images["layers"] == []
    shown = run("similarity", stores[0], other_model, "--pairs")
    assert "the same images, least similar first" in shown.out
    assert "CKA" in shown.out


def test_towers_of_other_units_are_compared_head_with_head(
    run: Run, folder: Path, stores: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model = ra.load_model(str(random_models.save_siglip(tmp_path / "siglip")))
    ra.extract(model, ra.load_data(folder / "birds"), tmp_path / "store", workers=0)
    (one,) = run("similarity", stores[0], tmp_path / "store", "--json").json["comparisons"]
    a, b = (ra.Store.open(path).units for path in (stores[0], tmp_path / "store"))
    assert a != b
    assert one["units"] == []
    assert 0 < one["output"]["cka"] < 1
    assert one["pairs"]["columns"] == [unit.label for unit in b.of_kind("head")]
    assert all(0 < value <= 1 for line in one["pairs"]["cka"] for value in line)
    shown = run("similarity", stores[0], tmp_path / "store", "--out", tmp_path / "out", "--format", "png")
    assert "most similar heads, CKA" in shown.out
    assert (tmp_path / "out" / "pairs.png").is_file()
    # the larger tower first: its pooling's MLP has no counterpart
    (turned,) = run("similarity", tmp_path / "store", stores[0], "--json").json["comparisons"]
    assert turned["output"]["cka"] == pytest.approx(one["output"]["cka"], rel=1e-9)
    assert turned["units"] == []


def test_the_same_images_of_one_model(run: Run, stores: tuple[Path, Path, Path]) -> None:
    (one,) = run("similarity", stores[0], stores[0], "--pairs", "--matching", "optimal", "--json").json["comparisons"]
    for i in range(len(one["pairs"]["rows"])):
        assert one["pairs"]["weighted"][i][i] == pytest.approx(1, abs=1e-9)
        assert one["pairs"]["cka"][i][i] == pytest.approx(1, abs=1e-9)
    assert one["pairs"]["matching"] == "optimal"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{birds}",), "got '{birds}'"),
        (("mini", "digits"), "MODEL DATA DATA; got 'mini' 'digits'"),
        (("{birds}", "digits"), "'digits' is not a store"),
        (("{birds}", "{cars}", "--unit", "L9.H9"), "no unit 'L9.H9'"),
        (("{birds}", "{cars}", "--variance-threshold", "0"), "above 0 and at most 1, got 0"),
        (("{birds}", "{cars}", "--variance-threshold", "1.5"), "got 1.5"),
        (("{birds}", "{cars}", "--anchors", "1"), "0 or at least 2"),
        (("{birds}", "{cars}", "--matching", "optimal"), "give --pairs too"),
        (("{birds}", "{cars}", "--format", "png"), "give --out DIR too"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    run: Run, stores: tuple[Path, Path, Path], arguments: tuple[str, ...], words: str
) -> None:
    names = {"birds": str(stores[0]), "cars": str(stores[1])}
    ran = run("similarity", *(argument.format(**names) for argument in arguments))
    assert ran.code == 2
    assert words.format(**names) in ran.sentence


def test_an_empty_split_and_a_damaged_store_are_refused(
    run: Run, stores: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stores[1], copy)
    shard = next(copy.glob("**/train*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])
    ran = run("similarity", stores[0], copy)
    assert ran.code == 2
    assert shard.name in ran.sentence


def test_options_for_reading_images_reach_every_data_set(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, name in enumerate(("one", "two")):
        folder = make_images(tmp_path / name, {"cat": 9, "dog": 9}, seed=i)
        (folder / "cat" / f"broken-{name}.png").write_bytes(b"not an image")
    arguments = ("similarity", clip, tmp_path / "one", tmp_path / "two", "--workers", 0)
    assert "broken-one.png" in run(*arguments).sentence
    asked = []

    def load_data(name: str, **options: Any) -> Any:
        asked.append(options["stream"])
        return ra.load_data(name, **{**options, "stream": False})

    monkeypatch.setattr("residualign.inputs.subject.load_data", load_data)
    found = run(*arguments, "--skip-bad", "--stream", "--json").json
    assert found["skipped"] == ["cat/broken-one.png", "cat/broken-two.png"]
    assert asked == [True, True]


def test_tables_fit_80_columns(
    run: Run, clip: Path, stores: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residualign.cli.console._PIPE_WIDTH", 80)
    long_name = shutil.copytree(stores[1], tmp_path / "a-store-whose-name-is-longer-than-a-column")
    lines = run("similarity", *stores, *stores[1:], long_name, "--unit", "heads").out.splitlines()
    assert len([line for line in lines if line.startswith("  layer ")]) == 2 * 3
    cosines = [line for line in lines if line.startswith(("  weighted", "  unweighted"))]
    assert sum(line.count("(") for line in cosines) == 2 * 5
    units = [line.split() for line in lines if line.startswith("  L0.H0")]
    assert [len(unit) for unit in units] == [9] * 5
    assert {len(unit[-1]) for unit in units} == {len("0.123")}
