"""Image files that are named one by one, read in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from residualign._messages import skipped_sentence
from residualign._progress import Progress
from residualign.data.folders import expand_images, opened_images
from residualign.data.sample import sample_rows
from residualign.errors import BadInputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["image_files", "read_in_batches"]


def image_files(paths: Sequence[str | os.PathLike[str]], quick: bool) -> tuple[Path, ...]:
    """The files of `expand_images`; with quick as many of them as of one class, equally spaced."""
    files = expand_images(paths)
    return tuple(files[row] for row in sample_rows([0] * len(files))) if quick else files


def read_in_batches(
    files: Sequence[Path], batch_size: int, skip_bad: bool, skipped: list[str], progress: Progress
) -> Iterator[tuple[list[str], list[Image.Image]]]:
    """Paths and images of those that can be read, batch by batch; with skip_bad the others are added to `skipped`.

    `BadInputError` at the end if no image can be read.
    """
    n_read = 0
    with progress.task("images") as tick:
        for start in range(0, len(files), batch_size):
            part = files[start : start + batch_size]
            if batch := list(opened_images(part, skip_bad, skipped)):
                n_read += len(batch)
                yield [str(path) for path, _ in batch], [image for _, image in batch]
            tick(start + len(part), len(files))
    if not n_read:
        if len(skipped) == 1:
            raise BadInputError(f"the only image could not be read: {skipped[0]!r}")
        raise BadInputError(f"none of the {len(files)} images could be read; the first is {skipped[0]!r}")
    if skipped:
        progress.warn(skipped_sentence(skipped))
