"""Images of a hub data set, from the local cache by row or one after another from a stream.

The `datasets` library and the hub's client raise errors of many kinds; `hub_errors` turns them into one sentence.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from residualign.data.images import BadImageError
from residualign.data.split import EncodedSource
from residualign.errors import BadInputError, system_reason

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["DownloadedRows", "HubStream", "StreamedRows", "http_error", "hub_errors", "not_decoded"]

# skipped images that are kept: threads ask slightly out of order
_WAITING = 64

_LONGEST = 300  # characters of another library's message


@dataclass(frozen=True)
class DownloadedRows(EncodedSource):
    """Images by row, of a split in the local cache. rows: a `datasets.Dataset`, images not decoded."""

    name: str
    rows: Any = field(repr=False)
    column: str

    def encoded(self, row: int, key: str) -> bytes:
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
class StreamedRows(EncodedSource):
    """Images by row in a stream that only goes forward.

    Rows in ascending order are read in one pass. Going back restarts the stream and skips what comes before: slow, but
    correct. The last 64 skipped rows are kept, encoded, for threads that read out of order. wanted: the rows of the
    split, None for all; others are never kept. Thread-safe.
    """

    # each process would start its own stream
    parallel: ClassVar[bool] = False

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

    def encoded(self, row: int, key: str) -> bytes:
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


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn errors of loading the data set `name` into `BadInputError`; disk errors pass through as OSError.

    Log messages of the libraries are not shown: they would repeat the error.
    """
    # imported here: importing the package must stay quick
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from datasets.utils import logging as datasets_logging

    told = datasets_logging.get_verbosity()
    datasets_logging.set_verbosity(datasets_logging.CRITICAL)
    try:
        yield
    except BadInputError:
        raise
    # RuntimeError: a repository with a loading script; its subclass NotImplementedError: what cannot be streamed
    except (DatasetsError, http_error(), OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        chain = _chain(error)
        for one in chain:
            # a failing disk is not bad input
            if isinstance(one, OSError) and system_reason(one) is not None:
                raise one from None
        if type(error) is RuntimeError and "script" not in str(error):
            raise
        raise BadInputError(_sentence(name, chain)) from error
    finally:
        datasets_logging.set_verbosity(told)


def http_error() -> type[Exception]:
    """The base error of the hub's HTTP library; which library that is depends on the version."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the library it uses

    return HTTPError


def _sentence(name: str, chain: list[BaseException]) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def raised(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    # the library reports a gated set only in its message, and hides the cause
    if raised(GatedRepoError) or any("gated" in str(one) for one in chain if isinstance(one, DatasetNotFoundError)):
        return f"the data set {name!r} is gated: ask for access on its page of the hub, then log in (`hf auth login`)"
    if raised(RevisionNotFoundError):
        return f"the data set {name!r} has no such revision on the hub"
    if raised(OfflineModeIsEnabled):
        return f"the data set {name!r} is not in the local cache, and the hub is turned off (HF_HUB_OFFLINE)"
    if raised(RepositoryNotFoundError, DatasetNotFoundError):
        return (
            f"there is no data set {name!r} on the hub, or it is private: check the name, or log in (`hf auth login`)"
        )
    if raised(ConnectionError) or (raised(http_error()) and not raised(HfHubHTTPError)):
        return f"the data set {name!r} is not in the local cache, and the hub cannot be reached; check the network"
    return f"the data set {name!r} cannot be loaded: {_first_sentences(chain)}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, the outermost first."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return found


def _first_sentences(chain: list[BaseException]) -> str:
    """The message of the innermost cause on one line; the outer ones often say nothing."""
    texts = [" ".join(str(one).split("Example of usage")[0].split()) for one in reversed(chain)]
    text = next((text for text in texts if text), type(chain[0]).__name__).rstrip(".:")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
