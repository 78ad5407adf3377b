"""Registered sets: every file is valid, and loads from a small stand-in on a hub of this machine."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import ClassLabel, Features, Image, Value

from residualign.data import load_data, registered_names
from residualign.data.prompts import rename_classes
from residualign.data.registered import HubSource, SetFile, parse_set_file, read_set_file
from residualign.errors import BadInputError
from tests.data.make import hub_parquet, hub_repo, noise, png
from tests.hub_server import HubServer

SETS = {name: read_set_file(name) for name in registered_names()}
ON_THE_HUB = [name for name, entry in SETS.items() if isinstance(entry.source, HubSource)]

PAPER = "dtd cifar10 cifar100 eurosat gtsrb mnist resisc45 stanford_cars sun397 svhn"
MORE = "digits imagenet imagenet_sketch pacs food101 flowers102 pets caltech101 fgvc_aircraft"
N_CLASSES = {
    **{"dtd": 47, "cifar10": 10, "cifar100": 100, "eurosat": 10, "gtsrb": 43, "mnist": 10, "resisc45": 45},
    **{"stanford_cars": 196, "sun397": 397, "svhn": 10, "digits": 10, "imagenet": 1000, "imagenet_sketch": 1000},
    **{"pacs": 7, "food101": 101, "flowers102": 102, "pets": 37, "caltech101": 101, "fgvc_aircraft": 100},
}


def names_on_the_hub(entry: SetFile) -> list[str]:
    """As many names as the set has classes: those the file knows of, and others in the form the rules are for."""
    known: dict[str, str] = {}
    for given, name in (entry.rename or {}).items():
        if name not in known.values():
            known[given] = name
    form = {"path": "/k/kind_{}/indoor", "first synonym": "kind {}, Genus species"}.get(
        (*entry.readable, "")[0], "kind_{}"
    )
    if not known and entry.classes is not None:
        return list(entry.classes)
    return [*known, *(form.format(i) for i in range(entry.n_classes))][: entry.n_classes]


def stand_in(hub: HubServer, entry: SetFile, named: bool = True, **more: bytes) -> None:
    """A repository with the columns and splits that the file tells of, and a column and a split that it does not."""
    source = entry.source
    assert isinstance(source, HubSource)
    label = ClassLabel(names=names_on_the_hub(entry)) if named else Value("int64")
    features = Features(
        {source.image or "image": Image(), source.label or "label": label, "other": ClassLabel(names=["x", "y"])}
    )
    splits = {}
    for number, name in enumerate((source.splits or {"train": "train"}).values()):
        rows = range(100 * number, 100 * number + 24)
        columns: dict[str, Any] = {
            source.image or "image": [{"bytes": png(noise(i)), "path": None} for i in rows],
            source.label or "label": [i % 2 * (entry.n_classes - 1) for i in rows],
            "other": [0] * 24,
        }
        if source.only is not None:
            features[source.only[0]] = Value("string")
            columns[source.only[0]] = [source.only[1] if i % 3 else "none" for i in rows]
        splits[name] = hub_parquet(columns, features)
    hub.repos[source.repo] = hub_repo({**splits, "spare": splits[name], **more}, source.config or "default")


def test_all_sets_are_there() -> None:
    assert {*PAPER.split(), *MORE.split()} <= set(registered_names())


@pytest.mark.parametrize("name", SETS)
def test_every_file_is_complete(name: str) -> None:
    entry = SETS[name]
    assert entry.n_classes == N_CLASSES[name.split("_")[0] if name.startswith("pacs") else name]
    assert entry.description.endswith(".")
    assert entry.templates
    assert len(set(entry.templates)) == len(entry.templates)
    assert all(template.count("{}") == 1 for template in entry.templates)
    if isinstance(entry.source, HubSource):
        own = names_on_the_hub(entry)
        readable = rename_classes(entry.readable_names(own), None)
        assert len(readable) == entry.n_classes
        assert not any("_" in one or one.startswith("/") for one in readable)


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_every_set_loads_from_a_stand_in(hub: HubServer, name: str) -> None:
    entry = SETS[name]
    stand_in(hub, entry)
    data = load_data(name)
    assert data.class_names == entry.readable_names(names_on_the_hub(entry))
    assert data.templates == entry.templates
    assert set(data.train.labels) == {0, entry.n_classes - 1}
    own = (entry.source.splits or {}).keys()  # type: ignore[union-attr]
    rule = {1: "stratified 70/10/20, seed 42", 2: "own, val from train (stratified 10%, seed 42)", 3: "own"}
    assert data.split_rule == rule[len(own)]
    assert (data.name, data.notes) == (name, ())
    for i in (0, len(data.train) - 1):
        row = int(data.train.keys[i].removeprefix("train/"))
        np.testing.assert_array_equal(data.train.image(i), noise(row))
        assert data.train.labels[i] == row % 2 * (entry.n_classes - 1)
    streamed = load_data(name, stream=True)
    assert [(split.keys, split.labels) for split in streamed.splits] == [
        (split.keys, split.labels) for split in data.splits
    ]


def test_rows_of_one_domain_keep_their_numbers(hub: HubServer) -> None:
    stand_in(hub, SETS["pacs_photo"])
    data = load_data("pacs_photo", split=False)
    assert data.train.keys == tuple(f"train/{i}" for i in range(24) if i % 3)
    hub.repos["flwrlabs/pacs"] = {}
    stand_in(hub, SETS["pacs_sketch"])
    with pytest.raises(BadInputError, match="no row of 'pacs_photo' has 'photo' in column 'domain'"):
        load_data("pacs_photo")


def test_a_bad_label_among_chosen_rows_is_named_by_its_row_on_the_hub(hub: HubServer) -> None:
    features = Features({"image": Image(), "label": ClassLabel(num_classes=7), "domain": Value("string")})
    image = {"bytes": png(noise(0)), "path": None}
    columns = {
        "image": [image] * 5,
        "label": [0, 1, 2, 3, -1],
        "domain": ["sketch", "photo", "sketch", "photo", "photo"],
    }
    hub.repos["flwrlabs/pacs"] = hub_repo({"train": hub_parquet(columns, features)})
    with pytest.raises(BadInputError, match="label -1 in row 4 of train in 'pacs_photo'"):
        load_data("pacs_photo")


def test_names_for_bare_numbers(hub: HubServer) -> None:
    stand_in(hub, SETS["gtsrb"], named=False)
    data = load_data("gtsrb")
    assert (data.class_names[14], data.class_names[42]) == ("stop", "end of no overtaking for trucks")
    stand_in(hub, SETS["dtd"], named=False)
    with pytest.raises(BadInputError, match=r"'dtd' \(tanganke/dtd\) has 2 classes on the hub, expected 47"):
        load_data("dtd")


def test_class_names_and_templates_can_be_replaced(hub: HubServer) -> None:
    stand_in(hub, SETS["cifar10"])
    data = load_data("cifar10", classes={"kind 3": "cat"}, templates="my {}")
    assert (data.class_names[3], data.class_names[4], data.templates) == ("cat", "kind 4", ("my {}",))


def test_numbered_signs_are_the_benchmarks() -> None:
    """GTSRB's official numbering of some signs that nobody mixes up."""
    entry = SETS["gtsrb"]
    assert entry.classes is not None
    official = {0: "20", 8: "120", 13: "yield", 14: "stop", 17: "no entry", 25: "works", 40: "roundabout"}
    assert all(word in entry.classes[number] for number, word in official.items())
    assert entry.readable_names([str(i) for i in range(43)]) == entry.classes


