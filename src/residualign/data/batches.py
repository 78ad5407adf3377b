"""Batches of pixels, decoded and resized by workers ahead of the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from residualign.data.images import BadImageError, decode
from residualign.data.prefetch import WorkAhead
from residualign.data.split import EncodedSource, ImageSource, Split, image_mark
from residualign.errors import BadInputError

__all__ = ["PixelBatch", "PixelLoader", "Run", "pixel_batches", "runs"]

# shared memory that must be free before one batch is written there, in batches: other processes write there too
_ROOM = 16

_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class PixelBatch:
    """Some images of a split. positions: those that could be read; skipped: keys of those that could not.

    pixels has one row per position; None if every image of the batch was skipped. marks: `image_mark` of every image of
    the run, those skipped among them; empty where there are no encoded bytes.
    """

    positions: tuple[int, ...]
    pixels: Float[Tensor, "image 3 height width"] | None
    skipped: tuple[str, ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """The positions of a split that make up one batch."""

    split: Split
    positions: tuple[int, ...]


def runs(split: Split, positions: Sequence[int], batch_size: int) -> list[Run]:
    """Consecutive runs of `batch_size` positions; the last may be shorter."""
    if batch_size < 1:
        raise BadInputError(f"batch size must be 1 or larger, got {batch_size}")
    starts = range(0, len(positions), batch_size)
    return [Run(split, tuple(positions[start : start + batch_size])) for start in starts]


class PixelLoader:
    """Reads batches of pixels from some splits, ahead of the model; a context manager that owns the workers.

    transform
        From an RGB image to pixels, (3, height, width). It must give the same pixels in every process.
    workers
        Number of processes that decode and resize; 0 works in the caller's thread. Threads are used instead for little
        work, or if the transform cannot be pickled: see `WorkAhead`, and `processes` there. A source that is not
        `parallel` is read by one thread.
    skip_bad
        Continue without images that cannot be read.

    Memory: workers + 2 batches of pixels.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        transform: Callable[[Image.Image], Tensor],
        *,
        workers: int = 2,
        skip_bad: bool = False,
        processes: bool | None = None,
    ) -> None:
        sources = {id(split.source): split.source for split in splits if split.source is not None}
        self._index = {identity: i for i, identity in enumerate(sources)}
        if not all(getattr(source, "parallel", True) for source in sources.values()):
            workers, processes = min(workers, 1), False
        read = _Read(tuple(sources.values()), transform, skip_bad, workers)
        self._ahead: WorkAhead[_Job, _Pixels] = WorkAhead(read, workers=workers, processes=processes)

    def __enter__(self) -> PixelLoader:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._ahead.__exit__(*raised)

    def read(self, wanted: Sequence[Run]) -> Generator[PixelBatch, None, None]:
        """One batch per run, in order.

        A batch from which images were skipped is smaller and is not filled from the next, so batches do not depend on
        what was skipped elsewhere. Raises `BadImageError` at the first image that cannot be read, unless skip_bad, and
        `RunError` if a worker process was killed.
        """
        # closed at once when the caller stops early, not at garbage collection
        with closing(self._ahead.map([self._job(run) for run in wanted])) as answers:
            for run, answer in zip(wanted, answers, strict=True):
                skipped = set(answer.skipped)
                kept = tuple(position for i, position in enumerate(run.positions) if i not in skipped)
                pixels = answer.pixels if answer.pixels is None else torch.as_tensor(answer.pixels)
                names = tuple(run.split.keys[run.positions[i]] for i in answer.skipped)
                yield PixelBatch(kept, pixels, names, answer.marks)

    def _job(self, run: Run) -> _Job:
        rows, keys = run.split.rows, run.split.keys
        return _Job(
            self._index[id(run.split.source)],
            tuple(rows[position] for position in run.positions),
            tuple(keys[position] for position in run.positions),
        )


def pixel_batches(
    split: Split,
    positions: Sequence[int],
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    workers: int = 2,
    skip_bad: bool = False,
    processes: bool | None = None,
) -> Generator[PixelBatch, None, None]:
    """Batches of one split with workers of their own; see `PixelLoader`."""
    wanted = runs(split, positions, batch_size)
    with (
        PixelLoader([split], transform, workers=workers, skip_bad=skip_bad, processes=processes) as loader,
        closing(loader.read(wanted)) as batches,
    ):
        yield from batches


@dataclass(frozen=True)
class _Job:
    """Rows and keys of one source, for a worker to read."""

    source: int
    rows: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Pixels:
    """The result of a job. skipped: positions in the job of images that could not be read. marks: of all images."""

    pixels: Tensor | NDArray[Any] | None
    skipped: tuple[int, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """Reads the images of one job. It is sent to a worker once, with the sources and the transform."""

    sources: tuple[ImageSource, ...]
    transform: Callable[[Image.Image], Tensor]
    skip_bad: bool
    workers: int

    def __call__(self, job: _Job) -> _Pixels:
        source = self.sources[job.source]
        pixels, skipped, marks = [], [], [""] * len(job.rows)
        for i, (row, key) in enumerate(zip(job.rows, job.keys, strict=True)):
            try:
                if isinstance(source, EncodedSource):
                    data = source.encoded(row, key)
                    marks[i] = image_mark(data)
                    image = decode(data, key)
                else:
                    image = source.image(row, key)
                pixels.append(self.transform(image))
            except BadImageError as error:
                if not self.skip_bad:
                    raise error.skippable() from error
                skipped.append(i)
        if not pixels:
            return _Pixels(None, tuple(skipped), tuple(marks))
        batch = torch.stack(pixels)
        # between processes a tensor goes through shared memory, an array through a pipe
        return _Pixels(batch if has_room(batch.nbytes * self.workers) else batch.numpy(), tuple(skipped), tuple(marks))


def has_room(n_bytes: int) -> bool:
    """Whether shared memory has ample room: containers often keep it small, and a worker that fills it is killed."""
    try:
        return shutil.disk_usage(_SHARED_MEMORY).free >= _ROOM * n_bytes
    except OSError:
        # systems without this folder have no such limit
        return True
