"""Class files, parquet files and folders as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from residualign._progress import Progress
from residualign.data import load_data
from residualign.data.prompts import DEFAULT_TEMPLATE
from residualign.errors import BadInputError
from residualign.inputs.classifier import warn_of_unknown_words
from residualign.models.names import resolve
from tests.data.make import class_folders, noise, parquet, png


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_class_files_as_windows_writes_them(tmp_path: Path, encoding: str, suffix: str) -> None:
    file = tmp_path / f"names.{suffix}"
    file.write_bytes(json.dumps(["cat", "caf\u00e9"], ensure_ascii=False).encode(encoding))
    data = load_data(class_folders(tmp_path / "data", {"a": 3, "b": 3}), classes=file)
    assert data.class_names == ("cat", "caf\u00e9")


def test_numbers_with_leading_zeros_are_names_as_written(tmp_path: Path) -> None:
    folders = [f"{i:05}" for i in range(11)]
    (tmp_path / "names.yaml").write_text("00010: ten\n00008: eight\n3: three\n")
    data = load_data(class_folders(tmp_path / "data", dict.fromkeys(folders, 3)), classes=tmp_path / "names.yaml")
    assert [data.class_names[i] for i in (3, 8, 10, 0)] == ["three", "eight", "ten", "00000"]


def test_parquet_parts_with_a_hash_in_their_name(tmp_path: Path) -> None:
    assert len(load_data(parquet(tmp_path / "train-00000-of-00001-a09b74b3ef9c3b56.parquet", [0, 1] * 5)).train) == 6


def test_labels_that_are_all_null_are_no_labels(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [0, 1] * 10)
    pq.write_table(pa.table({"image": [png(noise(0))], "label": pa.nulls(1)}), tmp_path / "test.parquet")
    assert "test split" in load_data(tmp_path).notes[0]


def test_folders_of_other_programs_are_refused_with_the_way_out(tmp_path: Path) -> None:
    parquet(tmp_path / "hub" / "data" / "train.parquet", [0, 1] * 10)
    with pytest.raises(BadInputError, match=r"'data' in it does: give '.*data'"):
        load_data(tmp_path / "hub")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"save_to_disk.*to_parquet"):
        load_data(tmp_path / "saved")


def test_a_model_directory_of_open_clip_is_named_with_its_prefix(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(BadInputError, match="give open_clip:local-dir:"):
        resolve(str(tmp_path))


def test_numbers_as_words_are_warned_of() -> None:
    class Told(Progress):
        name = "model"

        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warn(self, sentence: str) -> None:
            self.warnings.append(sentence)

        def unknown_words(self, texts: list[str]) -> list[str]:
            return []

    for names, templates, expected in (
        (["n01440764", "n01443537"], (DEFAULT_TEMPLATE,), 1),
        (["0", "1"], (DEFAULT_TEMPLATE,), 1),
        (["0", "1"], ("the digit {}.",), 0),
        (["cat", "1"], (DEFAULT_TEMPLATE,), 0),
    ):
        told = Told()
        warn_of_unknown_words(told, names, templates, told)  # type: ignore[arg-type]
        assert len(told.warnings) == expected
