"""Data sets of the hub, from a hub on this machine: columns, splits, streaming, the cache, and every refusal."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Features, Image, List, Value

from residualign.data import BadImageError, load_data
from residualign.data.hub import parse_hub_name
from residualign.data.hub_rows import StreamedRows
from residualign.errors import BadInputError
from tests.data.make import hub_parquet, hub_repo, noise, png
from tests.hub_server import HubServer

NAMES = ["cat", "dog", "emu"]
PETS = Features({"img": Image(), "label": ClassLabel(names=NAMES), "note": Value("string")})


def stored(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"bytes": png(noise(number)), "path": None} for number in numbers]


def pets(numbers: Sequence[int], labels: Sequence[int] | None = None, **options: Any) -> bytes:
    """Image i is noise(i), of class i modulo 3 where no labels are given."""
    labels = [number % 3 for number in numbers] if labels is None else labels
    columns = {"img": stored(numbers), "label": labels, "note": ["x" * 17] * len(labels)}
    return hub_parquet(columns, PETS, row_group_size=5, **options)


def one_split(columns: dict[str, Any], features: dict[str, Any]) -> dict[str, bytes]:
    return hub_repo({"train": hub_parquet(columns, Features(features))})


@pytest.fixture
def repo(hub: HubServer) -> str:
    hub.repos["org/pets"] = hub_repo(
        {"train": pets(range(31)), "validation": pets(range(40, 47)), "test": pets(range(50, 61))}
    )
    return "hf:org/pets"


@pytest.mark.parametrize("stream", [False, True])
def test_splits_labels_names_and_images(repo: str, stream: bool) -> None:
    data = load_data(repo, stream=stream)
    assert data.class_names == tuple(NAMES)
    assert data.split_rule == "own"
    assert [len(split) for split in data.splits] == [31, 7, 11]
    assert data.train.labels == tuple(i % 3 for i in range(31))
    assert data.val.keys[:2] == ("val/0", "val/1")
    for i in (0, 5, 30):
        np.testing.assert_array_equal(data.train.image(i), noise(i))
    np.testing.assert_array_equal(data.test.image(10), noise(60))
    assert (data.notes, data.strays, data.name) == ((), (), repo)


def test_a_missing_split_is_made_alike_with_and_without_streaming(hub: HubServer) -> None:
    hub.repos["org/pets"] = hub_repo({"train": pets(range(31))})
    kept, streamed = load_data("hf:org/pets"), load_data("hf:org/pets", stream=True)
    assert kept.split_rule == streamed.split_rule == "stratified 70/10/20, seed 42"
    for one, other in zip(kept.splits, streamed.splits, strict=True):
        assert (one.keys, one.labels, one.rows) == (other.keys, other.labels, other.rows)
        for i, key in enumerate(other.keys):
            np.testing.assert_array_equal(other.image(i), noise(int(key.removeprefix("train/"))))


def test_streaming_reads_labels_alone_then_each_image_once(hub: HubServer) -> None:
    big = np.random.default_rng(0).integers(0, 256, (61, 67, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    from PIL import Image as Pillow

    Pillow.fromarray(big).save(buffer, "png")
    images = [{"bytes": buffer.getvalue() + bytes([i]), "path": None} for i in range(200)]
    content = hub_parquet(
        {"img": images, "label": [i % 3 for i in range(200)], "note": ["x"] * 200},
        PETS,
        row_group_size=50,
        compression="none",
    )
    hub.repos["org/pets"] = hub_repo({"train": content})
    data = load_data("hf:org/pets", stream=True, split=False)
    assert hub.sent < len(content) / 2
    hub.sent = 0
    for i in range(len(data.train)):
        assert data.train.image(i).size == (67, 61)
    assert hub.sent < 1.5 * len(content)


def test_a_split_made_of_the_training_images_has_a_cursor_of_its_own(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["org/pets"] = hub_repo({"train": pets(range(31))})
    data = load_data("hf:org/pets", stream=True)
    opened = []
    plain = type(data.train.source.stream).open
    monkeypatch.setattr(
        type(data.train.source.stream), "open", lambda self, columns: opened.append(columns) or plain(self, columns)
    )
    for i in range(3):  # by turns
        data.train.image(i)
        data.test.image(i)
    assert opened == [["img"], ["img"]]


def test_threads_may_ask_out_of_order(hub: HubServer) -> None:
    hub.repos["org/pets"] = hub_repo({"train": pets(range(31))})
    split = load_data("hf:org/pets", stream=True, split=False).train
    source = split.source
    assert isinstance(source, StreamedRows)
    found: dict[int, Any] = {}

    def read(rows: Sequence[int]) -> None:
        for row in rows:
            found[row] = np.asarray(split.image(row))

    threads = [threading.Thread(target=read, args=(range(start, 31, 3),)) for start in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in range(31):
        np.testing.assert_array_equal(found[row], noise(row))
    assert len(source._waiting) == 0


def test_going_back_begins_again_and_is_right(repo: str) -> None:
    train = load_data(repo, stream=True).train
    for i in (30, 3, 3, 29, 0):
        np.testing.assert_array_equal(train.image(i), noise(i))


@pytest.mark.parametrize("stream", [False, True])
def test_a_split_survives_pickling_without_its_pixels(repo: str, stream: bool) -> None:
    train = load_data(repo, stream=stream).train
    train.image(4)
    held = pickle.dumps(train)
    assert len(held) < 6000
    again = pickle.loads(held)
    assert (again.keys, again.labels) == (train.keys, train.labels)
    np.testing.assert_array_equal(again.image(7), noise(7))


@pytest.mark.parametrize("stream", [False, True])
def test_our_own_rule_decodes(hub: HubServer, stream: bool) -> None:
    """16-bit grays would be clipped to white by Pillow's own conversion, which the library's decoding leads to."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(np.full((3, 5), 257 * 100, dtype=np.uint16)).save(buffer, "png")
    images = [{"bytes": buffer.getvalue(), "path": None}, {"bytes": b"junk", "path": None}, None]
    hub.repos["org/x"] = one_split(
        {"image": images, "label": [0, 1, 1]}, {"image": Image(), "label": ClassLabel(names=["a", "b"])}
    )
    train = load_data("hf:org/x", stream=stream, split=False).train
    assert np.asarray(train.image(0)).max() == np.asarray(train.image(0)).min() == 100
    for row, reason in ((1, "image format is not supported"), (2, "holds no bytes")):
        with pytest.raises(BadImageError, match=f"'train/{row}'.*{reason}"):
            train.image(row)


