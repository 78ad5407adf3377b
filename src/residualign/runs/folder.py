"""The output folder of a run: who may write to it, whether it is finished, which files are ours, how it resumes.

`run.json` records the command that made the folder and whether it finished; `runs.jsonl` the runs of a grid. A folder
with other content is never changed; in our own folders only the files in `OWN_FILES` are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from residualign._files import (
    TEMPORARY_SUFFIX,
    check_file_name,
    is_link,
    json_bytes,
    json_line,
    plain,
    publish,
    refuse_link,
    saying_what_is_kept,
)
from residualign.errors import BadInputError

__all__ = [
    "RUNS_NAME",
    "RUN_NAME",
    "RunFolder",
    "RunLog",
    "check_run_folder",
    "hide_from_git",
    "holds_work",
    "open_run_folder",
    "verb_of",
]

RUN_NAME, RUNS_NAME = "run.json", "runs.jsonl"
STORE_NAME = "store"
METHODS_NAME = "methods"

ADAPTER_FILES = ("adapter.safetensors", "history.jsonl", "README.md", "adapter_config.json")
"""The files of a saved adapter; the config is last, because it marks the folder as an adapter."""

RESULT_NAME = "result.json"

REPORT_NAME = "report.html"

OWN_FILES = (RUN_NAME, "summary.json", "thumbnails.zip", REPORT_NAME, ".gitignore", *ADAPTER_FILES)

_FORMAT, _VERSION = "residualign run", 1
_LOG_FORMAT, _LOG_VERSION = "residualign runs", 1
_RUNS_KEPT = "the runs before it are kept, and the same command resumes from there"

State = Literal["absent", "unfinished", "finished"]


@dataclass(frozen=True)
class RunFolder:
    """An output folder that this process has locked. resumed: whether it had an unfinished run of the same request."""

    path: Path
    request: Mapping[str, Any]
    command: tuple[str, ...]
    resumed: bool

    @property
    def store_path(self) -> Path:
        """The default path of the store."""
        return self.path / STORE_NAME

    def method_path(self, method: str) -> Path:
        """The folder of one of several methods; made if it does not exist."""
        path = self.path / METHODS_NAME / check_file_name(method, "method")
        with _kept(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: bytes) -> None:
        """Write one file of the folder, whole or not at all; `RunError` if it cannot be written."""
        with _kept(self.path / name):
            publish(self.path / name, content)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._write_state("finished")

    def _write_state(self, state: State) -> None:
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "state": state,
            "command": list(self.command),
            "request": dict(self.request),
        }
        self.write(RUN_NAME, json_bytes(content))


def check_run_folder(path: str | os.PathLike[str], request: Mapping[str, Any], *, overwrite: bool = False) -> State:
    """The state of `path` for this request; nothing is changed.

    request: everything that decides the result, as JSON types. Raises `BadInputError` for a file, a folder with other
    content, an unfinished run of a different request, and a finished one without `overwrite`; for a run with links
    where it has folders, and with `overwrite` for a link to a run.
    """
    folder = Path(path)
    if not os.path.lexists(folder):
        return "absent"
    if not folder.is_dir():
        raise BadInputError(f"{str(folder)!r} is a file, expected a folder or a new name")
    with _kept(folder):
        names = sorted(name for name in os.listdir(folder) if name != ".lock" and not name.endswith(TEMPORARY_SUFFIX))
    if RUN_NAME not in names:
        if names:
            raise BadInputError(
                f"the folder {str(folder)!r} is not empty and not a run of this command: it contains {names[0]!r}; "
                "choose a new or an empty folder"
            )
        return "absent"
    content = _read_state(folder)
    refuse_link(folder / STORE_NAME, "remove it, or choose another folder and give the path of the store with --store")
    for inner in (folder / METHODS_NAME, *(folder / METHODS_NAME).glob("*")):
        refuse_link(inner, "remove it, or choose another folder")
    if overwrite:
        refuse_link(folder, "give the path of the folder itself")
        return "finished" if content["state"] == "finished" else "unfinished"
    if content["state"] == "finished":
        raise BadInputError(
            f"{str(folder)!r} contains a finished run; add --overwrite to replace it, or choose another folder"
        )
    begun, wanted = content["request"], _as_read(request)
    if name := _first_difference(begun, wanted):
        raise BadInputError(
            f"{str(folder)!r} contains an unfinished run with different settings "
            f"({name}: {begun.get(name)!r} there, {wanted.get(name)!r} here); "
            "run that command again, add --overwrite to replace it, or choose another folder"
        )
    return "unfinished"


def verb_of(path: str | os.PathLike[str]) -> str | None:
    """The command that made a run folder; None if it is not one."""
    folder = Path(path)
    return str(_read_state(folder)["request"].get("verb")) if (folder / RUN_NAME).is_file() else None


def hide_from_git(path: Path) -> None:
    """Let git ignore this folder, as virtual environments do; `RunError` if that cannot be written."""
    with _kept(path):
        publish(path / ".gitignore", b"*\n")


@contextmanager
def open_run_folder(
    path: str | os.PathLike[str], request: Mapping[str, Any], command: tuple[str, ...], *, overwrite: bool = False
) -> Iterator[RunFolder]:
    """Lock the folder for one run: made if absent, resumed if unfinished, cleared of our own files with overwrite.

    The errors of `check_run_folder`; also `BadInputError` if another run has locked the folder, `RunError` if it cannot
    be written.
    """
    # stores import torch, which takes seconds; a folder should be refused at once
    from residualign.store import DirectoryLock

    folder = Path(path)
    check_run_folder(folder, request, overwrite=overwrite)
    is_new = not folder.exists()
    try:
        with DirectoryLock(folder):
            # checked again now that no other process can change it
            state = check_run_folder(folder, request, overwrite=overwrite)
            if overwrite and state != "absent":
                _remove_own(folder)
            run = RunFolder(folder, request, command, resumed=state == "unfinished" and not overwrite)
            if not run.resumed:
                run._write_state("unfinished")
            with _leaving_no_trace_of_bad_input(run):
                yield run
    except BadInputError:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _leaving_no_trace_of_bad_input(run: RunFolder) -> Iterator[None]:
    """After bad input that is found before any work is done, the folder is as it was."""
    try:
        yield
    except BadInputError:
        if not run.resumed and not holds_work(run.path):
            _remove_own(run.path)
        raise


def holds_work(path: str | os.PathLike[str]) -> bool:
    """Whether a store has a shard, or the folder of a run or a grid has one, a fitted method or a finished fit.

    A URL is not looked at: it counts as one that does.
    """
    folder, finished = Path(path), (f"{STORE_NAME}/*-[0-9]*.safetensors", f"{METHODS_NAME}/*/*", RUNS_NAME)
    return "://" in str(path) or any(any(folder.glob(one)) for one in ("*-[0-9]*.safetensors", *finished))


def _remove_own(folder: Path) -> None:
    """Remove what a run wrote, `run.json` last, and nothing else."""
    from residualign.store import remove_store

    store = folder / STORE_NAME
    if store.is_dir() and any((store / name).exists() for name in ("manifest.json", "unfinished.json")):
        remove_store(store)
    with _kept(folder):
        for method in (folder / METHODS_NAME).glob("*/"):
            if is_link(method):
                continue
            for name in (*ADAPTER_FILES, RESULT_NAME):
                (method / name).unlink(missing_ok=True)
            _remove_if_empty(method)
        _remove_if_empty(folder / METHODS_NAME)
        for name in reversed(OWN_FILES):
            (folder / (name + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
            (folder / name).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / RUN_NAME).read_text(encoding="utf-8"))
        if content["format"] == _FORMAT and content["version"] == _VERSION:
            return {"state": str(content["state"]), "request": dict(content["request"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BadInputError(
        f"{str(folder / RUN_NAME)!r} is damaged or was written by another program; choose another folder"
    )


def _first_difference(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The name of the first value that differs, if any."""
    return next((name for name in {**begun, **wanted} if begun.get(name) != wanted.get(name)), None)


