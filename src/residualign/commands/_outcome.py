"""Write the tables and figures of a result, in the same way for all commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from residualign.runs.files import check_analysis_files, write_analysis_files

__all__ = ["check_files", "with_files"]

Outcome = TypeVar("Outcome")


@runtime_checkable
class WritesFiles(Protocol):
    """A request with the flags of `Files`."""

    @property
    def out(self) -> Path | None: ...
    @property
    def format(self) -> Sequence[str]: ...
    @property
    def overwrite(self) -> bool: ...


def check_files(request: WritesFiles) -> None:
    """`BadInputError` if `--out` cannot be used, before any work is done."""
    check_analysis_files(request.out, request.format, request.overwrite)


def with_files(outcome: Outcome, request: WritesFiles, name: str) -> Outcome:
    """Write the outcome if `--out` was given, and return it with its files: `NAME.json`, its tables, its figures.

    The outcome has `to_json()`, `tables`, `figures` and a field `files`.
    """
    if request.out is None:
        return outcome
    given: Any = outcome
    files = write_analysis_files(
        request.out, name, given.to_json(), given.tables, given.figures, request.format or None
    )
    return dataclasses.replace(given, files=files)  # type: ignore[no-any-return]
