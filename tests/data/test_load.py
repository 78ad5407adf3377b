"""load_data: registered names, what wins over what, and sources that are none."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from residualign.data import load_data
from residualign.errors import BadInputError
from tests.data.make import class_folders


def test_digits_are_scikit_learns() -> None:
    data = load_data("digits", split=False)
    assert (len(data.train), len(data.val), len(data.test)) == (1797, 0, 0)
    assert data.class_names == tuple("0123456789")
    own = load_digits()
    assert data.train.labels == tuple(own.target)
    for i in (0, 17, 1796):
        pixels = np.asarray(data.train.image(i))
        assert pixels.shape == (8, 8, 3)
        np.testing.assert_array_equal(pixels[..., 1], np.rint(own.images[i] * 255 / 16))
    assert data.train.keys[17] == "digits/17"


def test_digits_are_split_by_class() -> None:
    data = load_data("digits")
    assert sum(map(len, data.splits)) == 1797
    counts = np.array([split.class_counts(10) for split in data.splits])
    np.testing.assert_allclose(counts / counts.sum(0), np.array([[0.7], [0.1], [0.2]]) * np.ones(10), atol=0.005)
    other = load_data("digits", seed=7)
    assert other.split_rule == "stratified 70/10/20, seed 7"
    assert other.test.keys != data.test.keys
    assert load_data("digits").test.keys == data.test.keys


def test_registered_data_survives_pickling_and_describes_itself() -> None:
    data = load_data("digits")
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.val.image(5), data.val.image(5))
    assert json.loads(json.dumps(data.describe())) == data.describe()
    assert "digits" in repr(data)
    assert repr(data.val) == "Split('val', 179 images, 10 classes)"


def test_taking_twice_gives_the_images_of_the_keys() -> None:
    test = load_data("digits").test
    part = test.take([50, 7, 31]).take([2, 1])
    assert part.keys == (test.keys[31], test.keys[7])
    np.testing.assert_array_equal(part.image(0), test.image(31))


def test_an_existing_path_wins_over_a_registered_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "digits", {"one": 3, "two": 3})
    monkeypatch.chdir(tmp_path)
    assert load_data("digits").class_names == ("one", "two")


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "pets", {"a": 3, "b": 3})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_data("~/pets").class_names == ("a", "b")


def test_a_misspelled_name() -> None:
    with pytest.raises(BadInputError, match=r"no data at 'digit' \(did you mean digits\?\): expected a folder"):
        load_data("digit")


@pytest.mark.parametrize("source", ["no/such/folder", "", "  ", "x" * 5000, "a\0b", "../digits"])
def test_an_unknown_source_is_refused_with_what_is_expected(source: str) -> None:
    with pytest.raises(BadInputError, match=r"no data at .*registered name \(`residualign data`"):
        load_data(source)


def test_a_file_is_refused_and_the_folder_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    for name, message in (
        ("data.zip", "is a file, expected a folder"),
        ("train.parquet", "give its folder"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(BadInputError, match=message):
            load_data(tmp_path / name)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(BadInputError, match="seed must be 0 or larger"):
        load_data("digits", seed=-1)
