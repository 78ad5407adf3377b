"""Coordinates of images batch by batch, through the model or from a store, for what needs no store of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from residualign._progress import Progress
from residualign.data import ImageData, load_data
from residualign.data.batches import pixel_batches
from residualign.data.split import Split
from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.inputs.options import LoadingOptions
from residualign.inputs.sample import sample_of_data
from residualign.store import StoreSplit

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = ["ReadImages", "coordinates_of_images", "coordinates_of_store", "images_to_read"]


class ReadImages(NamedTuple):
    """A batch of images that could be read: their coordinates, keys and labels."""

    coordinates: Coordinates
    keys: tuple[str, ...]
    labels: list[int]


def images_to_read(name: str, loading: LoadingOptions, *, classes: Path | None = None, split: bool = True) -> ImageData:
    """The data set, or a sample of it; `BadInputError` if files among its images are not images, unless skip_bad.

    classes, split: those of `load_data`.
    """
    data = load_data(name, classes=classes, split=split, stream=loading.stream, skip_bad=loading.skip_bad)
    if data.strays and not loading.skip_bad:
        raise BadInputError(f"{data.strays[0]!r} is not an image; remove it or add --skip-bad")
    return sample_of_data(data) if loading.quick else data


def coordinates_of_images(
    model: VisionModel, splits: Sequence[Split], loading: LoadingOptions, progress: Progress, skipped: list[str]
) -> Iterator[ReadImages]:
    """Run images through the model; the keys of those that cannot be read are added to `skipped`."""
    done, total = 0, sum(map(len, splits))
    with progress.task("images") as tick:
        for split in splits:
            for batch in pixel_batches(
                split,
                range(len(split)),
                model.preprocess,
                batch_size=loading.batch_size,
                workers=loading.workers,
                skip_bad=loading.skip_bad,
            ):
                skipped += batch.skipped
                done += len(batch.positions) + len(batch.skipped)
                tick(done, total)
                if batch.pixels is not None:
                    kept = split.take(batch.positions)
                    coordinates = trace_coordinates(model.tower, model.pixels(batch.pixels), names=kept.keys)
                    yield ReadImages(coordinates, kept.keys, list(kept.labels))


def coordinates_of_store(splits: Iterable[StoreSplit], size: int) -> Iterator[ReadImages]:
    """Read the images of a store, `size` at a time."""
    for split in splits:
        keys, labels, start = split.keys, split.labels.tolist(), 0
        for coordinates in split.batches(size):
            stop = start + len(coordinates)
            yield ReadImages(coordinates, keys[start:stop], labels[start:stop])
            start = stop
