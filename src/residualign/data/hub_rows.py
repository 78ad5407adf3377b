"""Images of a hub data set: from the library's cache by their row, or one after another from the stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from residualign.data.hub_errors import hub_errors
from residualign.data.images import BadImageError, decode

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["DownloadedRows", "HubStream", "StreamedRows"]

# images that were passed over for a later one and may still be asked for: threads ask a few places out of order
_WAITING = 64


@dataclass(frozen=True)
class DownloadedRows:
    """Images by their row in a split that the library keeps on disk. rows: a `datasets.Dataset`, images not decoded."""

    name: str
    rows: Any = field(repr=False)
    column: str

    def image(self, row: int, key: str) -> Image.Image:
        return decode(self.encoded(row, key), key)

    def encoded(self, row: int, key: str) -> bytes:
        """The image as it is stored."""
        return _encoded(self.rows[row][self.column], key, self.name)


@dataclass(frozen=True)
class HubStream:
    """One split of a hub data set that can be read from its start as often as is needed.

    name: the data set, for errors. revision: a commit wherever the hub told it, so that every reading sees the same
    rows. picks_columns: whether its files can be asked for single columns.
    """

    name: str
    repo: str
    config: str | None
    revision: str | None
    split: str
    picks_columns: bool

    def open(self, columns: Sequence[str], block: int | None = None) -> IterableDataset:
        """The rows from the first on, with these columns alone; images are not decoded.

        block: bytes asked for at a time, None for the library's own choice.
        """
        from datasets import load_dataset

        picked: dict[str, Any] = {"columns": list(columns)} if self.picks_columns else {}
        if block is not None:
            picked["storage_options"] = {"hf": {"block_size": block}}
        rows = load_dataset(self.repo, self.config, revision=self.revision, split=self.split, streaming=True, **picked)
        # first of all: newer versions stream through threads that decode, which this takes out again
        return rows.decode(False).select_columns(list(columns))


@dataclass(eq=False)
class StreamedRows:
    """Images by their row in a stream that only goes forward.

    Rows in ascending order are read in one go. Going back begins the stream again and passes over what comes before:
    slow, and never wrong. Of the rows that were passed over the last 64 wait, encoded, for threads that ask out of
    order. wanted: the rows of the split, None for all; others never wait. Safe in threads.
    """

    stream: HubStream
    column: str
    wanted: frozenset[int] | None = field(default=None, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _cursor: Iterator[tuple[int, Any]] | None = field(default=None, repr=False)
    _next: int = field(default=0, repr=False)
    _waiting: dict[int, Any] = field(default_factory=dict, repr=False)

    def of_rows(self, rows: Sequence[int]) -> StreamedRows:
        """The same stream with a cursor of its own, for these rows."""
        return StreamedRows(self.stream, self.column, frozenset(rows))

    @property
    def parallel(self) -> bool:
        """False: another process would begin a stream of its own."""
        return False

    def image(self, row: int, key: str) -> Image.Image:
        return decode(self.encoded(row, key), key)

    def encoded(self, row: int, key: str) -> bytes:
        """The image as it is stored."""
        with self._lock, hub_errors(self.stream.name):
            value = self._value(row, key)
        return _encoded(value, key, self.stream.name)

    def _value(self, row: int, key: str) -> Any:
        if row in self._waiting:
            return self._waiting.pop(row)
        if self._cursor is None or row < self._next:
            rows = self.stream.open([self.column])
            self._cursor, self._next = enumerate(example[self.column] for example in rows), 0
            self._waiting.clear()
        for at, value in self._cursor:
            self._next = at + 1
            if at == row:
                return value
            if self.wanted is None or at in self.wanted:
                self._waiting[at] = value
                if len(self._waiting) > _WAITING:
                    del self._waiting[next(iter(self._waiting))]
        self._cursor = None
        raise BadImageError(key, "the stream ended before it")

    def __getstate__(self) -> dict[str, Any]:
        return {"stream": self.stream, "column": self.column, "wanted": self.wanted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def not_decoded(rows: Any) -> Any:
    """The rows of a `Dataset` with encoded images, which `residualign.data.images` decodes."""
    for column, feature in rows.features.items():
        if type(feature).__name__ == "Image" and feature.decode:
            rows = rows.cast_column(column, replace(feature, decode=False))
    return rows


def _encoded(value: Any, key: str, name: str) -> bytes:
    """The encoded bytes of a cell: in the row itself, or in the file whose path or address the row has."""
    data = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else None
    if data is None and path:
        from datasets.utils.file_utils import xopen

        try:
            with hub_errors(name), xopen(path, "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise BadImageError(key, f"its file {path!r} is not there") from error
    if data is None:
        raise BadImageError(key, "its row holds no bytes")
    return bytes(data)
