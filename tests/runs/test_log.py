"""Runs as JSON lines: kept as they end, gone on with, refused where they are of something else."""

from __future__ import annotations

import json

import pytest

from residualign.errors import BadInputError, RunError
from residualign.runs.folder import RUNS_NAME, RunLog

COMMON = {"store": "f00d", "rest": "keep"}


def filled(folder, n=3):
    log = RunLog(folder, COMMON)
    for i in range(n):
        log.add({"i": i, "value": 0.5})
    return folder / RUNS_NAME


def test_what_was_added_comes_back(tmp_path):
    path = filled(tmp_path / "new")
    assert RunLog(path.parent, COMMON).records == [{"i": i, "value": 0.5} for i in range(3)]
    assert len(path.read_text().splitlines()) == 4


def test_every_line_is_on_disk_at_once(tmp_path):
    log = RunLog(tmp_path, COMMON)
    for i in range(3):
        log.add({"i": i})
        assert len((tmp_path / RUNS_NAME).read_text().splitlines()) == i + 2


def test_a_line_cut_short_is_dropped_and_the_file_goes_on(tmp_path):
    path = filled(tmp_path)
    whole = path.read_text()
    last = whole.splitlines(keepends=True)[-1]
    for cut in range(1, len(last)):
        path.write_text(whole[:-cut])
        log = RunLog(tmp_path, COMMON)
        assert [record["i"] for record in log.records] == [0, 1]
    log.add({"i": 7})
    assert [json.loads(line).get("i") for line in path.read_text().splitlines()] == [None, 0, 1, 7]


def test_runs_of_something_else_are_refused_or_replaced(tmp_path):
    path = filled(tmp_path)
    before = path.read_bytes()
    with pytest.raises(BadInputError, match="runs with a different rest: 'keep' there, 'zero' here"):
        RunLog(tmp_path, COMMON | {"rest": "zero"})
    assert path.read_bytes() == before
    assert RunLog(tmp_path, COMMON | {"rest": "zero"}, overwrite=True).records == []


@pytest.mark.parametrize(
    "content", ["", "{}\n", "not json\n", '{"format": "other", "version": 1, "common": {}}\n', "[]\n"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / RUNS_NAME).write_text(content)
    with pytest.raises(BadInputError, match="is damaged or was written by another program"):
        RunLog(tmp_path, COMMON)
    assert (tmp_path / RUNS_NAME).read_text() == content


def test_without_a_folder_nothing_is_written():
    log = RunLog(None, COMMON)
    log.add({"i": 1})
    assert log.records == [{"i": 1}]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"cannot write .*runs\.jsonl"):
        RunLog(tmp_path / "file" / "folder", COMMON)
