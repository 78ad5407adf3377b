"""Files that may lie with a model: spectra of a reference set, and a dictionary of texts that it was taught."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from residualign.text.dictionary import Texts, load_texts

__all__ = ["DICTIONARY_NAME", "choose_texts", "shipped_file"]

DICTIONARY_NAME = "dictionary.txt"
"""A model directory may hold descriptions that its text tower knows under this name; `mini` does."""


def shipped_file(model_name: str, file: str) -> Path | None:
    """A file that lies with a model, if it has one of this name."""
    folder = Path(model_name)
    if model_name == "mini":
        folder = Path(str(files("residualign") / "models" / "mini"))
    path = folder / file
    return path if path.is_file() else None


def choose_texts(path: str | os.PathLike[str] | None, model_name: str) -> Texts:
    """The descriptions that were named, else those that lie with the model, else the package's.

    A small text tower answers with an arbitrary vector to words it was never taught, and an arbitrary vector is
    sometimes the nearest. The errors of `load_texts`.
    """
    if path is None and (shipped := shipped_file(model_name, DICTIONARY_NAME)) is not None:
        return replace(load_texts(shipped), name=f"the dictionary that lies with {model_name}")
    return load_texts(path)
