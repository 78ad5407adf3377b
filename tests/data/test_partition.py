"""Splitting and few shots: disjoint, covering, stratified, and the same everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residualign.data import Split
from residualign.data.partition import complete_splits

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=120)
SEEDS = st.integers(0, 2**40)


def split_of(labels: list[int], name: str = "train") -> Split:
    n = len(labels)
    return Split(name, tuple(f"{name}/{i}" for i in range(n)), tuple(labels), None, tuple(range(n)))


@given(LABELS, SEEDS, st.sampled_from([(), ("val",), ("test",)]))
def test_splits_are_disjoint_cover_and_keep_their_labels(labels: list[int], seed: int, own: tuple[str, ...]) -> None:
    given_splits = {"train": split_of(labels), **{name: split_of([0, 1], name) for name in own}}
    splits, _, _ = complete_splits(given_splits, seed, "abcde")
    made = [splits[name] for name in ("train", "val", "test") if name not in own]
    keys = [key for split in made for key in split.keys]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(given_splits["train"].keys)
    for split in made:
        assert split.labels == tuple(labels[int(key.split("/")[1])] for key in split.keys)
        assert split.rows == tuple(sorted(split.rows))
    for name in own:
        assert splits[name] is given_splits[name]


@given(LABELS, SEEDS)
def test_each_class_is_split_70_10_20_and_from_three_images_on_is_everywhere(labels: list[int], seed: int) -> None:
    splits, rule, notes = complete_splits({"train": split_of(labels)}, seed, "abcde")
    assert rule == f"stratified 70/10/20, seed {seed}"
    for label, n in Counter(labels).items():
        train, val, test = (Counter(splits[name].labels)[label] for name in ("train", "val", "test"))
        assert train + val + test == n
        if n >= 3:
            assert min(train, val, test) >= 1
            assert abs(test - 0.2 * n) <= 0.8
            assert abs(val - 0.1 * n) <= 0.9
        else:
            assert (train, val, test) == ((1, 0, 0) if n == 1 else (1, 0, 1))
            assert repr("abcde"[label]) in notes[0]
    assert bool(notes) == any(n < 3 for n in Counter(labels).values())


@pytest.mark.parametrize(("n", "sizes"), [(3, (1, 1, 1)), (10, (7, 1, 2)), (100, (70, 10, 20)), (7, (5, 1, 1))])
def test_counts_of_one_class(n: int, sizes: tuple[int, int, int]) -> None:
    splits, _, _ = complete_splits({"train": split_of([0] * n)}, 42, "a")
    assert tuple(len(splits[name]) for name in ("train", "val", "test")) == sizes


@pytest.mark.parametrize(
    ("own", "sizes", "rule"),
    [
        ("train test", (90, 10, 2), "own, val from train (stratified 10%, seed 42)"),
        ("train val", (80, 2, 20), "own, test from train (stratified 20%, seed 42)"),
        ("train val test", (100, 2, 2), "own"),
        ("test", (0, 0, 2), "own (test only)"),
        ("val test", (0, 2, 2), "own (val, test only)"),
    ],
)
def test_the_rule_for_every_combination(own: str, sizes: tuple[int, int, int], rule: str) -> None:
    given_splits = {name: split_of([0] * 50 + [1] * 50 if name == "train" else [0, 1], name) for name in own.split()}
    splits, said, notes = complete_splits(given_splits, 42, "ab")
    assert tuple(len(splits[name]) for name in ("train", "val", "test")) == sizes
    assert (said, notes) == (rule, ())


def test_the_choice_never_changes() -> None:
    """Pinned: other machines and later versions must split as this one does."""
    splits, _, _ = complete_splits({"train": split_of([0, 1] * 10)}, 42, "ab")
    assert (splits["val"].rows, splits["test"].rows) == ((7, 16), (8, 10, 13, 19))


@given(LABELS, SEEDS)
def test_one_class_is_split_alike_whatever_the_others_are(labels: list[int], seed: int) -> None:
    alone = [label for label in labels if label == 0]
    both, _, _ = complete_splits({"train": split_of(labels)}, seed, "abcde")
    one, _, _ = complete_splits({"train": split_of(alone)}, seed, "abcde")
    position = {row: i for i, row in enumerate(r for r, label in enumerate(labels) if label == 0)}
    for name in ("train", "val", "test"):
        rows = [position[r] for r, label in zip(both[name].rows, both[name].labels, strict=True) if label == 0]
        assert tuple(rows) == one[name].rows


def test_seeds_differ() -> None:
    labels = [0] * 100
    chosen = {complete_splits({"train": split_of(labels)}, seed, "a")[0]["test"].rows for seed in range(5)}
    assert len(chosen) == 5


def test_take_and_class_counts() -> None:
    split = split_of([2, 0, 2])
    part = split.take([2, 0], name="few")
    assert (part.name, part.keys, part.labels) == ("few", ("train/2", "train/0"), (2, 2))
    assert split.class_counts(4) == (1, 0, 2, 0)
    assert len(Split.empty("val")) == 0
    with pytest.raises(IndexError):
        split.take([3])
