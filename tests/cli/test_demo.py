"""The demo tells its whole story without a network, can be interrupted, and can be run again."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the demo used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.slow
def test_the_quick_story(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    ran = run("demo", "--quick", "--out", out)
    assert ran.code == 0
    for words in (
        "zero-shot",
        "residual-heads",
        "residual ",
        "linear probe",
        "amplified",
        "heads ",
        "residualign classify",
    ):
        assert words in ran.out
    assert all(len(line.rstrip()) <= 90 for line in ran.out.splitlines() if str(out) not in line)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["accuracy"]["adapted"] > summary["accuracy"]["zero_shot"]
    # its own folder is written anew, and what came out is the same
    again = run("demo", "--quick", "--out", out, "--json")
    assert again.code == 0
    assert again.json["accuracy"] == summary["accuracy"]
    assert set(again.json["linear_probe"]) >= {"accuracy", "parameters", "seconds"}
    assert len(again.json["examples"]) == 3


def test_a_folder_that_the_demo_did_not_make_is_refused(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    adapted, mine = tmp_path / "adapted", tmp_path / "mine"
    assert run("adapt", clip, images, "--out", adapted, "--method", "coarse").code == 0
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for folder, words in ((adapted, "finished run"), (mine, "not empty")):
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        ran = run("demo", "--out", folder)
        assert ran.code == 2
        assert words in ran.sentence
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
