"""Images of a hub data set: from the local cache by row, or one after another from a stream."""

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

# images kept although a later one was asked for first: threads ask slightly out of order
_WAITING = 64


@dataclass(frozen=True)
class DownloadedRows:
    """Images by row, in a split in the local cache. rows: a `datasets.Dataset`, images not decoded."""

    name: str
    rows: Any = field(repr=False)
    column: str

    def image(self, row: int, key: str) -> Image.Image:
        return decode(self.encoded(row, key), key)

    def encoded(self, row: int, key: str) -> bytes:
        """The image as stored."""
        return _encoded(self.rows[row][self.column], key, self.name)


@dataclass(frozen=True)
class HubStream:
    """One split of a hub data set, which can be streamed from its start any number of times.

    name: the data set, for errors. revision: a commit where the hub reports one, so that every pass sees the same rows.
    picks_columns: whether single columns can be read from its files.
    """

    name: str
    repo: str
    config: str | None
    revision: str | None
    split: str
    picks_columns: bool

    def open(self, columns: Sequence[str], block: int | None = None) -> IterableDataset:
        """The rows from the first, with only these columns; images are not decoded.

        block: bytes requested at a time, None for the library's default.
        """
        from datasets import load_dataset

        picked: dict[str, Any] = {"columns": list(columns)} if self.picks_columns else {}
        if block is not None:
            picked["storage_options"] = {"hf": {"block_size": block}}
        rows = load_dataset(self.repo, self.config, revision=self.revision, split=self.split, streaming=True, **picked)
        # must come first: newer versions decode in streaming threads, which this removes
        return rows.decode(False).select_columns(list(columns))


@dataclass(eq=False)
class StreamedRows:
    """Images by row in a stream that only goes forward.

    Rows in ascending order are read in one pass. Going back restarts the stream and skips what comes before: slow, but
    correct. The last 64 skipped rows are kept, encoded, for threads that ask out of order. wanted: the rows of the
    split, None for all; others are never kept. Thread-safe.
    """

    stream: HubStream
    column: str
    wanted: frozenset[int] | None = field(default=None, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _cursor: Iterator[tuple[int, Any]] | None = field(default=None, repr=False)
    _next: int = field(default=0, repr=False)
    _waiting: dict[int, Any] = field(default_factory=dict, repr=False)

    def of_rows(self, rows: Sequence[int]) -> StreamedRows:
        """The same stream with its own cursor, for these rows."""
        return StreamedRows(self.stream, self.column, frozenset(rows))

    @property
    def parallel(self) -> bool:
        """False: each process would start its own stream."""
        return False

    def image(self, row: int, key: str) -> Image.Image:
        return decode(self.encoded(row, key), key)

    def encoded(self, row: int, key: str) -> bytes:
        """The image as stored."""
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
        raise BadImageError(key, "the stream ended before this image")

    def __getstate__(self) -> dict[str, Any]:
        return {"stream": self.stream, "column": self.column, "wanted": self.wanted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def not_decoded(rows: Any) -> Any:
    """The rows of a `Dataset` with encoded images, to be decoded by `residualign.data.images`."""
    for column, feature in rows.features.items():
        if type(feature).__name__ == "Image" and feature.decode:
            rows = rows.cast_column(column, replace(feature, decode=False))
    return rows


def _encoded(value: Any, key: str, name: str) -> bytes:
    """The encoded bytes of a cell: in the row, or in the file whose path or URL the row holds."""
    data = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else None
    if data is None and path:
        from datasets.utils.file_utils import xopen

        try:
            with hub_errors(name), xopen(path, "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise BadImageError(key, f"its file {path!r} does not exist") from error
    if data is None:
        raise BadImageError(key, "its row holds no bytes")
    return bytes(data)
