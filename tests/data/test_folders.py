"""Folders of class folders: layouts, order, strays, and every refusal."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residualign.data import BadImageError, load_data
from residualign.errors import BadInputError
from tests.data.make import class_folders, noise

COUNTS = {"bee": 5, "ant": 7, "Cow": 11}


def test_a_flat_folder_is_split_and_its_classes_are_sorted_by_name(tmp_path: Path) -> None:
    data = load_data(class_folders(tmp_path, COUNTS))
    assert data.class_names == ("Cow", "ant", "bee")
    assert [len(split) for split in data.splits] == [16, 3, 4]
    assert data.split_rule == "stratified 70/10/20, seed 42"
    for split in data.splits:
        folders = [key.split("/")[0] for key in split.keys]
        assert folders == [data.class_names[label] for label in split.labels]
    assert data.name == str(tmp_path)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_own_splits_are_used_as_they_are(tmp_path: Path, val: str) -> None:
    for folder, count in (("train", 3), (val, 2), ("test", 5)):
        class_folders(tmp_path / folder, {"a": count, "b": count})
    data = load_data(tmp_path)
    assert [(split.name, len(split)) for split in data.splits] == [("train", 6), ("val", 4), ("test", 10)]
    assert data.split_rule == "own"
    assert data.val.keys[:2] == (f"{val}/a/0.png", f"{val}/a/1.png")


def test_a_validation_split_is_taken_from_train_where_it_is_missing(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 10, "b": 20})
    class_folders(tmp_path / "test", {"a": 1, "b": 1})
    data = load_data(tmp_path)
    assert [split.class_counts(2) for split in data.splits] == [(9, 18), (1, 2), (1, 1)]
    assert data.split_rule == "own, val from train (stratified 10%, seed 42)"


def test_images_are_read_by_their_key_and_only_when_asked_for(tmp_path: Path) -> None:
    data = load_data(class_folders(tmp_path, {"a": 4, "b": 3}), split=False)
    i = data.train.keys.index("b/2.png")
    np.testing.assert_array_equal(data.train.image(i), noise(102))
    assert len(list(data.train.images())) == 7
    (tmp_path / "a" / "0.png").write_bytes(b"damaged")
    with pytest.raises(BadImageError, match=r"'a/0\.png'"):
        data.train.image(data.train.keys.index("a/0.png"))
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(BadImageError, match=r"'b/2\.png'.*cannot be read"):
        data.train.image(i)


def test_the_order_of_the_file_system_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders(tmp_path, COUNTS)
    expected = load_data(root)

    class Backwards:
        def __init__(self, path: Any) -> None:
            self.entries = sorted(real(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    real = os.scandir
    monkeypatch.setattr(os, "scandir", Backwards)
    again = load_data(root)
    assert [split.keys for split in again.splits] == [split.keys for split in expected.splits]


def test_a_moved_folder_gives_the_same_keys_and_splits(tmp_path: Path) -> None:
    here = load_data(class_folders(tmp_path / "here", COUNTS))
    shutil.move(tmp_path / "here", tmp_path / "there")
    there = load_data(tmp_path / "there")
    assert [split.keys for split in here.splits] == [split.keys for split in there.splits]


def test_a_split_survives_pickling_without_its_pixels(tmp_path: Path) -> None:
    train = load_data(class_folders(tmp_path, COUNTS)).train
    again = pickle.loads(pickle.dumps(train))
    assert (again.keys, again.labels) == (train.keys, train.labels)
    np.testing.assert_array_equal(again.image(3), train.image(3))


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 1, "b": 1})
    class_folders(tmp_path / "a", {"2024": 2, "train": 1})
    noise(1).save(tmp_path / "a" / "z.png")
    data = load_data(tmp_path, split=False)
    assert data.train.keys == ("a/0.png", "a/2024/0.png", "a/2024/1.png", "a/train/0.png", "a/z.png", "b/0.png")
    assert data.train.labels == (0, 0, 0, 0, 0, 1)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    class_folders(tmp_path, {"bus": 3, "train": 3})
    assert load_data(tmp_path).class_names == ("bus", "train")
    class_folders(tmp_path / "train", {"steam": 1})
    assert load_data(tmp_path).class_names == ("bus", "train")


def test_hidden_and_left_behind_files_are_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 3, "b": 3, ".cache": 1, "__MACOSX": 1})
    for name in ("a/.DS_Store", "a/Thumbs.db", "a/._0.png", "desktop.ini", "README.txt", "LICENSE"):
        (tmp_path / name).write_text("x")
    data = load_data(tmp_path)
    assert data.class_names == ("a", "b")
    assert data.strays == ()


def test_strays_are_listed_by_key(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 3, "b": 3})
    for name in ("a/labels.txt", "b/clip.mp4", "b/noextension", "loose.jpg"):
        (tmp_path / name).write_text("x")
    data = load_data(tmp_path)
    assert set(data.strays) == {"a/labels.txt", "b/clip.mp4", "b/noextension", "loose.jpg"}
    assert sum(map(len, data.splits)) == 6


def test_strays_beside_the_classes_of_a_split_are_listed_once(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 3, "b": 3})
    (tmp_path / "train" / "loose.png").write_text("x")
    (tmp_path / "loose.png").write_text("x")
    assert load_data(tmp_path).strays == ("loose.png", "train/loose.png")


def test_a_flat_folder_lists_a_loose_image_once(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "loose.png").write_text("x")
    assert load_data(tmp_path).strays == ("loose.png",)


def test_linked_class_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    class_folders(tmp_path / "elsewhere", {"b": 2})
    class_folders(tmp_path / "data", {"a": 2})
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data" / "a")
    assert load_data(tmp_path / "data", split=False).train.keys == ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


def test_a_reference_set_needs_no_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, {"deep": 2})
    noise(1).save(tmp_path / "deep" / "1.png")
    one_class = load_data(tmp_path, split=False)
    assert (one_class.class_names, len(one_class.train), one_class.split_rule) == (
        ("deep",),
        2,
        "own, nothing split off",
    )
    shutil.move(tmp_path / "deep" / "1.png", tmp_path / "z.png")
    shutil.rmtree(tmp_path / "deep")
    unlabeled = load_data(tmp_path, split=False)
    assert (unlabeled.class_names, unlabeled.train.keys) == (("images",), ("z.png",))
    assert unlabeled.notes == ("the images have no labels",)


def test_describe_is_json_and_says_how_it_was_split(tmp_path: Path) -> None:
    described = load_data(class_folders(tmp_path, {"a": 10, "b": 1})).describe()
    assert (described["n_train"], described["n_val"], described["n_test"]) == (8, 1, 2)
    assert described["split_rule"] == "stratified 70/10/20, seed 42"
    assert described["notes"] == ["class 'b' has too few images to be in every split"]


def empty_class(root: Path) -> None:
    class_folders(root, {"a": 2, "b": 2, "hollow": 0})
    (root / "hollow" / "notes.txt").write_text("x")


def empty_class_called_test(root: Path) -> None:
    class_folders(root, {"a": 2, "b": 2, "test": 0})


def loose_images(root: Path) -> None:
    noise(1).save(root / "1.png")


def splits_and_more(root: Path) -> None:
    class_folders(root / "train", {"a": 2, "b": 2})
    class_folders(root / "annotations", {"a": 2})


def split_twice(root: Path) -> None:
    for name in ("train", "val", "valid"):
        class_folders(root / name, {"a": 2, "b": 2})


def new_class(root: Path) -> None:
    class_folders(root / "train", {"a": 2, "b": 2})
    class_folders(root / "test", {"a": 2, "c": 2})


def no_classes(root: Path) -> None:
    class_folders(root / "test", {"a": 2, "b": 2})
    (root / "train").mkdir()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "holds no class folders and no images"),
        (loose_images, "holds images but no class folders"),
        (empty_class, r"class folder '.*hollow' holds no images"),
        (empty_class_called_test, r"class folder '.*test' holds no images"),
        (lambda root: class_folders(root, {"a": 2}), r"only one class \('a'\); at least two are needed"),
        (splits_and_more, r"holds splits \(train\) and other folders \(annotations\)"),
        (split_twice, "holds the val split twice: val and valid"),
        (new_class, "class 'c' is in test but not in train"),
        (no_classes, r"'.*train' holds no class folders"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(BadInputError, match=message):
        load_data(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="other systems take only UTF-8 names")
def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 2, "b": 2})
    try:
        (tmp_path / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(BadInputError, match="not valid UTF-8"):
        load_data(tmp_path)
