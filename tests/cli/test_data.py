"""`residualign data`: exit codes, the one JSON object, and what people read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from residualign.data import registered_names
from tests.cli.conftest import Ran, make_images

Run = Callable[..., Ran]
LIGHT = ("--workers", "0")


def test_without_data_it_lists_the_registered_names(run: Run, tmp_path: Path) -> None:
    header, *lines = run("data").out.splitlines()
    assert header.split() == ["name", "classes", "source"]
    assert [line.split()[0] for line in lines] == list(registered_names())
    assert ["gtsrb", "43", "hf:tanganke/gtsrb"] in [line.split() for line in lines]
    found = run("data", "--json").json
    assert found["names"] == [one["name"] for one in found["sets"]] == list(registered_names())
    refused = run("data", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "--out needs DATA" in refused.sentence


def test_a_bad_image_is_named_and_no_failure(run: Run, images: Path, tmp_path: Path) -> None:
    (images / "dog" / "03.png").write_bytes(b"")
    ran = run("data", images, "--json", "--out", tmp_path / "card", *LIGHT)
    assert ran.code == 0
    assert ran.json["bad"] == [{"split": "val", "key": "dog/03.png", "reason": "it is empty (0 bytes)"}]
    assert (ran.json["n_images"], ran.json["n_examined"], ran.json["n_bad"]) == (30, 30, 1)
    assert ran.json["out"] == str(tmp_path / "card")
    assert "warning: 1 of 30 images is unreadable ('dog/03.png')" in ran.err
    told = run("data", images, *LIGHT)
    assert told.code == 0
    assert "dog/03.png" in told.out
    assert "11 – 11 – 11, 13 – 13 – 13 pixels" in told.out
    assert "stratified 70/10/20, seed 42" in told.out


NAMES = ("<script>alert(1)", "[bold]not bold", "Großmütter 猫", "🐶", "x" * 150)


def test_names_of_every_kind(run: Run, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", dict.fromkeys(NAMES, 3))
    ran = run("data", data, *LIGHT)
    assert ran.code == 0
    assert all(name in ran.out for name in NAMES)
    assert sorted(one["name"] for one in run("data", data, "--json", *LIGHT).json["classes"]) == sorted(NAMES)


def test_data_for_a_reference_set_only(run: Run, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", {"cat": 5})
    for folder in (data, data / "cat"):
        ran = run("data", folder, "--json", *LIGHT)
        assert ran.code == 0
        assert (ran.json["n_images"], ran.json["n_classes"]) == (5, 1)
        assert ran.json["reference_only"]
        assert "warning: " in ran.err


@pytest.mark.parametrize(("name", "words"), [("empty", "no class folders and no images"), ("nowhere", "no data at")])
def test_what_is_no_data(run: Run, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    ran = run("data", tmp_path / name)
    assert ran.code == 2
    assert words in ran.sentence
    assert ran.out == ""


def test_an_output_that_cannot_be_written(run: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ran = run("data", images, "--out", tmp_path / "file" / "card", *LIGHT)
    assert ran.code == 1
    assert "cannot write" in ran.sentence
