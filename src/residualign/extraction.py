"""The one pass: each image goes through the model once and leaves behind what all analyses need."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from residualign._progress import Tick
from residualign.classification.classifier import zero_shot_vectors
from residualign.data.batches import PixelLoader, pixel_batches, runs
from residualign.data.images import BadImageError
from residualign.data.split import EncodedSource, ImageData, Split, image_mark
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.models.vision_model import VisionModel
from residualign.spectrum import Moments, Spectra
from residualign.store import CoordinateShape, SplitPlan, Store, StorePlan, StoreSplit, StoreWriter
from residualign.store.plan import StoreDtype

__all__ = [
    "Reading",
    "check_inputs",
    "extract",
    "fit_spectrum",
    "images_digest",
    "images_of_split",
    "reference_spectra",
    "spectra_of_split",
    "split_of",
    "stored",
]


class Reading(TypedDict, total=False):
    """How images are read where an analysis is given a model and data; with a store they do nothing.

    batch_size, workers, skip_bad, progress: those of `extract`. An analysis also calls progress for its own steps.
    """

    batch_size: int
    workers: int
    skip_bad: bool
    progress: Tick | None


# rows read from a store at a time; bounds memory, changes nothing else
_BLOCK = 1024


def extract(
    model: VisionModel,
    data: ImageData,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    workers: int = 2,
    skip_bad: bool = False,
    dtype: StoreDtype = "float32",
    shard_size: int = 1024,
    progress: Tick | None = None,
) -> Store:
    """Run every image through the model once and keep its compact coordinates in a store.

    A store of the same model and data that was begun at `path` is continued, and ends with the same bytes as a run that
    was never interrupted (same machine, threads and batch size). A finished one is opened as it is.

    Parameters
    ----------
    model : VisionModel
        The frozen model.
    data : ImageData
        All of its splits are read.
    path : str or path
        A new or empty folder, a store to continue, or an fsspec URL.
    batch_size : int
        Images per forward pass.
    workers : int
        Processes that read and preprocess images; 0 reads in this process.
    skip_bad : bool
        Leave out images that cannot be read, and list their keys in `Store.skipped`.
    dtype : "float16", "float32" or "float64"
        Floating-point type of the numbers on disk.
    shard_size : int
        Images per file.
    progress : callable, optional
        Called with (images done, images in all) after every batch.

    Returns
    -------
    Store
        The finished store.

    Raises
    ------
    BadInputError
        If an image cannot be read or its embedding is NaN or infinite, `path` holds something else, or an image that a
        store there has read was replaced on disk since.
    RunError
        If the disk is full or not writable. Shards written so far stay, and the same call goes on from them.

    Notes
    -----
    Costs one forward pass and 2 x layer x width + dim + 2 numbers on disk per image. Each image is recorded by its size
    and SHA-256. Where a store is continued, or a finished one opened, this costs one look at the time of each file, and
    files touched since the store was begun are read; so are all where the store is in a bucket, which tells no time.
    Rows of the hub are not looked at again.
    """
    if not isinstance(data, ImageData):
        raise BadInputError(
            f"data is what load_data returns, from a folder, parquet files or a name; got a {type(data).__name__}"
        )
    strays = () if skip_bad else data.strays
    if strays:
        others = f" (and {len(strays) - 1} more)" if len(strays) > 1 else ""
        raise BadInputError(
            f"{strays[0]!r}{others} among the images of {data.name!r} is not an image; remove it, or leave such files "
            "out with skip_bad=True"
        )
    maps = unit_maps(model.tower)
    # what a shard of unreadable images holds
    nothing = Coordinates.of_tensors({name: torch.empty(0, *size) for name, size in maps.value_shapes.items()})
    plan = _plan(model, data, maps, batch_size=batch_size, dtype=dtype, shard_size=shard_size)
    text_vectors = zero_shot_vectors(model.encode_text, data.class_names, data.templates) if model.has_text else None
    splits = {split.name: split for split in data.splits}
    with (
        StoreWriter(path, plan, maps, text_vectors) as writer,
        PixelLoader(data.splits, model.preprocess, workers=workers, skip_bad=skip_bad) as loader,
    ):
        _refuse_replaced(writer, splits)
        done = writer.n_done
        # no batch crosses shards, yet reading goes on beyond the end of one
        wanted = [
            (shard, runs(splits[shard.split], range(shard.start, shard.stop), batch_size))
            for shard in writer.pending_shards()
        ]
        with closing(loader.read([run for _, of_shard in wanted for run in of_shard])) as read:
            for shard, of_shard in wanted:
                batches = [nothing]
                skipped: list[str] = []
                marks: list[str] = []
                for batch in islice(read, len(of_shard)):
                    if batch.pixels is not None:
                        keys = [splits[shard.split].keys[row] for row in batch.positions]
                        traced = trace_coordinates(model.tower, model.pixels(batch.pixels), names=keys)
                        batches.append(traced.to("cpu"))
                    skipped += batch.skipped
                    marks += batch.marks
                    done += len(batch.positions) + len(batch.skipped)
                    if progress is not None:
                        progress(done, len(plan))
                writer.write_shard(shard, Coordinates.cat(batches), skipped, marks)
        return writer.finish()


def _refuse_replaced(writer: StoreWriter, splits: Mapping[str, Split]) -> None:
    """`BadInputError` naming images that changed since a store read them; those of shards to come are read anyway.

    An image whose file was touched since the store was begun is read and compared with its mark.
    """
    changed: list[str] = []
    for shard, begun, marks in writer.marks():
        source = splits[shard.split].source
        if not isinstance(source, EncodedSource):
            continue
        for position, mark in zip(range(shard.start, shard.stop), marks, strict=False):
            row, key = splits[shard.split].rows[position], splits[shard.split].keys[position]
            touched = source.touched(row, key)
            if touched is None or (begun is not None and touched < begun):
                continue
            try:
                now = image_mark(source.encoded(row, key))
            except BadImageError:
                now = ""
            if now != mark:
                changed.append(key)
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise BadInputError(
            f"the image {changed[0]!r}{others} changed on disk since the store {writer.name} read it; give a new place "
            "for the store, or remove this one, to read the images again"
        )


def fit_spectrum(
    source: Store | StoreSplit | VisionModel,
    data: ImageData | None = None,
    *,
    split: str | None = None,
    **reading: Unpack[Reading],
) -> Spectra:
    """Principal components of every residual unit over one split, from a store, or from a model and data.

    Parameters
    ----------
    source : Store, StoreSplit or VisionModel
        A store, some images of one, or a model, followed by `data`; then nothing is written.
    data : ImageData, optional
        The images, where `source` is a model. They pass through the model once.
    split : {"train", "val", "test"}, optional
        The images to look at, by default "train".
    **reading
        `batch_size`, `workers`, `skip_bad` and `progress`, as in `extract`. With a store they do nothing.

    Returns
    -------
    Spectra
        `spectra["L3.H7"]` has `mean`, `components`, `explained_variance` and `explained_variance_ratio`.

    Raises
    ------
    BadInputError
        If the split is empty or does not exist, a model comes without data, or a store with data.

    Notes
    -----
    One streaming pass in float64; memory does not grow with the number of images. Exact, although only compact
    coordinates are read.

    References
    ----------
    ResiDual: arXiv 2411.00246, section 3.

    Examples
    --------
    >>> import residualign as ra
    >>> model, data = ra.load_model("mini"), ra.load_data("digits")
    >>> spectra = ra.fit_spectrum(model, data, split="val")
    >>> bool(spectra["L0.H0"].explained_variance_ratio.sum() <= 1 + 1e-9)
    True
    """
    check_inputs(source, data, reading)
    if not isinstance(source, VisionModel):
        return spectra_of_split(split_of(source, split))
    assert data is not None
    splits, name = {part.name: part for part in data.splits}, split or "train"
    if name not in splits:
        raise BadInputError(f"split is one of {', '.join(splits)}, got {name!r}")
    return reference_spectra(source, splits[name], source=f"{data.name}, {name}", **reading)


def spectra_of_split(split: StoreSplit, *, every_component: bool = False) -> Spectra:
    """Principal components of every unit over these images of a store; `BadInputError` where there are none.

    every_component: also those of heads of a tower that pools by attention, which keep head_dim components otherwise.
    """
    store = split.store
    if not len(split):
        raise BadInputError(f"split {split.name!r} of the store is empty; spectra need images")
    moments = Moments.empty(store.maps)
    for coordinates in split.batches(_BLOCK):
        moments.update(coordinates)
    return moments.spectra(
        store.maps,
        source=_source(split),
        model_fingerprint=str(store.model["fingerprint"]),
        max_head_components=store.maps.dim if every_component and store.maps.layout == "contributions" else None,
        images=images_of_split(split),
    )


def images_digest(model_fingerprint: str, source: str, keys: Iterable[str]) -> str:
    """SHA-256 of which images a model looked at, whatever their order. source: names their data and split."""
    content = json.dumps([model_fingerprint, source, sorted(keys)])
    return hashlib.sha256(content.encode()).hexdigest()


def images_of_split(split: StoreSplit) -> str:
    """The `images_digest` of these images of a store; spectra with the same one are of exactly these images."""
    return images_digest(str(split.store.model["fingerprint"]), _source(split), split.keys)


def _source(split: StoreSplit) -> str:
    return f"{split.store.data['name']}, {split.name}"


@contextmanager
def stored(
    source: Any,
    data: ImageData | None = None,
    **reading: Unpack[Reading],
) -> Iterator[Any]:
    """The store that is given; or, of a model and data, a temporary one, which is removed when the context ends.

    source: a `VisionModel`, or else a store, images of a split, or whatever takes the place of a store.
    Errors: those of `check_inputs`.
    """
    check_inputs(source, data, reading)
    if not isinstance(source, VisionModel):
        yield source
        return
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="residualign-") as folder:
        yield extract(source, data, Path(folder) / "store", **reading)


def check_inputs(source: object, data: object, reading: Reading) -> None:
    """`BadInputError` for a store with data and for a model without; `TypeError` for a keyword that nothing reads."""
    if unknown := reading.keys() - Reading.__annotations__.keys():
        raise TypeError(
            f"unexpected keyword argument {', '.join(map(repr, sorted(unknown)))}; expected the parameters of the "
            f"function, or of reading images: {', '.join(Reading.__annotations__)}"
        )
    if isinstance(source, str | os.PathLike | ImageData):
        raise BadInputError(f"a store (`Store.open(path)`), or a model and data, is expected first; got {source!r:.60}")
    if isinstance(source, VisionModel):
        if data is None:
            raise BadInputError("a model needs data: give a model and data, or a store")
        if not isinstance(data, ImageData):
            raise BadInputError(f"data is what `load_data` returns, got {data!r:.60}")
    elif data is not None:
        raise BadInputError(
            f"a store needs no data, got {data!r:.60}; give a store alone, or a model and data; other arguments are "
            "given by name"
        )


def split_of(source: Store | StoreSplit, name: str | None) -> StoreSplit:
    """The split of a store that an analysis looks at, "train" where name is None; or the images that are given.

    `BadInputError` for a split without images, and for images of a split together with the name of a different one.
    """
    if isinstance(source, StoreSplit):
        if name not in (None, source.name):
            raise BadInputError(
                f"split={name!r} does not go with images of the split {source.name!r}; give a store, or leave it out"
            )
        split = source
    else:
        split = source.split(name or "train")
    if not len(split):
        filled = [other for other in split.store.splits if len(split.store.split(other))]
        raise BadInputError(f"split {split.name!r} has no images; choose one of {', '.join(filled)}")
    return split


def reference_spectra(
    model: VisionModel,
    split: Split,
    *,
    source: str,
    batch_size: int = 32,
    workers: int = 2,
    skip_bad: bool = False,
    progress: Tick | None = None,
) -> Spectra:
    """Spectra of a model over the images of one split, without keeping anything of an image."""
    if not len(split):
        raise BadInputError(f"split {split.name!r} is empty; spectra need images")
    maps = unit_maps(model.tower)
    moments = Moments.empty(maps, device=model.device)
    done = 0
    skipped: set[str] = set()
    batches = pixel_batches(
        split, range(len(split)), model.preprocess, batch_size=batch_size, workers=workers, skip_bad=skip_bad
    )
    for batch in batches:
        if batch.pixels is not None:
            keys = [split.keys[row] for row in batch.positions]
            moments.update(trace_coordinates(model.tower, model.pixels(batch.pixels), names=keys))
        skipped |= set(batch.skipped)
        done += len(batch.positions) + len(batch.skipped)
        if progress is not None:
            progress(done, len(split))
    images = images_digest(model.fingerprint, source, (key for key in split.keys if key not in skipped))
    return moments.spectra(maps, source=source, model_fingerprint=model.fingerprint, images=images)


def _plan(
    model: VisionModel, data: ImageData, maps: UnitMaps, *, batch_size: int, dtype: StoreDtype, shard_size: int
) -> StorePlan:
    described = data.describe()
    return StorePlan(
        model=model.describe(),
        data={key: described[key] for key in ("name", "split_rule", "notes")},
        splits={split.name: SplitPlan(split.keys, split.labels) for split in data.splits},
        class_names=data.class_names,
        templates=data.templates,
        shape=CoordinateShape(
            n_layers=model.units.n_layers,
            n_heads=model.n_heads,
            head_dim=model.tower.head_dim,
            width=model.width,
            dim=model.dim,
            layout=maps.layout,
            pool_mlp=model.units.pool_mlp,
        ),
        logit_scale=model.logit_scale,
        logit_bias=model.logit_bias,
        dtype=dtype,
        shard_size=shard_size,
        batch_size=batch_size,
        residual_error=model.residual_error,
    )
