"""From a source's labels to class numbers: one rule for parquet files, WebDataset shards and the hub.

A label is an integer or a text, one per image. None, an empty text and -1 mean no label. An image without a label is
refused by name; a split in which no image has one (common in public test sets) is left out with a note. Several labels
per image are refused.

Classes are those the source declares, in its order. If it declares none, they are the labels that occur, sorted;
integers are then named by their digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from residualign.errors import BadInputError

__all__ = ["UNLABELED", "Labeled", "is_missing", "number_labels", "row_of_split"]

UNLABELED = "images"
"""The single class of images without labels, as in a reference set."""


@dataclass(frozen=True)
class Labeled:
    """labels: class numbers per remaining split, one per image. class_names: in label order."""

    labels: dict[str, tuple[int, ...]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def row_of_split(split: str, row: int) -> str:
    """Describes an image without a name, in errors."""
    return f"row {row} of {split}"


def number_labels(
    columns: Mapping[str, Sequence[Any] | None],
    sizes: Mapping[str, int],
    source: str,
    *,
    declared: Sequence[str] | None = None,
    n_classes: int | None = None,
    labeled: bool = True,
    where: Callable[[str, int], str] = row_of_split,
) -> Labeled:
    """Class numbers for the labels of every split.

    columns: split -> labels as stored, None without a label column; sizes: images per split. declared: the class names
    that integers index or texts are among; n_classes: the number of classes if only the caller has names for integers.
    labeled=False accepts images without labels as one class. where: what to call an image in an error. Raises
    `BadInputError` for what the rule above refuses, and for labels outside the classes.
    """
    kept, notes = _with_labels(columns, source, labeled)
    if not labeled and any(values is not None and any(map(is_missing, values)) for values in kept.values()):
        kept = dict.fromkeys(kept)
    if not any(values is not None for values in kept.values()):
        labels = {split: (0,) * sizes[split] for split in kept}
        return Labeled(labels, (UNLABELED,), (*notes, "the images have no labels"))
    kinds = set()
    for split, values in kept.items():
        if values is None:
            raise BadInputError(f"{source!r} has different kinds of labels in different splits: {split} has none")
        for row, value in enumerate(values):
            kinds.add(_kind(value, where(split, row), source) if type(value) is not int or value < 0 else int)
    if len(kinds) > 1:
        raise BadInputError(f"{source!r} has different kinds of labels, integers and texts; expected one kind")
    index: dict[Any, int]
    occurring = sorted({value for values in kept.values() for value in values or ()})
    if kinds == {int} and (declared or n_classes):
        names = tuple(declared or map(str, range(n_classes or 0)))
        index = dict(enumerate(range(len(names))))
    elif declared:
        names = tuple(declared)
        index = {name: number for number, name in enumerate(names)}
    else:
        names = tuple(map(str, occurring))
        index = {value: number for number, value in enumerate(occurring)}
    return Labeled(
        {split: _numbered(values or (), index, names, split, source, where) for split, values in kept.items()},
        names,
        notes,
    )


def is_missing(value: Any) -> bool:
    """Whether this means that there is no label.

    >>> [is_missing(value) for value in (None, "", " ", -1, 0, "-1")]
    [True, True, True, True, False, False]
    """
    return value is None or (isinstance(value, str) and not value.strip()) or (type(value) is int and value == -1)


def _with_labels(
    columns: Mapping[str, Sequence[Any] | None], source: str, labeled: bool
) -> tuple[dict[str, Sequence[Any] | None], tuple[str, ...]]:
    """The columns without splits that have no labels at all, and notes about those."""
    bare = [split for split, values in columns.items() if values and all(map(is_missing, values))]
    kept = {split: values for split, values in columns.items() if split not in bare}
    if kept:
        return kept, tuple(f"the {split} split of {source!r} has no labels and is left out" for split in bare)
    if labeled:
        raise BadInputError(f"no image of {source!r} has a label (all are empty or -1)")
    return dict.fromkeys(columns), ()


def _kind(value: Any, place: str, source: str) -> type:
    if isinstance(value, list | tuple | dict | set):
        raise BadInputError(f"{place} in {source!r} has several labels ({_short(value)}); expected one label per image")
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadInputError(f"the label in {place} in {source!r} is missing; expected an integer or a text")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadInputError(f"label {value!r} in {place} in {source!r} must be an integer or text")
    if isinstance(value, int) and value < 0:
        meaning = " (-1 means no label)" if value == -1 else ""
        raise BadInputError(f"label {value} in {place} in {source!r} must be 0 or larger{meaning}")
    return int if isinstance(value, int) else str


def _numbered(
    values: Sequence[Any],
    index: Mapping[Any, int],
    names: Sequence[str],
    split: str,
    source: str,
    where: Callable[[str, int], str],
) -> tuple[int, ...]:
    try:
        return tuple(index[value] for value in values)
    except KeyError:
        row, value = next((row, value) for row, value in enumerate(values) if value not in index)
    expected = f"0..{len(names) - 1}" if isinstance(value, int) else f"one of {_short(list(names))}"
    raise BadInputError(f"label {value!r} in {where(split, row)} in {source!r} must be {expected}")


def _short(value: Any) -> str:
    text = ", ".join(map(repr, value)) if isinstance(value, list) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
