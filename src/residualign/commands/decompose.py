"""Contributions of every unit over the images of a data set, a list of files, or a store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from residualign._files import publish, saying_what_is_kept
from residualign._progress import Progress
from residualign.commands._inputs import FileSource, Machine, expand_images, open_store
from residualign.commands._messages import left_out_sentence
from residualign.data import load_data
from residualign.data.batches import pixel_batches
from residualign.data.images import has_image_extension
from residualign.data.split import Split
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.load import load_model
from residualign.units import Unit

__all__ = ["DecomposeOutcome", "UnitStatistics", "run_decompose", "unit_statistics"]

_BLOCK = 256


@dataclass(frozen=True)
class DecomposeOutcome:
    """model and data: as they were typed. skipped: images that could not be read."""

    model: str
    data: str
    statistics: UnitStatistics
    skipped: tuple[str, ...]


@dataclass
class _Source:
    """Coordinates batch by batch, and what is known of them once all have been read."""

    model: str
    data: str
    maps: UnitMaps
    batches: Iterator[Coordinates]
    keys: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def run_decompose(
    source: str,
    images: Sequence[str],
    machine: Machine,
    *,
    out: str | os.PathLike[str] | None = None,
    stream: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Progress,
) -> DecomposeOutcome:
    """Statistics of every unit, over a store, or over a model and data (all splits) or image files.

    out: a safetensors file for `contributions` (image, unit, dim) and `output` (image, dim), with unit labels and image
    keys in its header; all of it is then in memory. Raises `BadInputError` for an `out` that exists, unless overwrite.
    """
    if out is not None:
        _check_out(Path(out), overwrite)
    found = _from_store(source) if not images else _from_images(source, images, machine, stream, skip_bad, progress)
    collected: list[tuple[Tensor, Tensor]] = []

    def kept() -> Iterator[Coordinates]:
        for batch in found.batches:
            if out is not None:
                values = torch.stack([found.maps.contribution(batch, unit) for unit in found.maps.units], dim=1)
                collected.append((values.cpu(), batch.output.cpu()))
            yield batch

    statistics = unit_statistics(kept(), found.maps)
    if found.skipped:
        progress.warn(left_out_sentence(found.skipped))
    if out is not None:
        _write(Path(out), found, collected)
    return DecomposeOutcome(found.model, found.data, statistics, tuple(found.skipped))


def _from_store(path: str) -> _Source:
    store = open_store(path)
    found = _Source(str(store.model["name"]), str(store.data["name"]), store.maps, iter(()))
    splits = [store.split(name) for name in store.splits]
    found.keys = [key for split in splits for key in split.keys]
    found.skipped = list(store.skipped)
    found.batches = (batch for split in splits for batch in split.batches(_BLOCK))
    return found


def _from_images(
    source: str, images: Sequence[str], machine: Machine, stream: bool, skip_bad: bool, progress: Progress
) -> _Source:
    splits, strays, name = _splits(images, stream)
    if strays and not skip_bad:
        raise BadInputError(f"{strays[0]!r} lies among the images and is none; remove it or add --skip-bad")
    model = load_model(source, device=machine.device, dtype=machine.dtype)
    found = _Source(source, name, unit_maps(model.tower), iter(()), skipped=list(strays))

    def batches() -> Iterator[Coordinates]:
        total, done = sum(map(len, splits)), 0
        with progress.task("images") as tick:
            for split in splits:
                for batch in pixel_batches(
                    split,
                    range(len(split)),
                    model.preprocess,
                    batch_size=machine.batch_size,
                    workers=machine.workers,
                    skip_bad=skip_bad,
                ):
                    found.skipped += batch.skipped
                    found.keys += [split.keys[position] for position in batch.positions]
                    done += len(batch.positions) + len(batch.skipped)
                    tick(done, total)
                    if batch.pixels is not None:
                        yield trace_coordinates(model.tower, model.pixels(batch.pixels))

    found.batches = batches()
    return found


def _splits(images: Sequence[str], stream: bool) -> tuple[list[Split], tuple[str, ...], str]:
    """The images to look at, strays among them, and what to call them."""
    if len(images) == 1 and not (Path(images[0]).is_file() and has_image_extension(images[0])):
        data = load_data(images[0], split=False, stream=stream)
        return [split for split in data.splits if len(split)], data.strays, images[0]
    files = expand_images(images)
    keys = tuple(str(file) for file in files)
    split = Split("images", keys, (0,) * len(keys), FileSource(), tuple(range(len(keys))))
    return [split], (), f"{len(files)} image files"


def _check_out(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder, expected a file name for the contributions")
    if path.exists() and not overwrite:
        raise BadInputError(f"{str(path)!r} exists; add --overwrite to replace it, or choose another name")


def _write(path: Path, found: _Source, collected: list[tuple[Tensor, Tensor]]) -> None:
    tensors = {
        "contributions": torch.cat([values for values, _ in collected]),
        "output": torch.cat([output for _, output in collected]),
    }
    header = json.dumps({"units": list(found.maps.units.labels), "keys": found.keys, "model": found.model})
    with saying_what_is_kept(path, "nothing was written there"):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, save(tensors, {"residualign": header}))


@dataclass(frozen=True)
class UnitStatistics:
    """Per unit, in unit order.

    norm: (unit,), root mean square length of the contribution. variance: (unit,), its total variance, divided by the
    number of images. variance_share: (unit,), the covariance of contribution and embedding, summed over dimensions,
    over the embedding's total variance: shares add up to one, and a unit that works against the others has a negative
    one.
    residual_error: largest |sum of units - model output| over largest |model output|.
    """

    units: tuple[Unit, ...]
    norm: Float[Tensor, " unit"]
    variance: Float[Tensor, " unit"]
    variance_share: Float[Tensor, " unit"]
    residual_error: float
    n_images: int


def unit_statistics(batches: Iterable[Coordinates], maps: UnitMaps) -> UnitStatistics:
    """Statistics of every unit over batches of coordinates, summed in float64.

    Costs O(image x coordinate x dim) and memory O(batch x dim + unit x dim). `BadInputError` without images.
    """
    units = tuple(maps.units)
    total = _Sums(len(units), maps.dim)
    for batch in batches:
        total.add(batch, maps)
    if total.n == 0:
        raise BadInputError("there are no images to decompose")
    mean, mean_output = total.sum / total.n, total.sum_output / total.n
    variance = total.square / total.n - mean.square().sum(dim=1)
    covariance = total.product / total.n - mean @ mean_output
    variance_output = total.square_output / total.n - mean_output.square().sum()
    # one image, or images all alike, have no variance to share out
    share = (
        covariance / variance_output if variance_output > 1e-12 * total.square_output / total.n else covariance * 0.0
    )
    return UnitStatistics(
        units=units,
        norm=(total.square / total.n).sqrt(),
        variance=variance.clamp(min=0.0),
        variance_share=share,
        residual_error=total.error / total.largest,
        n_images=total.n,
    )


class _Sums:
    """Running sums over images, float64."""

    def __init__(self, n_units: int, dim: int) -> None:
        self.n = 0
        self.sum = torch.zeros(n_units, dim, dtype=torch.float64)
        self.square = torch.zeros(n_units, dtype=torch.float64)
        self.product = torch.zeros(n_units, dtype=torch.float64)
        self.sum_output = torch.zeros(dim, dtype=torch.float64)
        self.square_output = torch.zeros((), dtype=torch.float64)
        self.error = 0.0
        self.largest = 0.0

    def add(self, batch: Coordinates, maps: UnitMaps) -> None:
        output = batch.output.double().cpu()
        self.n += len(batch)
        self.sum_output += output.sum(dim=0)
        self.square_output += output.square().sum()
        for i, unit in enumerate(maps.units):
            contribution = maps.contribution(batch, unit).double().cpu()
            self.sum[i] += contribution.sum(dim=0)
            self.square[i] += contribution.square().sum()
            self.product[i] += (contribution * output).sum()
        # in the working dtype, as the model's own error is measured
        self.error = max(self.error, float((maps.sum(batch) - batch.output).abs().max()))
        self.largest = max(self.largest, float(batch.output.abs().max()))
