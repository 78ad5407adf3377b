"""Images of a split as batches of pixels, decoded by threads ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from residualign.data.images import BadImageError
from residualign.data.split import Split
from residualign.errors import BadInputError

__all__ = ["PixelBatch", "pixel_batches"]

# batches decoded ahead of the one in use: enough to ride out a slow image, and a bound on memory
_AHEAD = 2


@dataclass(frozen=True)
class PixelBatch:
    """Some images of a split. positions: those that could be read; skipped: keys of those that could not.

    pixels has one row for each of `positions`; it is None where every image of the batch was skipped.
    """

    positions: tuple[int, ...]
    pixels: Float[Tensor, "image 3 height width"] | None
    skipped: tuple[str, ...]


def pixel_batches(
    split: Split,
    positions: Sequence[int],
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    workers: int = 2,
    skip_bad: bool = False,
) -> Iterator[PixelBatch]:
    """Consecutive runs of `batch_size` positions as pixels, in order whatever thread finishes first.

    A batch from which bad images were skipped is smaller and takes none from the next, so batches do not depend on
    what was skipped elsewhere. workers: decoding threads (Pillow decodes and resizes outside the interpreter's lock);
    0 decodes in the caller's thread. Memory: three batches of pixels. Raises `BadImageError` at the first image that
    cannot be read, unless skip_bad.
    """
    if batch_size < 1:
        raise BadInputError(f"batch size is at least 1; got {batch_size}")
    if workers < 0:
        raise BadInputError(f"workers is at least 0; got {workers}")
    runs = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]

    def read(position: int) -> Tensor | BadImageError:
        try:
            return transform(split.image(position))
        except BadImageError as error:
            return error

    if workers == 0:
        for run in runs:
            yield _batch(split, run, [read(position) for position in run], skip_bad)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        pending: deque[tuple[Sequence[int], list[Future[Tensor | BadImageError]]]] = deque()
        try:
            for run in runs:
                pending.append((run, [pool.submit(read, position) for position in run]))
                if len(pending) > _AHEAD:
                    ready, futures = pending.popleft()
                    yield _batch(split, ready, [future.result() for future in futures], skip_bad)
            while pending:
                ready, futures = pending.popleft()
                yield _batch(split, ready, [future.result() for future in futures], skip_bad)
        finally:
            # when the caller stops early or an image is bad, what is queued is not worth waiting for
            pool.shutdown(wait=False, cancel_futures=True)


def _batch(split: Split, run: Sequence[int], results: list[Tensor | BadImageError], skip_bad: bool) -> PixelBatch:
    kept, pixels, skipped = [], [], []
    for position, result in zip(run, results, strict=True):
        if isinstance(result, Tensor):
            kept.append(position)
            pixels.append(result)
        elif skip_bad:
            skipped.append(split.keys[position])
        else:
            raise result
    return PixelBatch(tuple(kept), torch.stack(pixels) if pixels else None, tuple(skipped))
