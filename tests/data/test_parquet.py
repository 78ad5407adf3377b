"""Parquet folders: every kind of image and label column, and every refusal."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from residualign.data import BadImageError, load_data
from residualign.errors import BadInputError
from tests.data.make import noise, parquet, png


def test_names_labels_and_images_come_from_the_file(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [1, 0, 1], names=["cat, big", "dog"])
    parquet(tmp_path / "validation.parquet", [0], names=["cat, big", "dog"])
    parquet(tmp_path / "test.parquet", [1, 1], names=["cat, big", "dog"])
    data = load_data(tmp_path)
    assert data.class_names == ("cat, big", "dog")
    assert (data.train.labels, data.val.labels, data.test.labels) == ((1, 0, 1), (0,), (1, 1))
    assert (data.train.keys, data.val.keys) == (("train/0", "train/1", "train/2"), ("val/0",))
    assert data.split_rule == "own"
    np.testing.assert_array_equal(data.train.image(2), noise(2))


def test_train_alone_is_split_and_keeps_its_rows(tmp_path: Path) -> None:
    data = load_data(parquet(tmp_path / "train.parquet", [0, 1, 2] * 10))
    assert [split.class_counts(3) for split in data.splits] == [(7,) * 3, (1,) * 3, (2,) * 3]
    for split in data.splits:
        for i, key in enumerate(split.keys):
            np.testing.assert_array_equal(split.image(i), noise(int(key.split("/")[1])))


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_rows_are_found_across_row_groups_and_parts(tmp_path: Path, compression: str) -> None:
    for part, n in ((0, 7), (1, 5)):
        name = f"train-0000{part}-of-00002.parquet"
        parquet(tmp_path / name, [0, 1] * 3 + [0] if n == 7 else [1] * n, row_group_size=3, compression=compression)
    train = load_data(tmp_path, split=False).train
    assert train.labels == (0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1)
    for i in [11, 0, 3, 2, 7, 6]:
        np.testing.assert_array_equal(train.image(i), noise(i if i < 7 else i - 7))


def test_pickling_leaves_the_bytes_out(tmp_path: Path) -> None:
    train = load_data(parquet(tmp_path / "train.parquet", [0, 1] * 50), split=False).train
    before = len(pickle.dumps(train))
    train.image(3)
    assert len(pickle.dumps(train)) == before
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train)).image(3), noise(3))


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["dog", "cat", "dog"], ("cat", "dog"), (1, 0, 1)),
        ([3, 1, 3], ("1", "3"), (1, 0, 1)),
        (pa.array([7, 2, 2], pa.uint8()), ("2", "7"), (1, 0, 0)),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), (1, 0, 1)),
        (pa.array(["b", "a", "b"], pa.large_string()), ("a", "b"), (1, 0, 1)),
    ],
)
def test_labels_without_declared_names(tmp_path: Path, labels: Any, names: Any, expected: tuple[int, ...]) -> None:
    images = [png(noise(i)) for i in range(3)]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    data = load_data(tmp_path, split=False)
    assert (data.class_names, data.train.labels) == (names, expected)
    np.testing.assert_array_equal(data.train.image(1), noise(1))


def test_a_list_of_names_is_what_integer_labels_point_into(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [3, 1, 3])
    data = load_data(tmp_path, split=False, classes=["a", "b", "c", "d"])
    assert (data.class_names, data.train.labels) == (("a", "b", "c", "d"), (3, 1, 3))
    with pytest.raises(BadInputError, match=r"label 3 in row 0 of train .* must be 0\.\.2"):
        load_data(tmp_path, split=False, classes=["a", "b", "c"])


def test_a_reference_set_needs_no_labels(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(noise(0)), png(noise(1))]}), tmp_path / "train.parquet")
    data = load_data(tmp_path, split=False)
    assert (data.class_names, data.train.labels) == (("images",), (0, 0))
    with pytest.raises(BadInputError, match="no column 'label'"):
        load_data(tmp_path)


def test_bad_images_are_named_by_their_key(tmp_path: Path) -> None:
    images = [{"bytes": b"", "path": None}, {"bytes": None, "path": "x.png"}, None, {"bytes": b"junk", "path": None}]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / "train.parquet")
    train = load_data(tmp_path, split=False).train
    for i, reason in enumerate(["0 bytes", "holds no bytes", "holds no bytes", "image format is not supported"]):
        with pytest.raises(BadImageError, match=f"'train/{i}'.*{reason}"):
            train.image(i)


def test_a_file_that_is_gone_or_damaged_later_is_named(tmp_path: Path) -> None:
    train = load_data(parquet(tmp_path / "train.parquet", [0, 1]), split=False).train
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(BadInputError, match=r"train\.parquet' cannot be read"):
        train.image(0)


def test_a_split_without_labels_is_left_out_with_a_note(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [0, 1] * 10)
    parquet(tmp_path / "test.parquet", [-1, -1, -1])
    data = load_data(tmp_path)
    assert data.notes == (f"the test split of {str(tmp_path)!r} has no labels and is left out",)
    assert data.split_rule == "stratified 70/10/20, seed 42"
    (tmp_path / "train.parquet").unlink()
    reference = load_data(tmp_path, split=False)
    assert (reference.class_names, reference.test.labels) == (("images",), (0, 0, 0))


def write(columns: dict[str, Any]) -> Callable[[Path], object]:
    return lambda root: pq.write_table(pa.table(columns), root / "train.parquet")


def declared(labels: list[Any]) -> Callable[[Path], object]:
    return lambda root: parquet(root / "train.parquet", labels, names=["a", "b"])


def two(train: list[Any], test: list[Any], names: tuple[Any, Any] = (None, None)) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        parquet(root / "train.parquet", train, names=names[0])
        parquet(root / "test.parquet", test, names=names[1])

    return prepare


def twice(root: Path) -> None:
    parquet(root / "train.parquet", [0, 1])
    parquet(root / "train-00000-of-00001.parquet", [0, 1])


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda root: (root / "train.parquet").write_bytes(b"not parquet"),
            r"train\.parquet' cannot be read as parquet",
        ),
        (lambda root: (root / "train.parquet").write_bytes(b""), r"train\.parquet' cannot be read as parquet"),
        (
            lambda root: parquet(root / "images.parquet", [0, 1]),
            "must be named train, val or test, got 'images.parquet'",
        ),
        (twice, "holds the train split twice"),
        (write({"img": [b"x"], "label": [0]}), "no column 'image', only img, label"),
        (write({"image": [b"x"], "y": [0]}), "no column 'label', only image, y"),
        (write({"image": ["x"], "label": [0]}), "'image' .* must be bytes or a struct with bytes, got string"),
        (write({"image": [{"path": "x"}], "label": [0]}), "'image' .* must be bytes or a struct with bytes"),
        (write({"image": [b"x"], "label": [0.5]}), "'label' .* must be an integer or text, got double"),
        (write({"image": [b"x", b"y"], "label": [0, None]}), "label in row 1 of train in .* is missing"),
        (write({"image": [b"x", b"y"], "label": ["a", " "]}), "label in row 1 of train in .* is missing"),
        (write({"image": [b"x", b"y"], "label": [[0, 1], [1]]}), r"'label' .* holds several labels \(list"),
        (write({"image": [b"x", b"y"], "label": [-1, -1]}), "no image of .* has a label"),
        (write({"image": [b"x", b"y"], "label": [0, -1]}), "label -1 in row 1 of train .* must be 0 or larger"),
        (write({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), "has no rows"),
        (write({"image": [b"x", b"y"], "label": [4, 4]}), "only one class"),
        (declared([0, 1, 2]), r"label 2 in row 2 of train .* must be 0\.\.1"),
        (two([0, 1], ["a", "b"]), "different kinds of labels"),
        (two([0, 1], [0, 1], names=(["a", "b"], ["b", "a"])), "name different classes"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(BadInputError, match=message):
        load_data(tmp_path)


def test_metadata_that_says_nothing_of_the_label_is_passed_over(tmp_path: Path) -> None:
    table = pa.table({"image": [png(noise(0)), png(noise(1))], "label": [0, 1]})
    for text in (b"{", b"[]", b'{"info": {"features": {}}}', b'{"info": {"features": {"label": {"dtype": "int64"}}}}'):
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), tmp_path / "train.parquet")
        assert load_data(tmp_path, split=False).class_names == ("0", "1")
    bad = b'{"info": {"features": {"label": {"names": [1, 2]}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": bad}), tmp_path / "train.parquet")
    with pytest.raises(BadInputError, match="not a list of texts"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("name", "sizes", "n_classes", "last"),
    [
        ("mnist", (5000, 1000, 2000), 10, "9"),
        ("gtsrb", (4300, 860, 1720), 43, "End of the ban on overtaking for trucks"),
        ("fashion_mnist", (5000, 1000, 2000), 10, "Ankle boot"),
    ],
)
def test_real_packs(pack: Callable[[str], Path], name: str, sizes: Any, n_classes: int, last: str) -> None:
    data = load_data(pack(name))
    assert tuple(map(len, data.splits)) == sizes
    assert (len(data.class_names), data.class_names[-1]) == (n_classes, last)
    assert {data.test.image(i).mode for i in range(0, sizes[2], 97)} == {"RGB"}


def test_the_reference_pack_is_used_whole(pack: Callable[[str], Path]) -> None:
    data = load_data(pack("imagenet_sample"), split=False)
    assert (len(data.train), len(data.val), len(data.test), len(data.class_names)) == (1000, 0, 0, 1000)
    assert data.train.image(999).mode == "RGB"
