"""WebDataset shards: layouts, samples, labels, random access, and every refusal."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residualign.data import BadImageError, load_data
from residualign.errors import BadInputError
from tests.data.make import class_folders, noise, png


def shard(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(start: int, stop: int, extension: str = "cls") -> dict[str, bytes]:
    """Image i is noise(i), of class i modulo 3."""
    files = {}
    for i in range(start, stop):
        label = json.dumps({"label": i % 3}).encode() if extension == "json" else f"{i % 3}\n".encode()
        files |= {f"{i:05}.{extension}": label, f"{i:05}.png": png(noise(i))}
    return files


def test_shards_named_by_split_with_class_names(tmp_path: Path) -> None:
    shard(tmp_path / "train-000000.tar", samples(0, 7))
    shard(tmp_path / "train-000001.tar", samples(7, 12, "json"))
    shard(tmp_path / "pets_val.tar", samples(20, 23))
    shard(tmp_path / "test" / "0.tar", samples(30, 35, "txt"))
    (tmp_path / "classnames.txt").write_text("cat\nbig dog\nemu\n\n", encoding="utf-8")
    data = load_data(tmp_path)
    assert data.class_names == ("cat", "big dog", "emu")
    assert [len(split) for split in data.splits] == [12, 3, 5]
    assert data.train.labels == tuple(i % 3 for i in range(12))
    assert data.train.keys[6:8] == ("train-000000.tar/00006", "train-000001.tar/00007")
    assert data.test.keys[0] == "test/0.tar/00030"
    for i in (11, 0, 7, 3):
        np.testing.assert_array_equal(data.train.image(i), noise(i))
    np.testing.assert_array_equal(data.test.image(4), noise(34))


def test_one_shard_and_shards_without_a_split_are_for_training(tmp_path: Path) -> None:
    path = shard(tmp_path / "pets-0.tar", samples(0, 30))
    one = load_data(path)
    whole = load_data(tmp_path)
    assert one.split_rule == whole.split_rule == "stratified 70/10/20, seed 42"
    assert one.train.keys == whole.train.keys
    assert one.class_names == ("0", "1", "2")


def test_texts_are_classes_and_digits_among_them_too(tmp_path: Path) -> None:
    files = {
        "a.png": png(noise(0)),
        "a.cls": b"dog",
        "b.png": png(noise(1)),
        "b.cls": b" 7 ",
        "c.jpg": png(noise(2)),
        "c.cls": b"dog",
    }
    shard(tmp_path / "x.tar", files)
    data = load_data(tmp_path, split=False)
    assert (data.class_names, data.train.labels) == (("7", "dog"), (1, 0, 1))


def test_what_wins_as_label(tmp_path: Path) -> None:
    files = {
        **{"a.png": png(noise(0)), "a.cls": b"1", "a.json": b'{"label": 2}', "a.txt": b"3"},
        **{"b.png": png(noise(1)), "b.json": b'{"caption": "x", "cls": 2}', "b.txt": b"3"},
        **{"c.png": png(noise(2)), "c.json": b'{"caption": "x"}', "c.txt": b"3"},
    }
    shard(tmp_path / "x.tar", files)
    assert load_data(tmp_path, split=False).train.labels == (0, 1, 2)


def test_a_sample_is_the_path_up_to_the_first_dot(tmp_path: Path) -> None:
    files = {
        "./a/1.png": png(noise(0)),
        "a/1.cls": b"0",
        "b/1.input.png": png(noise(1)),
        "b/1.cls": b"1",
        "b/._1.png": b"junk",
    }
    shard(tmp_path / "x.tar", files)
    data = load_data(tmp_path, split=False)
    assert data.train.keys == ("x.tar/a/1", "x.tar/b/1")
    np.testing.assert_array_equal(data.train.image(1), noise(1))


def test_samples_without_an_image_are_strays(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", {**samples(0, 4), "9.cls": b"1", "__index__.txt": b"x"})
    data = load_data(tmp_path, split=False)
    assert data.strays == ("x.tar/9", "x.tar/__index__")
    assert len(data.train) == 4


def test_a_split_survives_pickling_and_a_moved_folder(tmp_path: Path) -> None:
    shard(tmp_path / "here" / "x.tar", samples(0, 9))
    train = load_data(tmp_path / "here", split=False).train
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(again.image(5), noise(5))
    (tmp_path / "here").rename(tmp_path / "there")
    assert load_data(tmp_path / "there", split=False).train.keys == train.keys


def test_bad_images_are_named_by_their_key(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "x.tar",
        {"a.png": b"", "a.cls": b"0", "b.png": b"junk", "b.cls": b"1", "c.png": png(noise(1)), "c.cls": b"1"},
    )
    train = load_data(tmp_path, split=False).train
    for i, reason in enumerate(["0 bytes", "image format is not supported"]):
        with pytest.raises(BadImageError, match=f"'x.tar/{'ab'[i]}'.*{reason}"):
            train.image(i)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadImageError, match=r"'x.tar/c'.*its shard ends before"):
        train.image(2)
    path.unlink()
    with pytest.raises(BadImageError, match=r"'x.tar/c'.*its shard cannot be read"):
        train.image(2)


def test_class_folders_with_a_tar_among_them_are_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "flat", {"a": 3, "b": 3})
    shard(tmp_path / "flat" / "backup.tar", samples(0, 3))
    assert load_data(tmp_path / "flat").class_names == ("a", "b")
    class_folders(tmp_path / "split" / "train", {"a": 3, "b": 3})
    shard(tmp_path / "split" / "train.tar", samples(0, 3))
    assert load_data(tmp_path / "split").class_names == ("a", "b")


def test_shards_without_labels(tmp_path: Path) -> None:
    shard(tmp_path / "train.tar", samples(0, 30))
    shard(tmp_path / "test.tar", {"0.png": png(noise(0)), "1.png": png(noise(1))})
    data = load_data(tmp_path)
    assert data.notes == (f"the test split of {str(tmp_path)!r} has no labels and is left out",)
    (tmp_path / "train.tar").unlink()
    assert load_data(tmp_path, split=False).class_names == ("images",)
    with pytest.raises(BadInputError, match=r"no image of .* has a label"):
        load_data(tmp_path)


def truncated(within: int) -> Any:
    def prepare(root: Path) -> None:
        path = shard(root / "train-0.tar", samples(0, 5))
        path.write_bytes(path.read_bytes()[:within])

    return prepare


def files(**content: bytes) -> Any:
    return lambda root: shard(root / "train-0.tar", {name.replace("_", "."): value for name, value in content.items()})


IMAGE = png(noise(0))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            truncated(5 * 512 + 3),
            r"shard 'train-0.tar' is truncated or damaged after '00001.cls'",
        ),
        (truncated(3 * 512 + 40), r"shard 'train-0.tar' is truncated or damaged after '00000\.png'"),
        (truncated(100), r"shard 'train-0.tar' is not a tar file, or is damaged"),
        (lambda root: (root / "train-0.tar").write_bytes(b"x" * 2000), r"shard 'train-0.tar' is not a tar file"),
        (lambda root: shard(root / "train-0.tar", samples(0, 5), "w:gz"), r"shard 'train-0.tar' is compressed"),
        (
            lambda root: shard(root / "train-0.tar.gz", samples(0, 5), "w:gz"),
            r"'train-0.tar.gz' is compressed, .* unpack it to a .tar",
        ),
        (files(a_png=IMAGE, a_jpg=IMAGE, a_cls=b"0"), r"sample 'train-0.tar/a' has 2 images \('a.png', 'a.jpg'\)"),
        (files(a_png=IMAGE, a_cls=b"0", b_png=IMAGE), r"the label in sample 'train-0.tar/b' .* is missing"),
        (files(a_png=IMAGE, a_cls=b"0\n1"), r"sample 'train-0.tar/a' .* has several labels"),
        (files(a_png=IMAGE, a_json=b'{"label": [0, 1]}'), r"sample 'train-0.tar/a' .* has several labels \(0, 1\)"),
        (
            files(a_png=IMAGE, a_cls=b"-1", b_png=IMAGE, b_cls=b"1"),
            r"label -1 in sample 'train-0.tar/a' .* must be 0 or larger",
        ),
        (files(a_png=IMAGE, a_json=b"{"), r"'a.json' of sample 'train-0.tar/a' is not JSON"),
        (files(a_png=IMAGE, a_cls=b"\xff"), r"'a.cls' of sample 'train-0.tar/a' is not text"),
        (files(a_cls=b"0"), r"shards of train in .* hold no images"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(BadInputError, match=message):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-0.tar", "more.tar"], r"others, such as 'more.tar', do not"),
        (["train-val.tar"], r"'train-val.tar' contains several splits: train, val"),
        (["train-0.tar", "train/0.tar"], r"holds the train split twice: \., train"),
    ],
)
def test_names_that_tell_no_single_split(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        shard(tmp_path / name, samples(0, 4))
    with pytest.raises(BadInputError, match=message):
        load_data(tmp_path)


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for _ in range(2):
            info = tarfile.TarInfo("a.png")
            info.size = len(IMAGE)
            tar.addfile(info, io.BytesIO(IMAGE))
    with pytest.raises(BadInputError, match=r"sample 'x.tar/a' has the file 'a.png' twice"):
        load_data(tmp_path)


def test_class_names_that_do_not_fit(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", samples(0, 9))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(BadInputError, match=r"label 2 in sample 'x.tar/00002' .* must be 0\.\.1"):
        load_data(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(BadInputError, match="one class name per line, all different"):
        load_data(tmp_path)
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(BadInputError, match="two files of class names"):
        load_data(tmp_path)
