"""Class names and templates: what users write, and names that must pass unharmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from residualign.data import ImageData, load_data
from residualign.data.prompts import check_templates, read_prompts, rename_classes
from residualign.errors import BadInputError
from tests.data.make import class_folders

ODD_NAMES = [
    "T-shirt, top",
    'the "big" one',
    "it's {} {0}",
    "Füße 犬",
    "🐕‍🦺",
    "<script>alert(1)</script>",
    "a\nb",
    "%s",
]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "pets", {"n01": 3, "n02": 3, "n03": 3})


def load(pets: Path, **options: Any) -> ImageData:
    return load_data(pets, **options)


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, unique=True))
def test_names_pass_unharmed(names: list[str]) -> None:
    renamed = rename_classes([str(i) for i in range(len(names))], names)
    assert list(renamed) == names


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_names_from_a_list_in_a_file_pass_unharmed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"names.{suffix}"
    dump = json.dumps if suffix == "json" else yaml.safe_dump
    path.write_text(dump(ODD_NAMES), encoding="utf-8")
    assert read_prompts(path, None) == (tuple(ODD_NAMES), None)


def test_list_mapping_and_file_agree(pets: Path, tmp_path: Path) -> None:
    names = ["cat", "dog", "emu"]
    mapping = dict(zip(["n01", "n02", "n03"], names, strict=True))
    path = tmp_path / "names.yaml"
    for given_classes in (names, mapping, {"classes": mapping}, {"classes": names, "templates": ["a {}"]}):
        assert load(pets, classes=given_classes).class_names == tuple(names)
        path.write_text(yaml.safe_dump(given_classes))
        assert load(pets, classes=path).class_names == tuple(names)
        assert load(pets, classes=str(path)).class_names == tuple(names)


def test_a_mapping_may_name_some_classes_and_keeps_the_order_of_the_data(pets: Path) -> None:
    assert load(pets, classes={"n03": "emu", "n01": "cat"}).class_names == ("cat", "n02", "emu")


def test_numbers_in_yaml_are_names(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text("0: zero\n1: 1\n")
    assert read_prompts(path, None)[0] == {"0": "zero", "1": "1"}


def test_where_templates_come_from(pets: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(yaml.safe_dump({"classes": ["a", "b", "c"], "templates": ["of a file {}"]}))
    assert load(pets).templates == ("a photo of a {}.",)
    assert load(pets, classes=path).templates == ("of a file {}",)
    assert load(pets, classes=path, templates="my {}").templates == ("my {}",)
    assert load(pets, templates=["my {}", "{}"]).templates == ("my {}", "{}")
    assert load(pets, templates=path).templates == ("of a file {}",)
    path.write_text('["one {}", "two {}"]')
    assert load(pets, templates=str(path)).templates == ("one {}", "two {}")
    assert "digit" in load_data("digits").templates[0]
    assert load_data("digits", templates="my {}").templates == ("my {}",)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}", ""])
def test_a_template_without_exactly_one_place_is_refused(
    pets: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.parent)
    (pets.parent / "a photo").mkdir()  # a folder is not a file of templates
    with pytest.raises(BadInputError, match="exactly once"):
        load(pets, templates=[template])
    with pytest.raises(BadInputError, match="exactly once"):
        load(pets, templates=template)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cat", "dog"]}, "2 class names were given for 3 classes"),
        ({"classes": ["cat", "dog", "emu", "fox"]}, "4 class names were given for 3 classes"),
        ({"classes": ["cat", "dog", "cat"]}, "2 classes are called 'cat'"),
        ({"classes": {"n01": "n02"}}, "2 classes are called 'n02'"),
        ({"classes": {"n04": "emu"}}, "given for 'n04', but the data's classes are 'n01', 'n02', 'n03'"),
        ({"classes": ["cat", " ", "dog"]}, "class 'n02' has an empty name"),
        ({"classes": "missing.yaml"}, "'missing.yaml' cannot be read"),
        ({"templates": []}, "at least one template"),
        ({"classes": {"templates": "a {}"}}, "must hold a list of texts"),
    ],
)
def test_errors_name_what_is_wrong(pets: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        load(pets, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a, b", "not valid YAML or JSON"),
        ("just words", "must hold a list of texts or a mapping to texts, got str"),
        ("[yes, b, c]", "put the name in quotes"),
        ("[1.10, b, c]", "put the name in quotes"),
        ("[[a], b, c]", "must hold texts"),
        ("", "must hold a list of texts or a mapping to texts, got nothing"),
        ("\x00", "not valid YAML or JSON"),
    ],
)
def test_a_wrong_file_is_refused(pets: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        load(pets, classes=path)


def test_a_binary_file_is_refused(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError, match="not valid YAML or JSON"):
        load(pets, classes=tmp_path / "names.json")


def test_check_templates_gives_them_back() -> None:
    assert check_templates(["{}", "a {}"]) == ("{}", "a {}")
