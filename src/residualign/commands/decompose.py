"""`residualign decompose`: what every head and MLP adds to the embeddings of some images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result, Row
from residualign.commands._flags import OUTPUT, Loading, ModelOrStore, Overwrite, argument, flag
from residualign.commands._request import NEUTRAL

if TYPE_CHECKING:
    from torch import Tensor

    from residualign.data.split import Split
    from residualign.decomposition.coordinates import Coordinates, UnitMaps
    from residualign.decomposition.statistics import UnitStatistics
    from residualign.inputs.coordinates import ReadImages

__all__ = ["DecomposeOutcome", "DecomposeRequest", "run"]

_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class DecomposeRequest(Loading):
    """Decompose embeddings exactly: MODEL with DATA or images, or a STORE.

    Prints the mean norm of each unit's contribution and its share of the embedding's variance. --out writes the
    contributions themselves.
    """

    source: ModelOrStore
    images: Annotated[
        tuple[str, ...],
        argument("DATA|IMAGE...", "A data set, or image files and folders of them. Leave out with a store."),
    ] = ()
    out: Annotated[
        Path | None,
        flag("--out", OUTPUT, "Output file for the contributions (safetensors).", metavar="FILE"),
        NEUTRAL,
    ] = None
    overwrite: Overwrite = False


@dataclass(frozen=True, repr=False, eq=False)
class DecomposeOutcome(Result):
    """model and data: as given. skipped: images that could not be read."""

    request: DecomposeRequest
    model: str
    data: str
    statistics: UnitStatistics
    skipped: tuple[str, ...]

    @property
    def units(self) -> list[Row]:
        """One row per unit."""
        return self.statistics.rows

    def to_json(self) -> dict[str, Any]:
        """What `decompose --json` prints."""
        return {
            "model": self.model,
            "data": self.data,
            "n_images": self.statistics.n_images,
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "residual_error": self.statistics.residual_error,
            "units": self.units,
            "out": None if self.request.out is None else str(self.request.out),
        }


@dataclass
class _Source:
    """Images batch by batch; skipped is complete once all were read."""

    model: str
    data: str
    maps: UnitMaps
    batches: Iterator[ReadImages]
    skipped: list[str]


def run(request: DecomposeRequest, progress: Progress = SILENT) -> DecomposeOutcome:
    """Statistics of every unit, over a store, or over a model and data (all splits) or image files.

    out: a safetensors file for `contributions` (image, unit, dim) and `output` (image, dim), with unit labels and image
    keys in its header; all of it is then in memory. Raises `BadInputError` for an `out` that exists, unless overwrite.
    """
    import torch

    from residualign._messages import skipped_sentence
    from residualign.decomposition.statistics import unit_statistics
    from residualign.runs.files import check_output_file

    out = request.out
    if out is not None:
        check_output_file(out, request.overwrite)
    found = _from_images(request, progress) if request.images else _from_store(request)
    keys: list[str] = []
    collected: list[tuple[Tensor, Tensor]] = []

    def kept() -> Iterator[Coordinates]:
        for batch in found.batches:
            coordinates = batch.coordinates
            if out is not None:
                values = torch.stack([found.maps.contribution(coordinates, unit) for unit in found.maps.units], dim=1)
                collected.append((values.cpu(), coordinates.output.cpu()))
                keys.extend(batch.keys)
            yield coordinates

    statistics = unit_statistics(kept(), found.maps)
    if found.skipped:
        progress.warn(skipped_sentence(found.skipped))
    if out is not None:
        _write(out, found, keys, collected)
    return DecomposeOutcome(request, found.model, found.data, statistics, tuple(found.skipped))


def _from_store(request: DecomposeRequest) -> _Source:
    from residualign.errors import BadInputError
    from residualign.inputs.coordinates import coordinates_of_store
    from residualign.inputs.sample import sample_of_store
    from residualign.inputs.subject import open_store

    if request.dtype != "float32":
        raise BadInputError(
            f"--dtype {request.dtype} is a choice of the pass; a store has the numbers it was made with"
        )
    store = open_store(request.source)
    if request.quick:
        store = sample_of_store(store)
    batches = coordinates_of_store(map(store.split, store.splits), _BLOCK)
    return _Source(str(store.model["name"]), str(store.data["name"]), store.maps, batches, list(store.skipped))


def _from_images(request: DecomposeRequest, progress: Progress) -> _Source:
    from residualign.decomposition.maps import unit_maps
    from residualign.inputs.coordinates import coordinates_of_images
    from residualign.load import load_model

    splits, strays, name = _splits(request)
    model, skipped = load_model(request.source, device=request.device, dtype=request.dtype), list(strays)
    batches = coordinates_of_images(model, splits, request, progress, skipped)
    return _Source(request.source, name, unit_maps(model.tower), batches, skipped)


def _splits(request: DecomposeRequest) -> tuple[list[Split], tuple[str, ...], str]:
    """The images to look at, strays among them, and what to call them."""
    from residualign.data.folders import ImageFiles
    from residualign.data.images import has_image_extension
    from residualign.data.split import Split
    from residualign.inputs.coordinates import images_to_read
    from residualign.inputs.images import image_files

    images = request.images
    if len(images) == 1 and not (Path(images[0]).is_file() and has_image_extension(images[0])):
        data = images_to_read(images[0], request, split=False)
        return [split for split in data.splits if len(split)], data.strays, images[0]
    keys = tuple(map(str, image_files(images, request.quick)))
    split = Split("images", keys, (0,) * len(keys), ImageFiles(), tuple(range(len(keys))))
    return [split], (), f"{len(keys)} image files"


def _write(path: Path, found: _Source, keys: Sequence[str], collected: Sequence[tuple[Tensor, Tensor]]) -> None:
    import json

    import torch
    from safetensors.torch import save

    from residualign._files import publish, saying_what_is_kept

    tensors = {
        "contributions": torch.cat([values for values, _ in collected]),
        "output": torch.cat([output for _, output in collected]),
    }
    header = json.dumps({"units": list(found.maps.units.labels), "keys": keys, "model": found.model})
    with saying_what_is_kept(path, "nothing was written there"):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, save(tensors, {"residualign": header}))
