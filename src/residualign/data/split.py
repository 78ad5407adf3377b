"""Split and ImageData: the images, their keys and their labels."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from residualign._messages import plural
from residualign._result import one_line
from residualign.data.images import decode

__all__ = ["SPLIT_NAMES", "EncodedSource", "ImageData", "ImageSource", "RawData", "Split", "image_mark", "split_name"]

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a split may be called in a source, in lower case -> what it is called here."""


@runtime_checkable
class ImageSource(Protocol):
    """Where the images of a split are stored. Small and picklable: pixels are read only when asked for.

    A source may also have `parallel` (default True): False if only one process may read it, in ascending order of rows.
    """

    def image(self, row: int, key: str) -> Image.Image:
        """The image of one row in RGB; raises `BadImageError` naming `key`."""
        ...


class EncodedSource(ABC):
    """A source that stores encoded image files."""

    @abstractmethod
    def encoded(self, row: int, key: str) -> bytes:
        """The image file of one row as stored; raises `BadImageError` naming `key`."""

    def image(self, row: int, key: str) -> Image.Image:
        """The image of one row in RGB; raises `BadImageError` naming `key`."""
        return decode(self.encoded(row, key), key)

    def touched(self, row: int, key: str) -> int | None:
        """When the file that holds a row was last written or replaced, in nanoseconds; None where that is not known.

        For rows without a file of their own, the time of the file that holds them.
        """
        path = self.file(row, key)
        if path is None:
            return None
        try:
            found = os.stat(path)
        except OSError:
            return None
        # a file moved here keeps the time it was written, but not that of its entry
        return max(found.st_mtime_ns, found.st_ctime_ns)

    def file(self, row: int, key: str) -> Path | None:
        """The file that holds a row, where there is one."""
        return None


def image_mark(data: bytes) -> str:
    """What an encoded image is recognized by: its size, and the first 16 digits of its SHA-256."""
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


@dataclass(frozen=True, eq=False)
class Split:
    """Labeled images in a fixed order.

    Parameters
    ----------
    name : str
        `"train"`, `"val"` or `"test"`.
    keys : tuple of str
        One name per image, unique in the data set and the same on every machine: the path below the data's folder
        (`"train/cat/01.png"`), or split and row (`"train/17"`).
    labels : tuple of int
        One index into the data's class names per image.
    source : ImageSource or None
        Where the images are stored; None for an empty split.
    rows : tuple of int
        The row of each image in `source`.

    Notes
    -----
    Holds no pixels: `image` reads and decodes one image at each call.
    """

    name: str
    keys: tuple[str, ...]
    labels: tuple[int, ...]
    source: ImageSource | None = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)

    def __post_init__(self) -> None:
        assert len(self.keys) == len(self.labels) == len(self.rows)

    @staticmethod
    def empty(name: str) -> Split:
        """A split without images."""
        return Split(name, (), (), None, ())

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return one_line(
            f"Split({self.name!r}, {plural(len(self), 'image')}, {plural(len(set(self.labels)), 'class', 'classes')})"
        )

    def image(self, index: int) -> Image.Image:
        """Read one image.

        Parameters
        ----------
        index : int
            Position in the split.

        Returns
        -------
        PIL.Image.Image
            The image in RGB, by the rule of `residualign.data.images`.

        Raises
        ------
        BadImageError
            If the image cannot be read in full; `.key` names it.
        IndexError
            If there is no such position.
        """
        row, key = self.rows[index], self.keys[index]
        assert self.source is not None
        return self.source.image(row, key)

    def images(self) -> Iterator[Image.Image]:
        """Read all images, one after another.

        Returns
        -------
        iterator of PIL.Image.Image
            The images in RGB, as `image` reads them.
        """
        return (self.image(i) for i in range(len(self)))

    def take(self, indices: Iterable[int], name: str | None = None) -> Split:
        """Select images.

        Parameters
        ----------
        indices : iterable of int
            Positions in the split; their order is kept.
        name : str, optional
            Name of the new split; the same name by default.

        Returns
        -------
        Split
            The selected images with their keys and labels.
        """
        picked = tuple(int(i) for i in indices)
        return Split(
            self.name if name is None else name,
            tuple(self.keys[i] for i in picked),
            tuple(self.labels[i] for i in picked),
            self.source,
            tuple(self.rows[i] for i in picked),
        )

    def class_counts(self, n_classes: int) -> tuple[int, ...]:
        """Count the images of each class.

        Parameters
        ----------
        n_classes : int
            Number of classes of the data set.

        Returns
        -------
        tuple of int
            One count per class, in label order.
        """
        counts = Counter(self.labels)
        return tuple(counts[label] for label in range(n_classes))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labeled image set: classes, prompt templates and three splits, any of which may be empty.

    Parameters
    ----------
    name : str
        The source as it was given.
    class_names : tuple of str
        Names in label order.
    templates : tuple of str
        Prompts with one `{}` each.
    train, val, test : Split
        The three splits.
    split_rule : str
        How the splits were made, in words.
    strays : tuple of str
        Keys of files among the images that are not images.
    notes : tuple of str
        Remarks about the data, one sentence each.
    """

    name: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    split_rule: str
    strays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, val and test, in this order."""
        return self.train, self.val, self.test

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split.name} {len(split):,}" for split in self.splits)
        name = self.name if len(self.name) <= 60 else f"...{self.name[-57:]}"
        classes = plural(len(self.class_names), "class", "classes")
        return one_line(f"ImageData({name!r}, {classes}, {sizes}; splits: {self.split_rule})")

    def describe(self) -> dict[str, Any]:
        """Name, classes, templates, sizes, strays and notes as JSON values."""
        return {
            "name": self.name,
            "classes": list(self.class_names),
            "templates": list(self.templates),
            **{f"n_{split.name}": len(split) for split in self.splits},
            "split_rule": self.split_rule,
            "strays": list(self.strays),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class RawData:
    """What a source holds. splits: those it has, under "train", "val", "test". class_names: its own, in label order."""

    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    templates: tuple[str, ...] | None = None
    strays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def split_name(name: str) -> str | None:
    """The split that a folder or file of this name holds; None if the name is not that of a split.

    >>> split_name("Validation"), split_name("cats")
    ('val', None)
    """
    return SPLIT_NAMES.get(name.lower())
