"""A report as one JSON file, whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from residualign._files import publish, saying_what_is_kept
from residualign.errors import BadInputError

__all__ = ["check_report_file", "write_report_file"]


def check_report_file(path: str | os.PathLike[str], overwrite: bool) -> None:
    """`BadInputError` for a folder, and for a file that exists, unless overwrite."""
    path = Path(path)
    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder, expected a file name for the report")
    if path.exists() and not overwrite:
        raise BadInputError(f"{str(path)!r} exists; add --overwrite to replace it, or choose another name")


def write_report_file(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Write the report; `RunError` where that is not possible."""
    path = Path(path)
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    with saying_what_is_kept(path, "nothing was written there"):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, text.encode())
