"""Filling a store shard by shard, so that it can be stopped anywhere and continued."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from types import TracebackType

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from residualign._files import LOCK_NAME, DirectoryLock, refuse_link, saying_what_is_kept
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.store.folder import LocalFolder, open_folder, sha256
from residualign.store.plan import (
    MANIFEST_NAME,
    UNFINISHED_NAME,
    FileEntry,
    Manifest,
    ShardEntry,
    ShardRange,
    StorePlan,
    check_files,
    read_plan,
    write_plan,
)
from residualign.store.shards import encode_shard, examine_shard, read_marks
from residualign.store.store import CLASSES_NAME, MAPS_NAME, Store

__all__ = ["StoreWriter", "remove_store"]


class StoreWriter:
    """Writes one store, or continues one that was interrupted.

    >>> with StoreWriter(path, plan, maps, text_vectors) as writer:                         # doctest: +SKIP
    ...     for shard in writer.pending_shards():
    ...         batches = [trace(batch) for batch in shard.batches(plan.batch_size)]
    ...         writer.write_shard(shard, Coordinates.cat(batches))
    ...     store = writer.finish()

    A shard is published whole or not at all, so that a run killed at any moment continues with the shards that are
    not there yet and ends with the same bytes as one that was never disturbed. The folder is locked meanwhile (a
    local one; a remote one cannot be).

    Raises `BadInputError` on entering where the folder holds something else, another run writes to it, a shard is
    damaged, or its store was begun with a different plan (saying which fields differ); `RunError` where it cannot be
    written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: StorePlan,
        maps: UnitMaps,
        text_vectors: Float[Tensor, "class dim"] | None = None,
    ) -> None:
        self._path = path
        self._folder = open_folder(path)
        self.plan = plan
        self._maps = maps
        self._text_vectors = text_vectors
        self._files: tuple[FileEntry, ...] = ()
        self._done: dict[str, ShardEntry] = {}
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> StoreWriter:
        with contextlib.ExitStack() as entered:
            if isinstance(self._folder, LocalFolder):
                _refuse_foreign(self._folder)
                entered.enter_context(DirectoryLock(self._folder.path))
            with self._writing():
                self._begin()
            self._entered = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.close()

    @property
    def name(self) -> str:
        """Where the store is, in words."""
        return self._folder.name

    @property
    def n_done(self) -> int:
        """Samples in the shards that are there, skipped ones counted."""
        return sum(entry.stop - entry.start for entry in self._done.values())

    def pending_shards(self) -> tuple[ShardRange, ...]:
        """The shards still to be written, in order."""
        return tuple(shard for shard in self.plan.shards() if shard.name not in self._done)

    def marks(self) -> Iterator[tuple[ShardRange, int | None, tuple[str, ...]]]:
        """The shards that are there, with a time before which their images were last read, and their images' marks.

        The time is that at which the store was begun, in nanoseconds; None for a folder that does not tell it. There
        are no marks in stores of older versions.
        """
        for shard in self.plan.shards():
            if shard.name in self._done:
                times = [self._folder.written(name) for name in (MAPS_NAME, shard.name)]
                known = [time for time in times if time is not None]
                yield shard, min(known) if len(known) == len(times) else None, read_marks(self._folder, shard)

    def write_shard(
        self, shard: ShardRange, coordinates: Coordinates, skipped: Sequence[str] = (), marks: Sequence[str] = ()
    ) -> None:
        """Publish one shard: the coordinates of its samples in order, without the keys in `skipped`.

        marks: what each image, those skipped among them, is recognized by when the store is continued.

        Raises `BadInputError` for coordinates that do not fit (see `encode_shard`), `RunError` where the disk fails.
        """
        content = encode_shard(self.plan, shard, coordinates, skipped, marks)
        with self._writing():
            self._folder.write(shard.name, content)
        keys = self.plan.splits[shard.split].keys[shard.start : shard.stop]
        self._done[shard.name] = ShardEntry(
            shard.name,
            **vars(shard),
            rows=len(coordinates),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            skipped=tuple(key for key in keys if key in set(skipped)),
        )

    def finish(self) -> Store:
        """Publish the manifest, which makes the store complete, and open it."""
        pending = self.pending_shards()
        if pending:
            raise BadInputError(f"{self._folder.name} lacks {len(pending)} shards, {pending[0].name} first")
        shards = tuple(self._done[shard.name] for shard in self.plan.shards())
        with self._writing():
            Manifest(self.plan, self._files, shards).write(self._folder)
            self._folder.remove(UNFINISHED_NAME)
        return Store.open(self._path)

    def _begin(self) -> None:
        names = self._folder.names()
        if isinstance(self._folder, LocalFolder):
            self._folder.remove_leftovers()
        begun: StorePlan | None = None
        if MANIFEST_NAME in names:
            manifest = Manifest.read(self._folder)
            begun = manifest.plan
            check_files(self._folder, (*manifest.files, *manifest.shards))
        elif UNFINISHED_NAME in names:
            begun = read_plan(self._folder)
        if begun is None:
            write_plan(self._folder, self.plan)
        else:
            difference = begun.difference(self.plan)
            if difference is not None:
                raise BadInputError(f"{self._folder.name} holds a store that differs in {difference}")
            # the names under which it was begun stay: a continued run gives the same bytes
            self.plan = begun
        self._done = {
            shard.name: examine_shard(self._folder, self.plan, shard)
            for shard in self.plan.shards()
            if shard.name in names
        }
        self._files = tuple(self._file(name, content) for name, content in self._other_files())

    def _other_files(self) -> Iterator[tuple[str, bytes]]:
        maps = {name: tensor.detach().cpu().contiguous() for name, tensor in self._maps.tensors().items()}
        yield MAPS_NAME, save(maps)
        if self._text_vectors is not None:
            yield CLASSES_NAME, save({"text_vectors": self._text_vectors.detach().cpu().contiguous()})

    def _file(self, name: str, content: bytes) -> FileEntry:
        entry = FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
        if self._folder.size(name) != entry.bytes or sha256(self._folder, name) != entry.sha256:
            self._folder.write(name, content)
        return entry

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        kept = f"{self.n_done} of {len(self.plan)} images are kept there and the same command continues from them"
        return saying_what_is_kept(self._folder.name, kept)


