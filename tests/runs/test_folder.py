"""A run folder: refused, resumed, emptied of what is ours, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residualign.errors import BadInputError, RunError
from residualign.runs.folder import OWN_FILES, check_run_folder, open_run_folder, verb_of
from residualign.store import DirectoryLock

REQUEST = {"verb": "adapt", "methods": ("a", "b"), "seed": 3, "shots": None}
COMMAND = ("residualign", "adapt")


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def end_early(out: Path, error: BaseException, work: str | None = None) -> None:
    """A new run that writes a file, if told, and then fails."""
    with open_run_folder(out, REQUEST, COMMAND) as run:
        assert not run.resumed
        if work is not None:
            (run.path / work).parent.mkdir(parents=True)
            (run.path / work).write_text("work")
        raise error


def test_a_run_that_ends_early_is_resumed_and_one_that_finished_is_not(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert check_run_folder(out, REQUEST) == "absent"
    with pytest.raises(KeyboardInterrupt):
        end_early(out, KeyboardInterrupt())
    assert check_run_folder(out, REQUEST) == "unfinished"
    with open_run_folder(out, REQUEST, COMMAND) as run:
        assert run.resumed
        run.finish()
    with pytest.raises(BadInputError, match="finished run"):
        check_run_folder(out, REQUEST)
    assert check_run_folder(out, REQUEST, overwrite=True) == "finished"
    assert verb_of(out) == "adapt"
    assert verb_of(tmp_path) is None
    assert listing(out) == {"run.json"}


def test_an_unfinished_run_of_another_request_is_refused_naming_the_difference(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run_folder(tmp_path / "out", REQUEST, COMMAND):
        raise KeyboardInterrupt
    with pytest.raises(BadInputError, match="seed: 3 there, 5 here"):
        check_run_folder(tmp_path / "out", REQUEST | {"seed": 5})
    assert check_run_folder(tmp_path / "out", REQUEST | {"seed": 5}, overwrite=True) == "unfinished"


def test_overwriting_removes_our_files_and_no_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_run_folder(out, REQUEST, COMMAND) as run:
        for name in OWN_FILES:
            (out / name).write_text("{}")
        (run.method_path("linear") / "adapter.safetensors").write_text("ours")
        (run.method_path("coarse") / "notes.txt").write_text("mine")
        (out / "summary.json.partial").write_text("ours")
        (out / "store").mkdir()
        (out / "store" / "mine.txt").write_text("mine")
        (out / "mine.txt").write_text("mine")
        run.finish()
    with open_run_folder(out, REQUEST, COMMAND, overwrite=True) as run:
        assert not run.resumed
        kept = {"run.json", ".lock", "mine.txt", "store", "store/mine.txt"}
        assert listing(out) == kept | {"methods", "methods/coarse", "methods/coarse/notes.txt"}


def test_bad_input_before_any_work_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(BadInputError), open_run_folder(tmp_path / "out", REQUEST, COMMAND):
        raise BadInputError("a bad image")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("work", ["store/train-00000.safetensors", "methods/linear/adapter.safetensors"])
def test_bad_input_after_some_work_keeps_it(tmp_path: Path, work: str) -> None:
    with pytest.raises(BadInputError):
        end_early(tmp_path / "out", BadInputError("a bad image"), work)
    assert (tmp_path / "out" / work).exists()
    assert check_run_folder(tmp_path / "out", REQUEST) == "unfinished"


def test_a_folder_that_another_run_holds(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with DirectoryLock(out):
        with pytest.raises(BadInputError, match="another run is writing"), open_run_folder(out, REQUEST, COMMAND):
            pass
        assert listing(out) == {".lock"}


@pytest.mark.parametrize(
    "content", ["", "{}", '{"format": "other", "version": 1, "state": "finished", "request": {}}', "[1]"]
)
def test_a_mark_that_is_not_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    for overwrite in (False, True):
        with pytest.raises(BadInputError, match="damaged or was written by another program"):
            check_run_folder(tmp_path, REQUEST, overwrite=overwrite)
    assert (tmp_path / "run.json").read_text() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(RunError, match="part of the path is a file"),
        open_run_folder(tmp_path / "file" / "out", REQUEST, COMMAND),
    ):
        pass


def test_the_mark_says_how_the_folder_was_made(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "out", REQUEST, COMMAND) as run:
        run.finish()
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (content["state"], content["command"]) == ("finished", list(COMMAND))
    assert content["request"] == REQUEST | {"methods": ["a", "b"]}