@pytest.mark.parametrize("stream", [False, True])
def test_class_folders_on_the_hub(hub: HubServer, stream: bool) -> None:
    """The library then tells where the file of an image is, and not its bytes."""
    hub.repos["org/folders"] = {f"train/{NAMES[i % 2]}/{i}.png": png(noise(i)) for i in range(7)}
    train = load_data("hf:org/folders", stream=stream, split=False).train
    assert sorted(train.labels) == [0, 0, 0, 0, 1, 1, 1]
    found = {np.asarray(image).tobytes() for image in train.images()}
    assert found == {np.asarray(noise(i)).tobytes() for i in range(7)}


def test_a_config_and_a_revision_are_taken_by_name(hub: HubServer) -> None:
    small, large = hub_repo({"train": pets(range(3))}, "small"), hub_repo({"train": pets(range(6))}, "large")
    card = small["README.md"].decode().removesuffix("---\n") + large["README.md"].decode().split("configs:\n")[1]
    hub.repos["org/pets"] = {**small, **large, "README.md": card.encode()}
    assert len(load_data("hf:org/pets:large", split=False).train) == 6
    commit = hub.sha("org/pets")
    assert len(load_data(f"hf:org/pets:small@{commit}", split=False, stream=True).train) == 3
    with pytest.raises(BadInputError, match=r"'hf:org/pets' cannot be loaded: Config name is missing.*small.*large"):
        load_data("hf:org/pets")
    with pytest.raises(BadInputError, match=r"'hf:org/pets:tiny' cannot be loaded: .*tiny.*not found"):
        load_data("hf:org/pets:tiny")
    with pytest.raises(BadInputError, match=r"'hf:org/pets:small@old' has no such revision"):
        load_data("hf:org/pets:small@old")