def remove_store(path: str | os.PathLike[str]) -> None:
    """Remove a store, finished or not, and nothing else; its local folder too where that is then empty.

    The manifest goes first: what is left of an interrupted removal is not a store. Raises `BadInputError` where another
    run writes to it and where the folder is a link, `RunError` where a file cannot be removed.
    """
    folder = open_folder(path)
    if isinstance(folder, LocalFolder):
        refuse_link(folder.path, "give the path of the folder itself")
    names = folder.names()
    if MANIFEST_NAME not in names and UNFINISHED_NAME not in names:
        raise BadInputError(f"{folder.name} does not hold a store")
    plan = Manifest.read(folder).plan if MANIFEST_NAME in names else read_plan(folder)
    ours = [MANIFEST_NAME, *(shard.name for shard in plan.shards()), MAPS_NAME, CLASSES_NAME, UNFINISHED_NAME]
    lock = DirectoryLock(folder.path) if isinstance(folder, LocalFolder) else contextlib.nullcontext()
    with saying_what_is_kept(folder.name, "what is left there is not a complete store"):
        with lock:
            for name in ours:
                folder.remove(name)
        if isinstance(folder, LocalFolder) and not folder.names():
            folder.path.rmdir()


def _refuse_foreign(folder: LocalFolder) -> None:
    names = folder.names()
    if MANIFEST_NAME in names or UNFINISHED_NAME in names:
        return
    foreign = sorted(name for name in names if name != LOCK_NAME and not name.startswith(UNFINISHED_NAME))
    if foreign:
        raise BadInputError(f"{folder.name} is not a store: it holds {foreign[0]}; choose a new or an empty folder")
