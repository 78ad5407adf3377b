"""What every analysis shares: a store for the moment or for good, units by name, tables and figures as files."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure as Drawing

from residualign._progress import SILENT, Silent
from residualign.classification.classifier import Classifier
from residualign.commands._flags import Inputs
from residualign.commands.select import SelectRequest
from residualign.errors import BadInputError, RunError
from residualign.figures._figure import Figure
from residualign.inputs.classifier import chosen_classifier
from residualign.inputs.store import analyzed_split, analyzed_store, chosen_units
from residualign.runs.files import FORMATS, check_analysis_files, write_analysis_files
from residualign.units import Units
from tests.cli.conftest import make_images
from tests.random_models import save_clip
from tests.store.make_store import fill


def asked(source: Path, data: Path | None = None, **more: Any) -> Inputs:
    return Inputs(source=str(source), data=None if data is None else str(data), batch_size=5, workers=0, **more)


class Counting(Silent):
    """Notices whether images were looked at."""

    def __init__(self) -> None:
        self.stores = 0

    def done(self, result: object, seconds: float) -> None:
        self.stores += 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "images", {"cat": 11, "dog": 11})


def test_without_a_place_the_store_is_gone_afterwards(clip: Path, data: Path) -> None:
    with analyzed_store(asked(clip, data), SILENT) as (store, subject):
        folder = Path(store.path)
        assert folder.is_dir()
        assert subject.store is store
        assert len(analyzed_split(store, "train")) > 0
    assert not folder.exists()


def test_it_is_gone_after_an_error_too(clip: Path, data: Path) -> None:
    seen: list[Path] = []

    def fail(path: str) -> None:
        seen.append(Path(path))
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        analyzed_store(asked(clip, data), SILENT) as (store, _),
    ):
        fail(store.path)
    assert not seen[0].exists()


def test_with_a_place_it_stays_and_is_found_again(clip: Path, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "store"
    with analyzed_store(asked(clip, data, store=str(place)), SILENT) as (store, _):
        fingerprint = store.fingerprint
    with analyzed_store(asked(place), SILENT) as (again, _):
        assert again.fingerprint == fingerprint
    with (
        pytest.raises(BadInputError, match="no-such-model"),
        analyzed_store(asked(place, model="no-such-model"), SILENT),
    ):
        pass
    with (
        pytest.raises(BadInputError, match="a store is already given"),
        analyzed_store(asked(place, store=str(tmp_path / "other")), SILENT),
    ):
        pass


def test_a_unit_that_does_not_exist_is_refused_before_the_pass(clip: Path, data: Path) -> None:
    watch = Counting()
    with (
        pytest.raises(BadInputError, match=r"no unit 'L9\.H0'"),
        analyzed_store(asked(clip, data), watch, units=["heads", "L9.H0"]),
    ):
        pass
    assert watch.stores == 0


def test_an_empty_split_is_refused_and_others_are_named(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    with pytest.raises(BadInputError, match="has no images; use --split train or val"):
        analyzed_split(store, "test")


def test_units_by_label_and_group_each_once_in_unit_order() -> None:
    units = Units(2, 3)
    assert [unit.label for unit in chosen_units(units, ["L1.H2", "mlps", "L0.mlp", "embedding"])] == [
        "embedding",
        "L0.mlp",
        "L1.mlp",
        "L1.H2",
    ]
    assert chosen_units(units, ()) == tuple(units)
    assert chosen_units(units, (), default="heads") == units.of_kind("head")
    with pytest.raises(BadInputError, match=r"no unit 'L2\.H0'"):
        chosen_units(units, ["L2.H0"])


def drawn() -> Drawing:
    made = Drawing(figsize=(2, 1))
    made.add_subplot().plot([1, 2, 3])
    return made


FIGURE = Figure(drawn)


TABLE = [{"unit": "L0.H0", "value": 0.125}, {"unit": 'a, "b"\n<c>', "value": None}]


def test_each_format_gets_its_files(tmp_path: Path) -> None:
    payload = {"value": math.nan, "rows": ({"x": 1.5},), "infinite": [math.inf]}
    written = write_analysis_files(
        tmp_path / "new" / "out",
        "result",
        payload,
        {"units": TABLE, "none": []},
        {"curve": FIGURE},
        list(FORMATS),
    )
    assert [path.name for path in written] == [
        "result.json",
        "units.csv",
        "none.csv",
        "curve.png",
        "curve.svg",
        "curve.pdf",
    ]
    out = tmp_path / "new" / "out"
    assert json.loads((out / "result.json").read_text()) == {"value": None, "rows": [{"x": 1.5}], "infinite": [None]}
    with open(out / "units.csv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"unit": "L0.H0", "value": "0.125"},
            {"unit": TABLE[1]["unit"], "value": ""},
        ]
    assert (out / "none.csv").read_bytes() == b""
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "curve.svg").read_bytes()
    assert (out / "curve.pdf").read_bytes().startswith(b"%PDF")


def test_by_default_json_csv_and_png_and_equal_calls_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (write_analysis_files(tmp_path / name, "r", {}, {"t": TABLE}, {"f": FIGURE}) for name in ("a", "b"))
    assert [path.suffix for path in first] == [".json", ".csv", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    check_analysis_files(None, None, overwrite=False)
    check_analysis_files(tmp_path / "new", ["csv"], overwrite=False)
    (tmp_path / "mine.txt").write_text("x")
    for folder, said in ((tmp_path, "not empty"), (tmp_path / "mine.txt", "is a file")):
        with pytest.raises(BadInputError, match=said):
            check_analysis_files(folder, None, overwrite=False)
    check_analysis_files(tmp_path, None, overwrite=True)
    with pytest.raises(BadInputError, match="give --out DIR too"):
        check_analysis_files(None, ["png"], overwrite=False)


def test_a_place_that_cannot_be_written_says_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="0 of 1 files were written"):
        write_analysis_files(tmp_path / "file" / "out", "r", {}, {}, {}, ["json"])


def test_a_quick_sample_is_small_spread_out_and_the_same_each_time(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residualign.inputs.sample.QUICK_EACH", 3)
    images = make_images(tmp_path / "images", {"cat": 23, "dog": 2 * 5})
    for _ in range(2):
        with analyzed_store(asked(clip, images, quick=True), SILENT) as (store, subject):
            assert subject.data is not None
            assert subject.data.train.class_counts(2) == (3, 3)
            assert [len(store.split(name)) for name in store.splits] == [6, 3, 5]
            assert "--quick" in str(store.data["split_rule"])
            keys = store.split("train").keys
    assert keys == tuple(sorted(keys, key=subject.data.train.keys.index))
    whole = tmp_path / "whole"
    with analyzed_store(asked(clip, images, store=str(whole)), SILENT) as (store, _):
        assert len(store.split("train")) == 23
    with analyzed_store(asked(whole, quick=True), SILENT) as (store, _):
        assert store.split("train").keys == keys


@pytest.mark.parametrize("flag", ["classes", "template"])
def test_new_words_for_a_store_give_class_vectors_of_their_own(
    clip: Path, data: Path, tmp_path: Path, flag: str
) -> None:
    """By every command that classifies: select, sweep and adapt ask the same function."""
    place = tmp_path / "store"
    with analyzed_store(asked(clip, data, store=str(place)), SILENT):
        pass
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"cat": "zero", "dog": "one"}))
    given = {"classes": names} if flag == "classes" else {"template": ("the digit {} .",)}
    request = SelectRequest(source=str(place), **given)  # type: ignore[arg-type]
    with analyzed_store(request, SILENT) as (store, subject):
        made = chosen_classifier(request, subject, store, SILENT)
        assert isinstance(made, Classifier)
        assert made.class_names == (("zero", "one") if flag == "classes" else store.class_names)
        assert store.text_vectors is not None
        assert not torch.allclose(made.vectors.double(), store.text_vectors.double(), atol=1e-3)
        with pytest.raises(BadInputError, match="cannot be combined with --classifier means"):
            chosen_classifier(dataclasses.replace(request, classifier="means"), subject, store, SILENT)