def _as_read(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as read back from JSON: tuples are lists."""
    content: dict[str, Any] = json.loads(json.dumps(dict(request)))
    return content


def _kept(path: Path) -> Any:
    return saying_what_is_kept(path, "what was done before is kept, and the same command resumes from there")


class RunLog:
    """The runs of a grid as JSON lines in a folder, each written as it ends, so that the same command resumes.

    common: what all runs have in common, as JSON types; it is the first line. A file with different values is refused
    unless `overwrite` starts it again. An incomplete last line is dropped. folder: None keeps nothing on disk.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, common: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self._path = None if folder is None else Path(folder) / RUNS_NAME
        header = {"format": _LOG_FORMAT, "version": _LOG_VERSION, "common": plain(dict(common))}
        self.records: list[dict[str, Any]] = []
        if self._path is None:
            return
        if self._path.is_file() and not overwrite:
            self.records = _read_log(self._path, header)
        lines = [header, *self.records]
        with saying_what_is_kept(self._path, _RUNS_KEPT):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            publish(self._path, b"".join(map(json_line, lines)))

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one run; on disk when this returns. `RunError` if it cannot be written."""
        content = plain(dict(record))
        self.records.append(content)
        if self._path is None:
            return
        with (
            saying_what_is_kept(self._path, _RUNS_KEPT),
            open(self._path, "ab", opener=_unlinked) as file,
        ):
            file.write(json_line(content))
            file.flush()
            os.fsync(file.fileno())


def _unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _read_log(path: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    # after the last newline there is nothing, or an incomplete line of a run that was killed
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        found, *records = map(json.loads, lines)
        known = (found["format"], found["version"]) == (header["format"], header["version"])
        common = dict(found["common"])
    except (ValueError, KeyError, TypeError):
        known, common, records = False, {}, []
    if not known:
        raise BadInputError(
            f"{str(path)!r} is damaged or was written by another program; choose another folder, or add --overwrite"
        )
    wanted = header["common"]
    if name := _first_difference(common, wanted):
        raise BadInputError(
            f"{str(path)!r} contains runs with a different {name}: {common.get(name)!r} there, "
            f"{wanted.get(name)!r} here; choose another folder, or add --overwrite to start again"
        )
    return records