@pytest.mark.parametrize(
    ("name", "own", "readable"),
    [
        ("sun397", ["/a/airplane_cabin", "/c/church/indoor", "/y/yard"], ("airplane cabin", "church indoor", "yard")),
        (
            "imagenet",
            ["tench, Tinca tinca", "maillot", "maillot, tank suit"],
            ("tench", "maillot", "maillot, tank suit"),
        ),
        ("eurosat", ["AnnualCrop", "Sea_Lake", "River"], ("annual crop land", "lake or sea", "river")),
        ("cifar100", ["cra", "lawn_mower"], ("crab", "lawn mower")),
        ("caltech101", ["water_lilly", "grand_piano"], ("water lily", "grand piano")),
    ],
)
def test_names_are_made_readable(name: str, own: list[str], readable: tuple[str, ...]) -> None:
    assert SETS[name].readable_names(own) == readable


GOOD = yaml.safe_load(
    """
description: x.
source: {kind: hub, repo: org/x, splits: {train: train}}
n_classes: 2
classes: [a, b]
rename: {a: b}
readable: [underscores]
templates: ["a {}"]
"""
)


def changed(**entries: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **entries}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold a mapping, got list"),
        (changed(color="red"), "unknown entry 'color'"),
        (changed(description=None), "lacks the entry 'description'"),
        (changed(classes=["a"]), "names 1 classes, expected 2"),
        (changed(classes=["a", "a"]), "classes of the set 'x' must differ"),
        (changed(classes=["a", 1]), "classes of the set 'x' must be non-empty texts"),
        (changed(rename=["a"]), "rename of the set 'x' must be a mapping"),
        (changed(readable=["upper"]), "unknown rule 'upper'"),
        (changed(templates=["a"]), "exactly once"),
        (changed(source={"kind": "web"}), "must be of kind hub or scikit-learn, got 'web'"),
        (changed(source={"kind": "hub"}), "lacks the entry 'repo'"),
        (
            changed(source={"kind": "hub", "repo": "a/b", "splits": {"dev": "dev"}}),
            "must be train, val or test, got dev",
        ),
        (changed(source={"kind": "scikit-learn", "loader": "load_digits"}), "lacks the entry 'largest'"),
    ],
)
def test_a_wrong_file_is_refused(content: Any, message: str) -> None:
    assert parse_set_file(GOOD, "x").n_classes == 2
    with pytest.raises(BadInputError, match=message):
        parse_set_file(content, "x")
