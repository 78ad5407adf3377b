"""What every kind of source hands to `load_data`: its own splits and class names, before any rule is applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from residualign.data.split import Split

__all__ = ["SPLIT_NAMES", "RawData", "split_name"]

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a split may be called in a source, in lower case, and what it is called here."""


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
