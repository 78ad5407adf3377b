"""Folders of `train|val|test.parquet`, as the `datasets` library writes them.

Column `image` is a struct with `bytes`, or plain bytes; column `label` is an integer or text. Class names are those of
the ClassLabel feature in the schema metadata `huggingface`; `residualign.data.labels` has the rule for labels.
A split may be cut into `train-00000-of-00003.parquet` and so on. Keys are split and row (`"train/17"`).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from residualign.data.images import BadImageError
from residualign.data.labels import number_labels
from residualign.data.split import EncodedSource, RawData, Split, split_name
from residualign.errors import BadInputError

__all__ = ["holds_parquet", "read_parquet"]

_PART = re.compile(r"(?P<split>[A-Za-z]+)(-\d+-of-\d+(-[0-9a-f]{8,})?)?\.parquet")


@dataclass(eq=False)
class _Rows(EncodedSource):
    """Images by row, over the files of a split.

    Keeps the encoded bytes of the last row group read: rows in ascending order read each group once.
    """

    files: tuple[Path, ...]
    groups: tuple[tuple[int, int], ...]  # (file, row group within it)
    starts: tuple[int, ...]  # first row of each group
    _held: tuple[int, pa.ChunkedArray] | None = field(default=None, repr=False)

    def encoded(self, row: int, key: str) -> bytes:
        group = bisect_right(self.starts, row) - 1
        held = self._held
        if held is None or held[0] != group:
            held = self._held = (group, self._read(group))
        value = held[1][row - self.starts[group]].as_py()
        data: bytes | None = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise BadImageError(key, "its row holds no bytes")
        return data

    def file(self, row: int, key: str) -> Path:
        return self.files[self.groups[bisect_right(self.starts, row) - 1][0]]

    def _read(self, group: int) -> pa.ChunkedArray:
        file, within = self.groups[group]
        path = self.files[file]
        try:
            with pq.ParquetFile(path) as opened:
                return opened.read_row_group(within, columns=["image"]).column("image")
        except (pa.ArrowException, OSError) as error:
            raise BadInputError(f"the file {str(path)!r} cannot be read: {_first_line(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}


@dataclass(frozen=True)
class _Table:
    """One split on disk. labels: of its rows, None without a label column. names: the class names, if given."""

    rows: _Rows
    labels: Sequence[Any] | None
    names: tuple[str, ...] | None


def holds_parquet(root: Path) -> bool:
    """Whether there is a parquet file directly in this folder."""
    return any(root.glob("[!.]*.parquet"))


def read_parquet(root: Path, labeled: bool = True, n_classes: int | None = None) -> RawData:
    """The splits of a folder of parquet files; labels are read, images are not.

    n_classes: the number of classes, if the caller has names for integer labels that the files do not name. With
    labeled=False files without `label` are accepted too, as one class named "images". Raises `BadInputError` naming
    the file if it is not parquet, has the wrong columns or types, no rows, or a label that is missing or outside the
    classes. Costs a read of the label column.
    """
    tables = {split: _read_table(paths, labeled) for split, paths in _split_files(root).items()}
    names = {table.names for table in tables.values()}
    if len(names) > 1:
        raise BadInputError(f"the parquet files of {str(root)!r} name different classes in different splits")
    (declared,) = names
    sizes = {split: table.rows.starts[-1] for split, table in tables.items()}
    found = number_labels(
        {split: table.labels for split, table in tables.items()},
        sizes,
        str(root),
        declared=declared,
        n_classes=n_classes,
        labeled=labeled,
    )
    splits = {}
    for split, labels in found.labels.items():
        keys = tuple(f"{split}/{i}" for i in range(len(labels)))
        splits[split] = Split(split, keys, labels, tables[split].rows, tuple(range(len(labels))))
    return RawData(splits, found.class_names, notes=found.notes)


def _split_files(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    spelled: dict[str, str] = {}
    for path in sorted(root.glob("[!.]*.parquet")):
        part = _PART.fullmatch(path.name)
        split = split_name(part["split"]) if part else None
        if part is None or split is None:
            raise BadInputError(f"parquet files must be named train, val or test, got {path.name!r} in {str(root)!r}")
        whole = part[0] == f"{part['split']}.parquet"
        if spelled.setdefault(split, part["split"]) != part["split"] or (whole and split in found):
            raise BadInputError(f"the folder {str(root)!r} holds the {split} split twice")
        found.setdefault(split, []).append(path)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _read_table(paths: Sequence[Path], labeled: bool) -> _Table:
    groups: list[tuple[int, int]] = []
    sizes: list[int] = []
    labels: list[Any] | None = []
    names: set[tuple[str, ...] | None] = set()
    for i, path in enumerate(paths):
        try:
            with pq.ParquetFile(path) as opened:
                schema = opened.schema_arrow
                has_label = _check_columns(schema, path, labeled)
                names.add(_class_names(schema, path))
                n_groups = opened.metadata.num_row_groups
                groups += [(i, g) for g in range(n_groups)]
                sizes += [opened.metadata.row_group(g).num_rows for g in range(n_groups)]
                own = opened.read(columns=["label"]).column("label").to_pylist() if has_label else None
        except (pa.ArrowException, OSError) as error:
            raise BadInputError(f"the file {str(path)!r} cannot be read as parquet: {_first_line(error)}") from error
        labels = None if own is None or labels is None else labels + own
    if not sum(sizes):
        raise BadInputError(f"the file {str(paths[0])!r} has no rows")
    if len(names) > 1:
        raise BadInputError(f"the parts of {paths[0].name!r} name different classes")
    starts = tuple(accumulate(sizes, initial=0))
    return _Table(_Rows(tuple(paths), tuple(groups), starts), labels, names.pop())


def _check_columns(schema: pa.Schema, path: Path, labeled: bool) -> bool:
    """Whether there is a label column; raises `BadInputError` naming the file if columns or types are wrong."""
    wanted = ("image", "label") if labeled else ("image",)
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise BadInputError(f"the file {str(path)!r} has no column {missing[0]!r}, only {', '.join(schema.names)}")
    kind = schema.field("image").type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else None
    if kind is None or not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        found = schema.field("image").type
        raise BadInputError(f"column 'image' of {str(path)!r} must be bytes or a struct with bytes, got {found}")
    if "label" not in schema.names:
        return False
    kind = schema.field("label").type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(kind):  # labels that are all missing have no type
        return True
    if pa.types.is_nested(kind):
        raise BadInputError(f"column 'label' of {str(path)!r} holds several labels ({kind}); expected one per image")
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BadInputError(f"column 'label' of {str(path)!r} must be an integer or text, got {kind}")
    return True


def _class_names(schema: pa.Schema, path: Path) -> tuple[str, ...] | None:
    """The names of the ClassLabel feature of `label`; None if the metadata has none."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        names = json.loads(text)["info"]["features"]["label"].get("names")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInputError(f"the class names in the metadata of {str(path)!r} are not a list of texts")
    return tuple(names)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
