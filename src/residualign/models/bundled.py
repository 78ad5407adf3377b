"""Files that may come with a model: spectra of a reference set, and a dictionary of texts that it was taught."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["DICTIONARY_NAME", "shipped_file"]

DICTIONARY_NAME = "dictionary.txt"
"""A model directory may hold descriptions that its text tower knows under this name; `mini` does."""


def shipped_file(model_name: str, file: str) -> Path | None:
    """A file that lies with a model, if it has one of this name."""
    folder = Path(model_name)
    if model_name == "mini":
        folder = Path(str(files("residualign") / "models" / "mini"))
    path = folder / file
    return path if path.is_file() else None
