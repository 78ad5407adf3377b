"""What every command opens: a store for the moment or for good, a sample of it, units by name, new words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from residualign._progress import SILENT, Silent
from residualign.classification.classifier import Classifier
from residualign.commands._flags import Inputs
from residualign.commands.select import SelectRequest
from residualign.errors import BadInputError
from residualign.inputs.classifier import chosen_classifier
from residualign.inputs.store import analyzed_split, analyzed_store, chosen_units
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


def test_a_quick_sample_is_small_spread_out_and_the_same_each_time(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residualign.data.sample.QUICK_EACH", 3)
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
