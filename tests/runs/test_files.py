"""Tables and figures as files, the same way for every analysis."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Drawing

from residualign.errors import BadInputError, RunError
from residualign.figures._figure import Figure
from residualign.runs.files import FORMATS, check_analysis_files, check_output_file, write_analysis_files
from residualign.runs.folder import holds_work


def drawn() -> Drawing:
    made = Drawing(figsize=(2, 1))
    made.add_subplot().plot([1, 2, 3])
    return made


FIGURE = Figure(drawn)


TABLE = [{"unit": "L0.H0", "value": 0.125}, {"unit": 'a, "b"\n<c>', "value": None}]


def test_each_format_gets_its_files(tmp_path: Path) -> None:
    payload = {"value": math.nan, "rows": ({"x": 1.5},), "infinite": [math.inf]}
    written = write_analysis_files(
        tmp_path / "new" / "out",
        "result",
        payload,
        {"units": TABLE, "none": []},
        {"curve": FIGURE},
        list(FORMATS),
    )
    assert [path.name for path in written] == [
        "result.json",
        "units.csv",
        "none.csv",
        "curve.png",
        "curve.svg",
        "curve.pdf",
    ]
    out = tmp_path / "new" / "out"
    assert json.loads((out / "result.json").read_text()) == {"value": None, "rows": [{"x": 1.5}], "infinite": [None]}
    with open(out / "units.csv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"unit": "L0.H0", "value": "0.125"},
            {"unit": TABLE[1]["unit"], "value": ""},
        ]
    assert (out / "none.csv").read_bytes() == b""
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "curve.svg").read_bytes()
    assert (out / "curve.pdf").read_bytes().startswith(b"%PDF")


def test_by_default_json_csv_and_png_and_equal_calls_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (write_analysis_files(tmp_path / name, "r", {}, {"t": TABLE}, {"f": FIGURE}) for name in ("a", "b"))
    assert [path.suffix for path in first] == [".json", ".csv", ".png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    check_analysis_files(None, None, overwrite=False)
    check_analysis_files(tmp_path / "new", ["csv"], overwrite=False)
    (tmp_path / "mine.txt").write_text("x")
    for folder, said in ((tmp_path, "not empty"), (tmp_path / "mine.txt", "is a file")):
        with pytest.raises(BadInputError, match=said):
            check_analysis_files(folder, None, overwrite=False)
    check_analysis_files(tmp_path, None, overwrite=True)
    with pytest.raises(BadInputError, match="give --out DIR too"):
        check_analysis_files(None, ["png"], overwrite=False)


def test_a_place_that_cannot_be_written_says_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="0 of 1 files were written"):
        write_analysis_files(tmp_path / "file" / "out", "r", {}, {}, {}, ["json"])


def test_one_output_file_is_a_new_name_or_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    check_output_file(path, overwrite=False)
    path.write_text("x")
    check_output_file(path, overwrite=True)
    with pytest.raises(BadInputError, match="exists; add --overwrite"):
        check_output_file(path, overwrite=False)
    with pytest.raises(BadInputError, match="is a folder, expected a file name"):
        check_output_file(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    "name", ["train-00000.safetensors", "store/val-00000.safetensors", "methods/linear/result.json", "runs.jsonl"]
)
def test_work_is_a_shard_a_fitted_method_or_a_run(tmp_path: Path, name: str) -> None:
    for begun in ("run.json", "store/unfinished.json", "store/maps.safetensors"):
        (tmp_path / begun).parent.mkdir(exist_ok=True)
        (tmp_path / begun).touch()
    assert not holds_work(tmp_path)
    assert not holds_work(tmp_path / "nowhere")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert holds_work(tmp_path)
    assert holds_work("s3://bucket/store")
