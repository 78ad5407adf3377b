"""Folders as people have them: other spellings of splits, sets one level too high or low, unlabeled test images."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest

from residualign.data import load_data
from residualign.data.folders import read_folder
from residualign.data.images import BadImageError, decode
from residualign.data.same_names import matched
from residualign.errors import BadInputError
from tests.data.make import class_folders, noise

AB = {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training", "Testing", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("images_train", "images_val", "val"),
        ("train", "dev", "val"),
        ("training", "eval", "val"),
    ],
)
def test_other_spellings_of_splits(tmp_path: Path, train: str, other: str, split: str) -> None:
    class_folders(tmp_path / train, AB)
    class_folders(tmp_path / other, {"a": 1, "b": 2})
    data = load_data(tmp_path)
    assert data.class_names == ("a", "b")
    assert getattr(data, split).keys == (f"{other}/a/0.png", f"{other}/b/0.png", f"{other}/b/1.png")


def test_classes_with_words_of_splits_stay_classes(tmp_path: Path) -> None:
    assert load_data(class_folders(tmp_path, {"bullet_train": 4, "test_tube": 4})).class_names[0] == "bullet_train"
    class_folders(tmp_path / "bullet_train", {"day": 1, "night": 1})
    assert load_data(tmp_path).class_names == ("bullet_train", "test_tube")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("photo", "sketch"), r"'photo', 'sketch' in .* hold the same folders \('a', 'b'\).* give one of them"),
        (("archive",), r"only one class \('archive'\).*give '.*archive'"),
    ],
)
def test_a_root_that_is_too_high_names_the_right_one(tmp_path: Path, folders: tuple[str, ...], message: str) -> None:
    for name in folders:
        class_folders(tmp_path / name, AB)
    with pytest.raises(BadInputError, match=message):
        load_data(tmp_path)
    assert load_data(tmp_path / folders[0]).class_names == ("a", "b")


def test_splits_inside_of_classes_are_refused(tmp_path: Path) -> None:
    for name in AB:
        class_folders(tmp_path / name, {"train": 2, "test": 1})
    with pytest.raises(BadInputError, match="put the splits above"):
        load_data(tmp_path)


def test_a_root_that_is_too_low_names_the_right_one(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", AB)
    with pytest.raises(BadInputError, match=r"one class of several, give '.*data'"):
        load_data(tmp_path / "data" / "a")


def test_a_test_folder_of_loose_images_is_left_out_with_a_note(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 10, "b": 10})
    (tmp_path / "test").mkdir()
    noise(1).save(tmp_path / "test" / "0.png")
    data = load_data(tmp_path)
    assert data.notes == (f"the test split of {str(tmp_path)!r} has no labels (no class folders) and is left out",)
    assert [len(split) for split in data.splits] == [14, 2, 4]


def test_an_empty_class_folder_is_left_out_where_bad_images_are(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 4, "hollow": 0, "z": 4})
    with pytest.raises(BadInputError, match=r"hollow' holds no images.*skip_bad=True"):
        load_data(tmp_path)
    data = load_data(tmp_path, skip_bad=True)
    assert (data.class_names, set(data.train.labels)) == (("a", "z"), {0, 1})
    assert data.notes[0] == "1 class folder without images left out: 'hollow'"


def test_pictures_of_phones_are_named_for_what_they_are(tmp_path: Path) -> None:
    class_folders(tmp_path, {**AB, "phone": 0})
    (tmp_path / "phone" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(BadInputError, match="a picture in HEIC: convert such files to JPEG or PNG"):
        load_data(tmp_path)
    with pytest.raises(BadImageError, match="a picture in HEIC, which is not read; convert it to JPEG"):
        decode((tmp_path / "phone" / "IMG_1.HEIC").read_bytes(), "IMG_1.HEIC")


def test_a_class_is_the_same_in_two_unicode_forms(tmp_path: Path) -> None:
    names = ("caf\u00e9", "th\u00e9")
    class_folders(tmp_path / "train", dict.fromkeys(names, 4))
    class_folders(tmp_path / "test", {unicodedata.normalize("NFD", name): 1 for name in names})
    data = load_data(tmp_path)
    assert (data.class_names, data.test.labels) == (names, (0, 1))


def test_two_folders_of_one_name_in_two_unicode_forms_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, {"caf\u00e9": 3, "cafe\u0301": 3, "tea": 3})
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes them for one")
    with pytest.raises(BadInputError, match="same name in two Unicode forms"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "known", "expected"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["cat", "Cat"], ["Cat", "cat"], [1, 0]),
        (["CAT"], ["Cat", "cat"], [None]),
        (["CAT", "Cat"], ["cat"], [None, None]),
        (["1", "2"], ["00002", "00001"], [1, 0]),
        ([" a "], ["a"], [0]),
        (["x"], ["a"], [None]),
    ],
)
def test_names_match_only_where_nothing_else_does(wanted: list[str], known: list[str], expected: list[object]) -> None:
    assert matched(wanted, known) == expected


@pytest.mark.slow
def test_many_classes_take_linear_time(tmp_path: Path) -> None:
    def seconds(n: int) -> float:
        root = tmp_path / str(n)
        for i in range(n):
            (root / f"{i:05}").mkdir(parents=True)
            (root / f"{i:05}" / "0.png").touch()
        began = time.process_time()
        read_folder(root)
        return time.process_time() - began

    few, many = seconds(2000), seconds(8000)
    assert many < 6.5 * few
