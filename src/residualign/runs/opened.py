"""Open a finished run: its results, adapters, store and pictures."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residualign.adapter.adapter import Adapter, load_adapter
from residualign.errors import BadInputError
from residualign.runs.folder import METHODS_NAME, RUN_NAME, STORE_NAME
from residualign.runs.results import MethodResult
from residualign.runs.summary import MAX_BYTES, SUMMARY_FORMAT, SUMMARY_NAME, THUMBNAILS_NAME
from residualign.store import Store

__all__ = ["RunResults", "open_run", "store_of_run"]

_MOST_BYTES = 4 * MAX_BYTES
"""Of all thumbnails: a run writes at most a quarter of it."""


@dataclass(frozen=True)
class RunResults:
    """A finished `adapt`.

    adapter: the chosen one. shown: the one whose lambdas the report shows, usually the same; a different method of the
    run where only that one scales heads. pictures: JPEG files by name, as base64 text. picture_of: the file of each
    image, by its key.
    """

    path: Path
    summary: dict[str, Any]
    results: tuple[MethodResult, ...]
    adapter: Adapter
    shown: Adapter
    store: Store
    pictures: dict[str, str]
    picture_of: dict[str, str]

    def result(self, method: str) -> MethodResult:
        """The record of one method."""
        return next(result for result in self.results if result.method == method)


def open_run(
    folder: str | os.PathLike[str], *, store: str | None = None, model: str | None = None, device: str = "cpu"
) -> RunResults:
    """Open what `residualign adapt --out DIR` wrote.

    store: path of the run's store, by default where the run put it. model: new location of the model, which is only
    loaded when needed. `BadInputError` for a folder without a finished run, and for a store that is missing or belongs
    to a different run.
    """
    path = Path(folder)
    summary = _summary(path)
    try:
        results = tuple(MethodResult.from_json(result) for result in summary["results"])
        chosen = str(summary["chosen"])
        picture_of = {key: name for key, name in dict(summary.get("pictures", {})).items() if name}
    except (KeyError, TypeError, ValueError):
        raise BadInputError(f"{str(path / SUMMARY_NAME)!r} is damaged; run `residualign adapt` again") from None
    found = (Store.open(store) if store is not None else store_of_run(path)).in_memory()
    if found.fingerprint != summary["fingerprints"]["store"]:
        raise BadInputError(
            f"the store {found.path} is not that of the run in {path}: it contains different images or units"
        )
    adapter = load_adapter(path, model=model, device=device)
    adapter.attach_store(found)
    shown = adapter
    if (other := _shown_method(results, chosen)) != chosen:
        shown = load_adapter(path / METHODS_NAME / other, device=device)
        shown.attach_store(found)
    return RunResults(path, summary, results, adapter, shown, found, _pictures(path / THUMBNAILS_NAME), picture_of)


def store_of_run(path: Path) -> Store:
    """The store of a run: in its folder, or where its summary says; `BadInputError` if it is missing."""
    places = [path / STORE_NAME]
    # a run copied without its summary may still have its store
    with contextlib.suppress(OSError, ValueError, AttributeError):
        recorded = json.loads((path / SUMMARY_NAME).read_text(encoding="utf-8")).get("store")
        places += [Path(recorded)] if isinstance(recorded, str) else []
    for place in places:
        if (place / "manifest.json").is_file():
            return Store.open(place)
    raise BadInputError(
        f"no activation store found for the adapter {str(path)!r}; give one of the same model with --store PATH"
    )


def _summary(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise BadInputError(f"{str(path)!r} is not a folder; expected an output directory of `residualign adapt`")
    if not (path / SUMMARY_NAME).is_file():
        unfinished = (path / RUN_NAME).is_file()
        raise BadInputError(
            f"{str(path)!r} "
            + ("holds an unfinished run; run the command that began it again" if unfinished else "holds no run")
            + "; expected an output directory of `residualign adapt`"
        )
    try:
        content = json.loads((path / SUMMARY_NAME).read_text(encoding="utf-8"))
        if content["format"] == SUMMARY_FORMAT and isinstance(content["fingerprints"]["store"], str):
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BadInputError(f"{str(path / SUMMARY_NAME)!r} is damaged; run `residualign adapt` again")


def _shown_method(results: tuple[MethodResult, ...], chosen: str) -> str:
    """The chosen method, or, if it does not scale heads, the one with the best validation accuracy of those that do."""
    scaling = [result for result in results if any(unit.is_head for unit in result.units)]
    if not scaling or any(result.method == chosen for result in scaling):
        return chosen
    # methods with one lambda per component show more than those with one per head
    rich = [result for result in scaling if any(unit.n_lambdas > 1 for unit in result.units)] or scaling
    return max(rich, key=lambda result: (result.accuracy.val or 0.0, -result.parameters)).method


def _pictures(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as file:
            size = max(path.stat().st_size, sum(entry.file_size for entry in file.infolist()))
            if size > _MOST_BYTES:
                raise BadInputError(
                    f"{str(path)!r} holds {size:,} bytes of pictures, expected at most {_MOST_BYTES:,}; "
                    "remove it to continue without pictures"
                )
            return {entry.filename: base64.b64encode(_entry(file, entry)).decode() for entry in file.infolist()}
    # the last two: compressed in an unknown way, and encrypted
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        raise BadInputError(f"{str(path)!r} is damaged; remove it to continue without pictures") from None


def _entry(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry of the size that it says it has: reading all of it at once would unpack whatever there is."""
    with file.open(entry) as opened:
        return opened.read(entry.file_size)
