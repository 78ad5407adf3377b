"""What was written is what is read, split by split, and anything else is refused by name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.store import ShardRange, SplitPlan, Store, StorePlan, StoreWriter, remove_store, shards
from residualign.store.reader import StoreReader
from tests.spectrum.random_tower import DIM, HEADS, LAYERS, make_coordinates, make_maps
from tests.store.make_store import BROKEN, coordinates_of, fill, make_plan, text_vectors, tree, write_pending


def assert_equal(got, expected, **tolerance):
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(getattr(got, name), tensor, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture
def copy(filled, tmp_path):
    """A store whose files a test may damage."""
    return shutil.copytree(filled.path, tmp_path / "copy")


def test_what_was_written_is_read(filled):
    plan = make_plan()
    for name in ("train", "val", "test"):
        split = filled.split(name)
        assert split.keys == plan.splits[name].keys
        assert split.labels.tolist() == list(plan.splits[name].labels)
        assert split.labels.dtype == torch.int64
        assert len(split) == len(plan.splits[name])
    expected = coordinates_of(plan.splits["train"].keys)
    assert_equal(filled.split("train").coordinates(), expected)
    torch.testing.assert_close(filled.split("train").embeddings(), expected.output, rtol=0, atol=0)


def test_the_store_says_what_it_holds(filled):
    assert (filled.units.n_layers, filled.units.n_heads) == (LAYERS, HEADS)
    assert filled.class_names == ("a", "b", "c")
    assert filled.templates == ("a photo of {}.",)
    assert filled.logit_scale == 100.0
    assert filled.model["fingerprint"] == "f00d"
    assert filled.data == {"name": "noise"}
    assert filled.residual_error == 1e-7
    assert filled.skipped == ()
    assert filled.splits == ("train", "val", "test")
    assert "train 61, val 11, test 0" in repr(filled)
    assert filled.tables["classes"] == [
        {"class": "a", "train": 21, "val": 4, "test": 0},
        {"class": "b", "train": 20, "val": 4, "test": 0},
        {"class": "c", "train": 20, "val": 3, "test": 0},
    ]
    torch.testing.assert_close(filled.text_vectors, text_vectors(), rtol=0, atol=0)
    for name, tensor in vars(make_maps()).items():
        torch.testing.assert_close(getattr(filled.maps, name), tensor, rtol=0, atol=0)


def test_a_model_without_text_has_no_text_vectors(tmp_path):
    with StoreWriter(tmp_path / "store", make_plan(logit_scale=None), make_maps()) as writer:
        write_pending(writer)
        store = writer.finish()
    assert store.text_vectors is None
    assert store.logit_scale is None
    assert not (tmp_path / "store" / "classes.safetensors").exists()


@pytest.mark.parametrize("size", [1, 7, 13, 61, 1000])
def test_batches_follow_one_another_across_shards(filled, size):
    batches = list(filled.split("train").batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert_equal(Coordinates.cat(batches), filled.split("train").coordinates())


def test_a_batch_of_none_is_refused(filled):
    with pytest.raises(BadInputError, match="at least one image"):
        next(filled.split("train").batches(0))


def test_an_empty_split_has_empty_coordinates(filled):
    split = filled.split("test")
    assert len(split) == 0
    assert list(split.batches(5)) == []
    assert split.coordinates().heads.shape[1:] == filled.split("train").coordinates().heads.shape[1:]
    assert split.embeddings().shape == (0, DIM)
    assert split.labels.shape == (0,)


def test_taking_images_keeps_their_order_keys_and_labels(filled):
    split = filled.split("train")
    chosen = torch.tensor([60, 3, 4, 5, 13, 12, 3, 0])
    taken = split.take(chosen)
    assert taken.keys == tuple(split.keys[i] for i in chosen)
    assert taken.labels.tolist() == split.labels[chosen].tolist()
    assert_equal(taken.coordinates(), split.coordinates()[chosen])
    assert_equal(Coordinates.cat(taken.batches(3)), split.coordinates()[chosen])
    assert taken.take(torch.tensor([1])).keys == (split.keys[3],)
    assert len(split.take(torch.tensor([], dtype=torch.int64)).coordinates()) == 0
    for outside in (61, -1):
        with pytest.raises(IndexError, match=f"61 images, asked for {outside}"):
            split.take(torch.tensor([5, outside, 7]))


def test_skipped_images_are_named_and_left_out(tmp_path):
    store = fill(tmp_path / "store", skip=BROKEN)
    assert store.skipped == BROKEN
    assert store.split("val").skipped == ("val/0",)
    content = store.to_json()
    assert (content["skipped"], content["splits"]) == (list(BROKEN), {"train": 58, "val": 10, "test": 0})
    plan = make_plan()
    for name in ("train", "val"):
        kept = [key not in BROKEN for key in plan.splits[name].keys]
        keys = tuple(np.array(plan.splits[name].keys)[kept].tolist())
        assert store.split(name).keys == keys
        assert store.split(name).labels.tolist() == np.array(plan.splits[name].labels)[kept].tolist()
        assert_equal(store.split(name).coordinates(), coordinates_of(keys))


def test_a_shard_in_which_every_image_was_skipped(tmp_path):
    store = fill(tmp_path / "store", skip=[f"train/{i}" for i in range(13, 26)])
    assert len(store.split("train")) == 61 - 13
    assert_equal(
        store.split("train").take(torch.tensor([12, 13])).coordinates(), coordinates_of(["train/12", "train/26"])
    )


def test_splits_and_units_that_are_not_there(filled):
    with pytest.raises(BadInputError, match="no split 'dev'; it has train, val, test"):
        filled.split("dev")


def test_float16_halves_heads_and_mlps_and_keeps_the_rest(tmp_path):
    store = fill(tmp_path / "store", make_plan(dtype="float16"))
    got, expected = store.split("train").coordinates(), coordinates_of(make_plan().splits["train"].keys)
    assert {tensor.dtype for tensor in got.tensors().values()} == {torch.float32}
    assert_equal(got, expected, rtol=2**-11, atol=1e-7)
    for name in ("inverse_std", "mean_over_std", "output"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(got.heads, expected.heads, rtol=0, atol=0)


def test_float16_that_overflows_is_refused_by_unit(tmp_path):
    with StoreWriter(tmp_path / "store", make_plan(dtype="float16"), make_maps()) as writer:
        shard = writer.pending_shards()[0]
        coordinates = make_coordinates(len(shard)).to(dtype=torch.float32)
        coordinates.heads[5, 1, 2, 3] = 65520.0
        with pytest.raises(BadInputError, match=r"L1\.H2 overflow float16"):
            writer.write_shard(shard, coordinates)
        coordinates.heads[5, 1, 2, 3] = 65504.0
        writer.write_shard(shard, coordinates)


def test_float64_is_kept_in_float64(tmp_path):
    plan = make_plan(dtype="float64", splits={"train": SplitPlan(("x", "y"), (0, 1))}, shard_size=5)
    coordinates = make_coordinates(2)
    with StoreWriter(tmp_path / "store", plan, make_maps()) as writer:
        writer.write_shard(writer.pending_shards()[0], coordinates)
        assert_equal(writer.finish().split("train").coordinates(), coordinates)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_refused_by_unit(tmp_path, value):
    with StoreWriter(tmp_path / "store", make_plan(), make_maps()) as writer:
        shard = writer.pending_shards()[1]
        coordinates = make_coordinates(len(shard)).to(dtype=torch.float32)
        coordinates.mlps[5, 1, 2] = value
        with pytest.raises(BadInputError, match=r"L1\.mlp hold NaN or infinity in train-00001"):
            writer.write_shard(shard, coordinates)


def test_a_shard_takes_the_images_of_its_range(tmp_path):
    with StoreWriter(tmp_path / "store", make_plan(), make_maps()) as writer:
        shard = writer.pending_shards()[0]
        with pytest.raises(BadInputError, match=r"takes heads of shape \(13, "):
            writer.write_shard(shard, make_coordinates(12))
        with pytest.raises(BadInputError, match="not one of its samples"):
            writer.write_shard(shard, make_coordinates(12), skipped=["train/40"])
        with pytest.raises(BadInputError, match=r"lacks 6 shards, train-00000\.safetensors first"):
            writer.finish()


def test_shards_are_split_pure_and_cover_every_sample_once():
    plan = make_plan()
    assert [(s.name, s.start, s.stop) for s in plan.shards()][4:] == [
        ("train-00004.safetensors", 52, 61),
        ("val-00000.safetensors", 0, 11),
    ]
    for name, split in plan.splits.items():
        samples = [i for s in plan.shards() if s.split == name for batch in s.batches(5) for i in batch]
        assert samples == list(range(len(split)))
    assert [len(batch) for batch in ShardRange("train", 1, 13, 26).batches(5)] == [5, 5, 3]


def test_plans_that_cannot_be():
    with pytest.raises(BadInputError, match="key 'x' twice"):
        make_plan(splits={"train": SplitPlan(("x", "y", "x"), (0, 1, 2))})
    with pytest.raises(BadInputError, match="3 keys but 2 labels"):
        make_plan(splits={"train": SplitPlan(("x", "y", "z"), (0, 1))})
    with pytest.raises(BadInputError, match="at least 1"):
        make_plan(shard_size=0)


def test_a_plan_survives_json():
    plan = make_plan()
    assert StorePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.fingerprint == make_plan().fingerprint
    assert plan.difference(make_plan()) is None
    assert plan.difference(make_plan(residual_error=2e-7)) is None


def test_a_store_through_fsspec(tmp_path):
    url = f"memory://{tmp_path.name}/store"
    store = fill(url, skip=BROKEN)
    local = fill(tmp_path / "store", skip=BROKEN)
    assert Store.open(url).skipped == BROKEN
    assert_equal(store.split("train").coordinates(), local.split("train").coordinates())
    assert_equal(store.split("val").coordinates(), local.split("val").coordinates())
    store.verify()
    for name in tree(tmp_path / "store"):
        assert store._reader._folder.read(name) == (tmp_path / "store" / name).read_bytes()
    assert store._reader._folder.names() == set(tree(tmp_path / "store"))
    remove_store(url)
    with pytest.raises(BadInputError, match="does not hold a store"):
        Store.open(url)


def test_a_file_url_is_a_local_folder(tmp_path):
    fill(f"file://{tmp_path}/store")
    Store.open(tmp_path / "store").verify()
    with pytest.raises(BadInputError, match="cannot open nosuch://bucket/store"):
        Store.open("nosuch://bucket/store")


@pytest.mark.parametrize("block", [1, 997, 1 << 20])
def test_checksums_do_not_depend_on_how_much_is_read_at_a_time(copy, monkeypatch, block):
    monkeypatch.setattr(shards, "_BLOCK", block)
    Store.open(copy).verify()
    flip(copy / "val-00000.safetensors", -5)
    with pytest.raises(BadInputError, match=r"val-00000\.safetensors is damaged"):
        Store.open(copy).verify()


def test_more_shards_than_are_kept_open(tmp_path):
    store = fill(tmp_path / "store", make_plan(shard_size=2))
    store._reader._folder.shards_open = 3
    order = torch.randperm(61, generator=torch.Generator().manual_seed(3))
    assert_equal(store.split("train").take(order).coordinates(), coordinates_of([f"train/{i}" for i in order]))
    assert len(store._reader._opened) == 3


def test_only_asked_for_shards_are_read_and_each_is_checked_once(filled, monkeypatch):
    store = Store.open(filled.path)
    hashed = []
    original = type(store._reader._folder).open
    monkeypatch.setattr(
        type(store._reader._folder), "open", lambda self, name: (hashed.append(name), original(self, name))[1]
    )
    split = store.split("train")
    assert hashed == []
    split.take(torch.tensor([14])).coordinates()
    split.take(torch.tensor([15, 16])).embeddings()
    assert hashed == ["train-00001.safetensors"]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_changed_number_is_found_when_it_is_read(copy):
    flip(copy / "train-00001.safetensors", -5)
    store = Store.open(copy)
    store.split("train").take(torch.tensor([0, 12])).coordinates()
    with pytest.raises(BadInputError, match=r"train-00001\.safetensors is damaged"):
        store.split("train").coordinates()
    with pytest.raises(BadInputError, match=r"train-00001\.safetensors is damaged"):
        store.verify()


def test_a_shard_that_changed_after_it_was_read_is_found_by_verifying(copy):
    store = Store.open(copy)
    store.split("val").coordinates()
    flip(copy / "val-00000.safetensors", -5)
    with pytest.raises(BadInputError, match=r"val-00000\.safetensors is damaged"):
        store.verify()


def test_a_changed_header_is_found(copy):
    shard = copy / "val-00000.safetensors"
    content = shard.read_bytes()
    assert content.count(b"val") > 0
    shard.write_bytes(content.replace(b'\\"index\\": 0', b'\\"index\\": 7'))
    with pytest.raises(BadInputError, match=r"val-00000\.safetensors"):
        Store.open(copy).split("val").coordinates()


@pytest.mark.parametrize("name", ["train-00001.safetensors", "maps.safetensors", "classes.safetensors"])
def test_a_file_that_is_cut_short_or_missing_is_found_on_opening(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(BadInputError, match=f"{name} is damaged: it has "):
        Store.open(copy)
    (copy / name).unlink()
    with pytest.raises(BadInputError, match=f"{name} is missing"):
        Store.open(copy)


@pytest.mark.parametrize("name", ["maps.safetensors", "classes.safetensors"])
def test_a_changed_file_beside_the_shards_is_found(copy, name):
    flip(copy / name, -5)
    store = Store.open(copy)
    with pytest.raises(BadInputError, match=f"{name} is damaged"):
        _ = store.maps if name.startswith("maps") else store.text_vectors
    with pytest.raises(BadInputError, match=f"{name} is damaged"):
        store.verify()


def test_the_shard_of_another_store_or_range_is_refused_by_what_it_is(copy, tmp_path):
    plan = make_plan(model={**make_plan().model, "fingerprint": "beef"})
    fill(tmp_path / "other", plan)
    shutil.copy(tmp_path / "other" / "train-00001.safetensors", copy)
    with pytest.raises(BadInputError, match=r"train-00001\.safetensors belongs to a different store"):
        Store.open(copy).split("train").coordinates()
    shutil.copy(copy / "train-00002.safetensors", copy / "train-00001.safetensors")
    with pytest.raises(
        BadInputError, match=r"train-00001\.safetensors holds samples 26 to 39 of train, expected 13 to 26"
    ):
        Store.open(copy).split("train").coordinates()


def test_another_run_of_the_same_plan_with_other_numbers_is_refused(copy, tmp_path):
    with StoreWriter(tmp_path / "other", make_plan(), make_maps()) as writer:
        shard = writer.pending_shards()[1]
        writer.write_shard(shard, make_coordinates(13).to(dtype=torch.float32))
    shutil.copy(tmp_path / "other" / shard.name, copy)
    with pytest.raises(BadInputError, match="not the file the manifest names"):
        Store.open(copy).split("train").coordinates()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{}", "not part of a residualign store"),
        (b'{"format": "residualign store", "version": 99}', "has version 99"),
        (b'{"format": "residualign store", "version": 1}', "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(copy, content, message):
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        Store.open(copy)


def test_an_edited_manifest_is_refused(copy):
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"f00d"', '"beef"'))
    with pytest.raises(BadInputError, match="does not fit its own fingerprint"):
        Store.open(copy)


def test_no_clock_and_no_host_in_the_bytes(filled, tmp_path):
    fill(tmp_path / "again")
    assert tree(tmp_path / "again") == tree(filled.path)
    assert sorted(tree(filled.path)) == [
        "classes.safetensors",
        "manifest.json",
        "maps.safetensors",
        *[f"train-0000{i}.safetensors" for i in range(5)],
        "val-00000.safetensors",
    ]


def test_the_manifest_names_every_file_with_its_checksum(filled):
    manifest = json.loads((filled._reader._folder.path / "manifest.json").read_text())
    named = {entry["name"]: entry["sha256"] for entry in (*manifest["files"], *manifest["shards"])}
    expected = tree(filled.path)
    del expected["manifest.json"]
    assert named == expected


def test_folders_that_hold_no_store(tmp_path):
    with pytest.raises(BadInputError, match="does not hold a store"):
        Store.open(tmp_path)
    with pytest.raises(BadInputError, match="does not hold a store"):
        Store.open(tmp_path / "absent")
    with pytest.raises(BadInputError, match="does not hold a store"):
        remove_store(tmp_path)


def test_removing_a_store_leaves_what_is_not_its_own(copy):
    (copy / "notes.txt").write_text("mine")
    remove_store(copy)
    assert list(tree(copy)) == ["notes.txt"]
    (copy / "notes.txt").unlink()
    fill(copy)
    remove_store(copy)
    assert not copy.exists()


def test_a_store_in_memory_holds_the_same_numbers(filled, monkeypatch):
    held, plain = filled.in_memory(), {name: filled.split(name) for name in filled.splits}
    few = torch.tensor([7, 0, 60, 31])
    for take in (lambda split: split, lambda split: split.take(few % len(split)) if len(split) else split):
        for name, split in plain.items():
            expected, found = take(split).coordinates().tensors(), take(held.split(name)).coordinates().tensors()
            assert all(torch.equal(found[key], value) for key, value in expected.items())
            assert torch.equal(take(held.split(name)).embeddings(), expected["output"])
            batches = list(take(held.split(name)).batches(7))
            assert all(torch.equal(Coordinates.cat(batches).tensors()[k], v) for k, v in expected.items() if batches)
    monkeypatch.setattr(StoreReader, "rows", None)
    assert len(held.split("train").coordinates()) == len(plain["train"])


def test_what_is_kept_in_memory_has_a_limit(tmp_path, monkeypatch):
    """In the type it has in memory, of all splits together; embeddings alone are not worth keeping everything."""
    store = fill(tmp_path / "store", make_plan(dtype="float16"))
    sizes = {
        name: sum(tensor.nbytes for tensor in store.split(name).coordinates().tensors().values())
        for name in ("train", "val")
    }
    read, rows = [], StoreReader.rows
    monkeypatch.setattr(StoreReader, "rows", lambda reader, name, *rest: read.append(name) or rows(reader, name, *rest))
    for limit, expected in ((sum(sizes.values()), ["train", "train", "val"]),
                            (sum(sizes.values()) - 1, ["train", "train", "val", "val"])):  # fmt: skip
        read.clear()
        held = store.in_memory(limit)
        held.split("train").embeddings()
        for name in ("train", "train", "val", "val"):
            held.split(name).coordinates()
        assert read == expected


def test_a_subset_is_some_images_of_some_splits(filled):
    rows = torch.tensor([5, 2, 9])
    for store in (filled, filled.in_memory()):
        part = store.subset({"train": rows})
        assert part.split("train").keys == tuple(filled.split("train").keys[i] for i in rows)
        assert torch.equal(part.split("train").labels, filled.split("train").labels[rows])
        assert len(part.split("val")) == len(filled.split("val"))
        # positions count in the subset
        again = part.subset({"train": torch.tensor([1])})
        assert again.split("train").keys == (filled.split("train").keys[2],)
        # and other splits stay as they were taken
        assert part.subset({"val": rows}).split("train").keys == part.split("train").keys
        assert len(store.split("train")) == len(filled.split("train"))
    with pytest.raises(BadInputError, match="no split 'dev'"):
        filled.subset({"dev": rows})
    with pytest.raises(IndexError, match="asked for 999"):
        filled.subset({"train": torch.tensor([999])})
