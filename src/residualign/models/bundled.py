"""Files that may come with a model: spectra of a reference set, and a dictionary of texts it was trained on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["DICTIONARY_NAME", "bundled_file"]

DICTIONARY_NAME = "dictionary.txt"
"""Under this name a model directory may hold descriptions that its text tower was trained on; `mini` does."""


def bundled_file(model_name: str, file: str) -> Path | None:
    """The file of this name that comes with a model, if there is one."""
    folder = Path(model_name)
    if model_name == "mini":
        folder = Path(str(files("residualign") / "models" / "mini"))
    path = folder / file
    return path if path.is_file() else None
