"""Runs of a grid as JSON lines: one object per run, written as it ends, so that the same command resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from residualign._files import plain, publish, saying_what_is_kept
from residualign.errors import BadInputError

__all__ = ["RUNS_NAME", "RunLog"]

RUNS_NAME = "runs.jsonl"

_FORMAT, _VERSION = "residualign runs", 1
_KEPT = "the runs before it are kept, and the same command resumes from there"


class RunLog:
    """The file of the runs in a folder; its first line holds what all runs have in common.

    The file is opened with what is common to all runs, as JSON types: a file that was started with different values is
    refused unless `overwrite` starts it again. An incomplete last line is dropped. folder None keeps nothing.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, common: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self._path = None if folder is None else Path(folder) / RUNS_NAME
        header = {"format": _FORMAT, "version": _VERSION, "common": plain(dict(common))}
        self.records: list[dict[str, Any]] = []
        if self._path is None:
            return
        if self._path.is_file() and not overwrite:
            self.records = _read(self._path, header)
        lines = [header, *self.records]
        with saying_what_is_kept(self._path, _KEPT):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            publish(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one run; on disk when this returns. `RunError` if it cannot be written."""
        content = plain(dict(record))
        self.records.append(content)
        if self._path is None:
            return
        with saying_what_is_kept(self._path, _KEPT), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    # after the last newline there is nothing, or an incomplete line of a run that was killed
    try:
        found, *records = [json.loads(line) for line in lines[:-1]]
        known = (found["format"], found["version"]) == (_FORMAT, _VERSION)
        common = dict(found["common"])
    except (ValueError, KeyError, TypeError):
        known, common, records = False, {}, []
    if not known:
        raise BadInputError(
            f"{str(path)!r} is damaged or was written by another program; choose another folder, or add --overwrite"
        )
    wanted = header["common"]
    for name in {**common, **wanted}:
        if common.get(name) != wanted.get(name):
            raise BadInputError(
                f"{str(path)!r} contains runs with a different {name}: {common.get(name)!r} there, "
                f"{wanted.get(name)!r} here; choose another folder, or add --overwrite to start again"
            )
    return records
