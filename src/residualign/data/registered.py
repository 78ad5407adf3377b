"""Image sets known by a name: one YAML file each in `sets/`, read here, so that a new set needs no code.

A file says `description`, `source` (its `kind`, and what that kind needs), and may say `classes` and `templates`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from residualign.data._raw import RawData
from residualign.data.images import to_rgb
from residualign.data.split import Split
from residualign.errors import BadInputError

__all__ = ["read_registered", "registered_names"]


def registered_names() -> tuple[str, ...]:
    """The names that `load_data` knows.

    >>> "digits" in registered_names()
    True
    """
    files = resources.files("residualign.data").joinpath("sets").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def read_registered(name: str) -> RawData:
    """The set registered under this name; `BadInputError` where its kind of source is unknown."""
    entry = _entry(name)
    kind = entry["source"]["kind"]
    if kind != "scikit-learn":
        raise BadInputError(f"the set {name!r} comes from a source of kind {kind!r}, which is not supported")
    pixels, labels = _scikit_learn(**{key: value for key, value in entry["source"].items() if key != "kind"})
    keys = tuple(f"{name}/{i}" for i in range(len(labels)))
    split = Split("train", keys, tuple(labels), _Pixels(pixels), tuple(range(len(labels))))
    templates = entry.get("templates")
    return RawData({"train": split}, tuple(entry["classes"]), None if templates is None else tuple(templates))


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Images held as grey pixels: (image, row, column), 0..255."""

    pixels: NDArray[np.uint8]

    def image(self, row: int, key: str) -> Image.Image:
        return to_rgb(Image.fromarray(self.pixels[row]), key)


def _entry(name: str) -> dict[str, Any]:
    text = resources.files("residualign.data").joinpath("sets", f"{name}.yaml").read_text(encoding="utf-8")
    entry: dict[str, Any] = yaml.safe_load(text)
    return entry


def _scikit_learn(loader: str, largest: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Grey images that come with scikit-learn; pixels 0..`largest` become 0..255."""
    # imported here: importing the package must stay quick
    from sklearn import datasets

    loaded = getattr(datasets, loader)()
    pixels = np.rint(loaded.images * (255 / largest)).astype(np.uint8)
    return pixels, [int(label) for label in loaded.target]