@pytest.mark.parametrize(
    "name", ["hf:", "hf:pets", "hf:org/", "hf:a/b/c", "hf:org/pets:", "hf:org/pets@", "hf:../pets", "hf:org/pe ts"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="must be hf:org/name"):
        parse_hub_name(name)


def test_a_name_and_its_parts() -> None:
    found = parse_hub_name("hf:org/pets.v2:with-images@refs/convert/parquet")
    assert (found.repo, found.config, found.revision) == ("org/pets.v2", "with-images", "refs/convert/parquet")


def test_what_was_downloaded_is_there_without_the_hub(
    repo: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_data(repo)
    switch_off(monkeypatch)
    again = load_data(repo)
    assert [split.keys for split in again.splits] == [split.keys for split in first.splits]
    assert again.notes == first.notes
    np.testing.assert_array_equal(again.val.image(3), noise(43))
    with pytest.raises(BadInputError, match=r"leave out @main to use it"):
        load_data(repo + "@main")
    with pytest.raises(BadInputError, match=r"'hf:org/other' is not in the local cache, and the hub"):
        load_data("hf:org/other")
    streamed = load_data(repo, stream=True)  # from what was downloaded
    np.testing.assert_array_equal(streamed.val.image(3), noise(43))


def switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1 does before the start."""
    import datasets.config as of_datasets
    import huggingface_hub.constants as of_hub

    monkeypatch.setattr(of_hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(of_datasets, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_hub_out_of_reach_is_refused_at_once(hub: HubServer, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    import datasets.config as of_datasets

    def tries_for_half_a_minute(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(of_datasets, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.load_dataset", tries_for_half_a_minute)
    monkeypatch.setattr("datasets.load_dataset_builder", tries_for_half_a_minute)
    with pytest.raises(BadInputError, match=r"'hf:org/pets' is not in the local cache, and the hub cannot be reached"):
        load_data("hf:org/pets", stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_and_gated_sets(hub: HubServer, stream: bool) -> None:
    with pytest.raises(BadInputError, match=r"no data set 'hf:org/nothing' on the hub, or it is private"):
        load_data("hf:org/nothing", stream=stream)
    hub.repos["org/gated"] = hub_repo({"train": pets(range(3))})
    hub.gated.add("org/gated")
    with pytest.raises(BadInputError, match=r"'hf:org/gated' is gated: ask for access"):
        load_data("hf:org/gated", stream=stream)


def test_scripts_and_damaged_files_are_refused(hub: HubServer) -> None:
    hub.repos["org/scripted"] = {"scripted.py": b"print()"}
    with pytest.raises(
        BadInputError, match=r"'hf:org/scripted' cannot be loaded: Dataset scripts are no longer supported"
    ):
        load_data("hf:org/scripted")
    hub.repos["org/damaged"] = hub_repo({"train": b"PAR1 nothing PAR1"})
    for stream in (False, True):
        with pytest.raises(BadInputError, match=r"'hf:org/damaged' cannot be loaded: "):
            load_data("hf:org/damaged", stream=stream)


def test_other_splits_are_left_out_with_a_note(hub: HubServer) -> None:
    hub.repos["org/pets"] = hub_repo({"train": pets(range(9)), "test": pets(range(5)), "extra": pets(range(3))})
    data = load_data("hf:org/pets")
    assert data.notes[0] == "the split 'extra' of 'hf:org/pets' is not used"
    assert sum(map(len, data.splits)) == 14


def test_a_single_split_of_any_name_is_for_training(hub: HubServer) -> None:
    hub.repos["org/pets"] = hub_repo({"full": pets(range(30))})
    data = load_data("hf:org/pets")
    assert (data.split_rule, data.notes) == ("stratified 70/10/20, seed 42", ())
    hub.repos["org/pets"] = hub_repo({"one": pets(range(30)), "two": pets(range(30))})
    with pytest.raises(BadInputError, match="no split called train, val or test, only one, two"):
        load_data("hf:org/pets")
    hub.repos["org/pets"] = hub_repo({"train": pets(range(3)), "valid": pets(range(3)), "validation": pets(range(3))})
    with pytest.raises(BadInputError, match="holds the val split twice: valid and validation"):
        load_data("hf:org/pets")


@pytest.mark.parametrize("stream", [False, True])
def test_a_split_without_labels_is_left_out_with_a_note(hub: HubServer, stream: bool) -> None:
    hub.repos["org/pets"] = hub_repo({"train": pets(range(30)), "test": pets(range(5), [-1] * 5)})
    data = load_data("hf:org/pets", stream=stream)
    assert data.notes == ("the test split of 'hf:org/pets' has no labels and is left out",)
    assert data.split_rule == "stratified 70/10/20, seed 42"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1, 0], r"label -1 in row 2 of train in 'hf:org/pets' must be 0 or larger \(-1 means no label\)"),
        ([0, None, 1, 0], r"the label in row 1 of train in 'hf:org/pets' is missing"),
        ([-1, None, -1, -1], r"no image of 'hf:org/pets' has a label"),
    ],
)
def test_labels_that_are_missing(hub: HubServer, labels: list[Any], message: str, stream: bool) -> None:
    hub.repos["org/pets"] = hub_repo({"train": pets(range(4), labels)})
    with pytest.raises(BadInputError, match=message):
        load_data("hf:org/pets", stream=stream)


@pytest.mark.parametrize(
    ("columns", "features", "names"),
    [
        ({"picture": 4, "labels": ["b", "a", "b", "a"]}, {"labels": Value("string")}, ("a", "b")),
        ({"picture": 4, "class": [7, 5, 7, 5]}, {"class": Value("int32")}, ("5", "7")),
        (
            {"picture": 4, "breed": [1, 0, 1, 0], "label": ["x"] * 4},
            {"breed": ClassLabel(names=["p", "q"]), "label": Value("string")},
            ("p", "q"),
        ),
    ],
)
def test_columns_are_found_by_their_features(
    hub: HubServer, columns: dict[str, Any], features: dict[str, Any], names: Any
) -> None:
    hub.repos["org/x"] = one_split({**columns, "picture": stored(range(4))}, {"picture": Image(), **features})
    data = load_data("hf:org/x", split=False)
    assert (data.class_names, data.train.labels) == (names, (1, 0, 1, 0))
    np.testing.assert_array_equal(data.train.image(2), noise(2))


def test_plain_bytes_are_images_by_their_name(hub: HubServer) -> None:
    raw = [png(noise(i)) for i in range(3)]
    hub.repos["org/x"] = one_split(
        {"img": raw, "blob": raw, "label": [0, 1, 0]},
        {"img": Value("binary"), "blob": Value("binary"), "label": Value("int64")},
    )
    np.testing.assert_array_equal(load_data("hf:org/x", split=False).train.image(1), noise(1))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"a": Image(), "b": Image(), "label": Value("int64")}, r"several image columns \(a, b\)"),
        ({"text": Value("string"), "label": Value("int64")}, r"no image column, only text, label"),
        (
            {"a": Image(), "fine": ClassLabel(names=NAMES), "coarse": ClassLabel(names=NAMES)},
            r"several label columns \(fine, coarse\)",
        ),
        ({"a": Image(), "label": Value("int64"), "class": Value("int64")}, r"several label columns \(label, class\)"),
        ({"a": Image(), "y": Value("int64")}, "no label column, only a, y"),
        ({"a": Image(), "labels": List(Value("int64"))}, r"'labels' of 'hf:org/x' holds several labels per image"),
        (
            {"a": Image(), "label": Value("float32")},
            r"label 1.0 in row 0 of train in 'hf:org/x' must be an integer or text",
        ),
        ({"a": Image(), "label": Value("bool")}, r"label True in row 0 of train .* must be an integer or text"),
    ],
)
def test_columns_that_cannot_be_told_are_refused_by_name(
    hub: HubServer, features: dict[str, Any], message: str, stream: bool
) -> None:
    def cells(feature: Any) -> list[Any]:
        if isinstance(feature, Image):
            return stored([0])
        return [[1, 2]] if isinstance(feature, List) else ["x"] if getattr(feature, "dtype", "") == "string" else [1]

    hub.repos["org/x"] = one_split({name: cells(feature) for name, feature in features.items()}, features)
    with pytest.raises(BadInputError, match=message):
        load_data("hf:org/x", stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_reference_set_needs_no_labels(hub: HubServer, stream: bool) -> None:
    hub.repos["org/x"] = one_split({"image": stored(range(5))}, {"image": Image()})
    data = load_data("hf:org/x", split=False, stream=stream)
    assert (data.class_names, data.train.labels) == (("images",), (0,) * 5)
    hub.repos["org/y"] = hub_repo({"train": pets(range(4), [-1] * 4)})
    assert load_data("hf:org/y", split=False, stream=stream).class_names == ("images",)


def test_an_existing_path_wins(repo: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.data.make import class_folders

    class_folders(tmp_path / "hf:org" / "pets", {"one": 3, "two": 3})
    monkeypatch.chdir(tmp_path)
    assert load_data(repo).class_names == ("one", "two")
