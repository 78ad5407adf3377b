"""How often a command reads each split of a store from disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from residualign.cli import main
from residualign.store import Store
from residualign.store.reader import StoreReader
from tests.cli.conftest import make_images
from tests.random_models import save_clip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its store; as many classes as words the text tower knows."""
    base = tmp_path_factory.mktemp("reads")
    images = make_images(base / "images", {"cat": 20, "dog": 20, "zero": 20})
    model = save_clip(base / "clip")
    assert main(["adapt", str(model), str(images), "--out", str(base / "run"), "--workers", "0", "--json"]) == 0
    return base / "run"


METHODS = ("--method", "residual", "--method", "coarse")

# command, and the splits it reads; none is read twice
COMMANDS = {
    "adapt, two methods": (("adapt", "STORE", *METHODS, "--out", "OUT"), "train val test"),
    "adapt, few shots": (("adapt", "STORE", *METHODS, "--shots", "3", "--out", "OUT"), "train val test"),
    "adapt, class means": (("adapt", "STORE", *METHODS, "--classifier", "means", "--out", "OUT"), "train val test"),
    "evaluate": (("evaluate", "RUN", "STORE"), "test"),
    "select": (("select", "STORE", "--adapter", "OUT"), "train val test"),
    "sweep": (("sweep", "STORE", "--quick"), "train val test"),
    "lambdas": (("lambdas", "RUN"), "train test"),
    "lambdas, other seeds": (("lambdas", "RUN", "--seeds", "2"), "train val test"),
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images of each split were read from disk, embeddings alone not counted."""
    counts: Counter[str] = Counter()
    load = StoreReader.rows

    def counted(reader, split, rows, names=None):
        counts[split] += len(rows) * (names is None)
        return load(reader, split, rows, names)

    monkeypatch.setattr(StoreReader, "rows", counted)
    return counts


@pytest.mark.parametrize("name", COMMANDS)
def test_every_split_is_read_once(name: str, fitted: Path, tmp_path: Path, read: Counter[str]) -> None:
    arguments, splits = COMMANDS[name]
    places = {"STORE": fitted / "store", "RUN": fitted, "OUT": tmp_path / "out"}
    assert main([str(places.get(word, word)) for word in arguments] + ["--json"]) == 0
    store = Store.open(fitted / "store")
    assert read == {split: len(store.split(split)) for split in splits.split()}


def test_a_store_too_large_for_memory_is_read_again(fitted: Path, read: Counter[str]) -> None:
    store = Store.open(fitted / "store").in_memory(max_bytes=1)
    for _ in range(2):
        store.split("val").coordinates()
    assert read == {"val": 2 * len(store.split("val"))}
