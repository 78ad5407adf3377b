"""Split and ImageData: which images there are, under which keys, with which labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from PIL import Image

__all__ = ["SPLIT_NAMES", "ImageData", "ImageSource", "RawData", "Split", "split_name"]

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a split may be called in a source, in lower case -> what it is called here."""


@runtime_checkable
class ImageSource(Protocol):
    """Where the images of a split lie. Cheap to hold and picklable: pixels are read only when asked for.

    Two things a source may have beyond the protocol. `parallel`, False where one process alone must read it, in
    ascending order of rows (taken as True where it is missing). `encoded(row, key) -> bytes`, the image as it is
    stored, for those who want to know its format; it raises what `image` raises.
    """

    def image(self, row: int, key: str) -> Image.Image:
        """The image of one row in RGB; raises `BadImageError` naming `key`."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images in a fixed order.

    keys are unique within the data set and the same on every machine: the path below the data's folder
    (`"train/cat/01.png"`), or split and row (`"train/17"`). labels index the data's class names. Holds no pixels:
    `image` reads and decodes one image each time.
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
        return f"Split({self.name!r}, {len(self)} images of {len(set(self.labels))} classes)"

    def image(self, index: int) -> Image.Image:
        """The image at this position, in RGB by the rule of `residualign.data.images`.

        Raises `BadImageError` naming its key where it cannot be read in full, IndexError out of range.
        """
        row, key = self.rows[index], self.keys[index]
        assert self.source is not None
        return self.source.image(row, key)

    def images(self) -> Iterator[Image.Image]:
        """All images, one after another."""
        return (self.image(i) for i in range(len(self)))

    def take(self, indices: Iterable[int], name: str | None = None) -> Split:
        """The images at these positions, in this order; keys and labels go with them."""
        picked = tuple(int(i) for i in indices)
        return Split(
            self.name if name is None else name,
            tuple(self.keys[i] for i in picked),
            tuple(self.labels[i] for i in picked),
            self.source,
            tuple(self.rows[i] for i in picked),
        )

    def class_counts(self, n_classes: int) -> tuple[int, ...]:
        """How many images each class has here."""
        counts = Counter(self.labels)
        return tuple(counts[label] for label in range(n_classes))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled image set: classes, prompt templates, and three splits (any of which may be empty).

    name: the source as it was given. split_rule: how the splits came about, in words. strays: keys of files that lie
    among the images and are none. notes: what a careful user would want to know, one sentence each.
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
        sizes = ", ".join(f"{split.name} {len(split)}" for split in self.splits)
        return f"ImageData({self.name!r}, {len(self.class_names)} classes, {sizes}; splits: {self.split_rule})"

    def describe(self) -> dict[str, Any]:
        """What this is, as plain JSON values."""
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
    """splits: those the source has, under "train", "val", "test". class_names: the source's own, in label order."""

    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    templates: tuple[str, ...] | None = None
    strays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def split_name(name: str) -> str | None:
    """The split that a folder or file of this name holds, None where it is no split's name.

    >>> split_name("Validation"), split_name("cats")
    ('val', None)
    """
    return SPLIT_NAMES.get(name.lower())
