"""The files of a result, for papers and scripts: one JSON file, tables as CSV, figures as PNG, SVG or PDF."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from residualign._files import json_bytes, publish, saying_what_is_kept
from residualign._result import Table
from residualign.errors import BadInputError
from residualign.figures._figure import IMAGE_FORMATS, Figure

__all__ = ["FORMATS", "check_analysis_files", "check_output_file", "with_files", "write_analysis_files"]

FORMATS = ("json", "csv", *IMAGE_FORMATS)
"""The values of `--format`."""

DEFAULT_FORMATS = ("json", "csv", "png")

Outcome = TypeVar("Outcome")


def check_analysis_files(folder: str | os.PathLike[str] | None, formats: Sequence[str] | None, overwrite: bool) -> None:
    """`BadInputError` for formats without a folder, a file instead of a folder, and a folder that is not empty.

    overwrite: allow a folder that is not empty; files of the same names are replaced, others are kept.
    """
    if folder is None:
        if formats:
            raise BadInputError("--format selects the files written to --out; give --out DIR too")
        return
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{str(path)!r} is a file, expected a folder for tables and figures")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise BadInputError(
            f"{str(path)!r} is not empty; add --overwrite to replace files there, or choose another name"
        )


def check_output_file(path: Path, overwrite: bool) -> None:
    """`BadInputError` for a folder, and for a file that exists, unless overwrite."""
    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder, expected a file name")
    if path.exists() and not overwrite:
        raise BadInputError(f"{str(path)!r} exists; add --overwrite to replace it, or choose another name")


def with_files(outcome: Outcome, name: str) -> Outcome:
    """Write the outcome of a command to the `--out` of its request, if given, and return it with its `files`.

    The outcome has `request`, `to_json()`, `tables`, `figures` and a field `files`.
    """
    given: Any = outcome
    if given.request.out is None:
        return outcome
    files = write_analysis_files(
        given.request.out, name, given.to_json(), given.tables, given.figures, given.request.format
    )
    return dataclasses.replace(given, files=files)  # type: ignore[no-any-return]


def write_analysis_files(
    folder: str | os.PathLike[str],
    name: str,
    payload: Mapping[str, Any],
    tables: Mapping[str, Table],
    figures: Mapping[str, Figure],
    formats: Sequence[str] | None = None,
) -> tuple[Path, ...]:
    """Write `NAME.json` (what `--json` prints), one CSV file per table, and each figure in every format asked for.

    tables and figures: by file name without ending. Every file is written whole or not at all. Returns their paths;
    `RunError` if writing fails.
    """
    wanted = tuple(dict.fromkeys(formats or DEFAULT_FORMATS))
    contents: dict[str, Callable[[], bytes]] = {}
    if "json" in wanted:
        contents[f"{name}.json"] = lambda: json_bytes(payload)
    if "csv" in wanted:
        contents |= {f"{key}.csv": partial(_csv, table) for key, table in tables.items()}
    for ending in IMAGE_FORMATS:
        if ending in wanted:
            contents |= {f"{key}.{ending}": partial(figure.to_bytes, ending) for key, figure in figures.items()}
    written: list[Path] = []
    for file, content in contents.items():
        path = Path(folder) / file
        with saying_what_is_kept(path, f"{len(written)} of {len(contents)} files were written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(path, content())
        written.append(path)
    return tuple(written)


def _csv(table: Table) -> bytes:
    buffer = io.StringIO()
    if table:
        writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
        writer.writerow({name: _as_text(name) for name in table[0]})
        writer.writerows({name: _as_text(value) for name, value in row.items()} for row in table)
    # half a surrogate pair, as in names of files that are not UTF-8, cannot be encoded
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _as_text(cell: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay."""
    if not isinstance(cell, str):
        return cell
    guarded = f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
    # ends a row, and the writer does not put it in quotes
    return guarded.replace("\r", "\\r")
