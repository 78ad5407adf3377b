"""Image sets known by a name: one YAML file each in `sets/`, so that a new set needs no code.

`residualign.data.set_file` says what such a file holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from residualign.data.hub import HubSet, read_hub
from residualign.data.images import to_rgb
from residualign.data.set_file import HubSource, ScikitLearnSource, SetFile, read_set_file, set_names
from residualign.data.split import RawData, Split
from residualign.errors import BadInputError

__all__ = ["RegisteredSet", "read_registered", "registered_names", "registered_sets"]


def registered_names() -> tuple[str, ...]:
    """The names that `load_data` knows.

    >>> "digits" in registered_names()
    True
    """
    return set_names()


@dataclass(frozen=True)
class RegisteredSet:
    """What is known of a registered set before it is loaded. source: where it comes from, as `load_data` takes it."""

    name: str
    n_classes: int
    source: str
    description: str


def registered_sets() -> tuple[RegisteredSet, ...]:
    """All registered sets, in order of their names. Reads the registry's files, nothing else.

    >>> [(one.n_classes, one.source) for one in registered_sets() if one.name == "digits"]
    [(10, 'scikit-learn')]
    """
    return tuple(_described(name, read_set_file(name)) for name in set_names())


def _described(name: str, entry: SetFile) -> RegisteredSet:
    source = "scikit-learn"
    if isinstance(entry.source, HubSource):
        config = "" if entry.source.config is None else f":{entry.source.config}"
        source = f"hf:{entry.source.repo}{config}"
    return RegisteredSet(name, entry.n_classes, source, " ".join(entry.description.split()))


def read_registered(name: str, labelled: bool = True, stream: bool = False) -> RawData:
    """The set registered under this name; the errors of `read_hub` for one that comes from the hub."""
    entry = read_set_file(name)
    if isinstance(entry.source, ScikitLearnSource):
        return _from_scikit_learn(name, entry, entry.source)
    return _from_hub(name, entry, entry.source, labelled, stream)


def _from_hub(name: str, entry: SetFile, source: HubSource, labelled: bool, stream: bool) -> RawData:
    wanted = HubSet(
        name=name,
        repo=source.repo,
        config=source.config,
        revision=source.revision,
        image=source.image,
        label=source.label,
        splits=source.splits,
        only=source.only,
        classes=entry.classes,
        n_classes=entry.n_classes,
    )
    raw = read_hub(wanted, labelled, stream=stream)
    return RawData(raw.splits, entry.readable_names(raw.class_names), entry.templates, raw.strays, raw.notes)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Images held as grey pixels: (image, row, column), 0..255."""

    pixels: NDArray[np.uint8]

    def image(self, row: int, key: str) -> Image.Image:
        return to_rgb(Image.fromarray(self.pixels[row]), key)


def _from_scikit_learn(name: str, entry: SetFile, source: ScikitLearnSource) -> RawData:
    """Grey images that come with scikit-learn; pixels 0..`largest` become 0..255."""
    # imported here: importing the package must stay quick
    from sklearn import datasets

    loaded = getattr(datasets, source.loader)()
    pixels = np.rint(loaded.images * (255 / source.largest)).astype(np.uint8)
    labels = tuple(int(label) for label in loaded.target)
    keys = tuple(f"{name}/{i}" for i in range(len(labels)))
    split = Split("train", keys, labels, _Pixels(pixels), tuple(range(len(labels))))
    if entry.classes is None:
        raise BadInputError(f"the set {name!r} names no classes")
    return RawData({"train": split}, entry.classes, entry.templates)
