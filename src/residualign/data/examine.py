"""Format, size and a hash of the pixels of each image, or why it cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from residualign.data.images import BadImageError, decode, stored_as
from residualign.data.prefetch import WorkAhead
from residualign.data.split import ImageSource, Split

__all__ = ["ImageFacts", "examine"]

# images per job
_CHUNK = 32


@dataclass(frozen=True)
class ImageFacts:
    """One image. width and height: in pixels, after EXIF rotation.

    stored_as: Pillow's format and mode; None if the source holds pixels instead of files. pixel_hash: equal for equal
    RGB pixels of equal shape. problem: why it cannot be read; then nothing else is known.
    """

    split: str
    key: str
    label: int
    stored_as: tuple[str, str] | None = None
    width: int = 0
    height: int = 0
    pixel_hash: bytes = b""
    problem: str | None = None


def examine(
    wanted: Sequence[tuple[Split, Sequence[int]]], *, workers: int = 2, processes: bool | None = None
) -> Generator[ImageFacts, None, None]:
    """Facts about the images at these positions of these splits, in order; each is decoded once and not kept."""
    jobs, sources = [], []
    for split, positions in wanted:
        if positions:
            assert split.source is not None
            if split.source not in sources:
                sources.append(split.source)
            for start in range(0, len(positions), _CHUNK):
                chunk = positions[start : start + _CHUNK]
                jobs.append(
                    _Job(
                        split.name,
                        sources.index(split.source),
                        tuple((split.rows[i], split.keys[i], split.labels[i]) for i in chunk),
                    )
                )
    if not all(getattr(source, "parallel", True) for source in sources):
        workers, processes = min(workers, 1), False
    ahead: WorkAhead[_Job, list[ImageFacts]] = WorkAhead(_Look(tuple(sources)), workers=workers, processes=processes)
    with ahead, closing(ahead.map(jobs)) as answers:
        for facts in answers:
            yield from facts


@dataclass(frozen=True)
class _Job:
    split: str
    source: int
    images: tuple[tuple[int, str, int], ...]  # row, key, label


@dataclass(frozen=True)
class _Look:
    sources: tuple[ImageSource, ...]

    def __call__(self, job: _Job) -> list[ImageFacts]:
        return [_facts(self.sources[job.source], job.split, *image) for image in job.images]


def _facts(source: ImageSource, split: str, row: int, key: str, label: int) -> ImageFacts:
    encoded = getattr(source, "encoded", None)
    kind = None
    try:
        if encoded is None:
            image = source.image(row, key)
        else:
            data = encoded(row, key)
            image, kind = decode(data, key), stored_as(data)
    except BadImageError as error:
        return ImageFacts(split, key, label, problem=error.reason)
    shape = f"{image.width}x{image.height} ".encode()
    pixels = hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest()
    return ImageFacts(split, key, label, kind, image.width, image.height, pixels)
