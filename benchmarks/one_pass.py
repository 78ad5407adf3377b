"""From files to a fitted method (extract, spectra, fit), compared with one plain pass over the images."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import residualign as ra
from benchmarks.harness import Estimate, Result, Row, interleave, median_interval, ratio_rows
from benchmarks.images import save_images, save_tower
from residualign.data.batches import pixel_batches
from residualign.data.split import ImageData
from residualign.fitting.fit import FitSettings, Fitted, fit_method
from residualign.fitting.methods import build_scaling, get_method
from residualign.fitting.solvers import ScheduleFree, Solver
from residualign.models.vision_model import VisionModel
from residualign.spectrum import Spectra

__all__ = ["Sizes", "run"]

_WORKERS = 2

_FITS: tuple[tuple[str, str, Solver | None, str], ...] = (
    ("residual-heads", "default", None, "1.2"),
    ("residual", "default", None, "1.2"),
    ("residual-heads", "Schedule-Free", ScheduleFree(learning_rate=0.8), ""),
    ("residual", "Schedule-Free", ScheduleFree(learning_rate=0.8), ""),
    ("residual", "Schedule-Free, all 30 epochs", ScheduleFree(learning_rate=0.8, patience=30), ""),
)


@dataclass(frozen=True)
class Sizes:
    """Images, and how they are used.

    part: number of images in the interleaved passes; in them the one-time costs of extracting (maps, manifest) weigh
    images / part times too much. images: in the store that spectra and fits read, all splits together. components: per
    head in `residual-heads`, on average; a real DeiT-Tiny has 29 at the default share of variance, a random tower 3 or
    4.
    """

    images: int = 2000
    part: int = 256
    batch: int = 32
    classes: int = 10
    components: int = 29
    layers: int = 12
    image_size: int = 224
    rounds: int = 15
    fits: int = 3


def run(sizes: Sizes) -> Result:
    """Random ViT-B/32 and generated JPEG files, split 70/10/20, class means as classifier."""
    with tempfile.TemporaryDirectory() as scratch:
        return _run(sizes, Path(scratch))


def _run(sizes: Sizes, scratch: Path) -> Result:
    model = ra.load_model(save_tower(scratch / "tower", sizes.layers, sizes.image_size))
    part = ra.load_data(save_images(scratch / "part", sizes.part, sizes.classes))
    whole = ra.load_data(save_images(scratch / "whole", sizes.images, sizes.classes))

    def extract_part() -> None:
        ra.extract(model, part, scratch / "store_part", batch_size=sizes.batch, workers=_WORKERS)
        shutil.rmtree(scratch / "store_part")

    timings = interleave({"plain": lambda: plain_pass(model, part, sizes.batch), "extract": extract_part}, sizes.rounds)
    extracted = timings.ratio("extract", "plain")
    pass_seconds = timings.median("plain").value * sizes.images / len_of(part)
    store = ra.extract(model, whole, scratch / "store", batch_size=sizes.batch, workers=_WORKERS)
    spectra = ra.fit_spectrum(store)
    spectra_seconds, _ = _timed(lambda: ra.fit_spectrum(store), sizes.fits)
    rows = [
        Row("one plain pass", pass_seconds, "s", note=f"{len_of(part)} images, scaled to {sizes.images}"),
        *ratio_rows("extract / plain pass", extracted),
        Row.of("spectra", spectra_seconds, "s"),
    ]
    share = _share(spectra, sizes.components)
    details: dict[str, Any] = {"share": share, "wall": dict(timings.wall), "cpu": dict(timings.cpu), "fits": []}
    for method, what, solver, aim in _FITS:
        seconds, result = _timed(
            lambda method=method, solver=solver: fit_method(
                store, method, spectra, settings=FitSettings(solver=solver, variance_threshold=share)
            ),
            sizes.fits,
        )
        total = _total(extracted.of_medians, spectra_seconds, seconds, pass_seconds)
        rows += [
            Row.of(f"fit {method}, {what}", seconds, "s", note=_describe(result)),
            Row.of("  extract + spectra + this fit / plain pass", total, "x", aim),
        ]
        details["fits"].append({"method": method, "solver": what, "epochs": result.epochs, **result.accuracy})
    return Result(
        "one_pass",
        f"{sizes.images} JPEG images, random ViT-B/32, batch {sizes.batch}",
        asdict(sizes),
        rows,
        (
            "Extracting is the plain pass, a checksum and (2 x layer x width + dim + 2) numbers on disk per image.",
            "A fit costs two products of training image x lambda x dim per pass over the training images; the table "
            "gives the number of passes. The interval of a total is that of its fit and extraction together.",
            "The published way runs the encoder once for the bases and once per epoch: up to 30 epochs of train and "
            "validation images, and the test images.",
        ),
        details,
    )


def plain_pass(model: VisionModel, data: ImageData, batch: int) -> None:
    """Decode, preprocess and embed every image; keep nothing but embeddings."""
    kept = []
    for split in data.splits:
        for read in pixel_batches(split, range(len(split)), model.preprocess, batch_size=batch, workers=_WORKERS):
            if read.pixels is not None:
                kept.append(model.encode_pixels(model.pixels(read.pixels)))


def len_of(data: ImageData) -> int:
    """Images of all splits."""
    return sum(len(split) for split in data.splits)


def _share(spectra: Spectra, components: int) -> float:
    """The share of variance at which heads keep this many components on average."""
    method, n_heads = get_method("residual-heads"), len(spectra.units.of_kind("head"))
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        enough = build_scaling(method, spectra, variance_threshold=middle).n_lambdas >= components * n_heads
        low, high = (low, middle) if enough else (middle, high)
    return high


def _timed(work: Callable[[], Any], repeats: int) -> tuple[Estimate, Any]:
    answer: list[Any] = [None]

    def once() -> None:
        answer[0] = work()

    seconds = interleave({"work": once}, repeats, warmup=0).wall["work"]
    return median_interval(seconds), answer[0]


def _total(extracted: Estimate, spectra: Estimate, fitted: Estimate, pass_seconds: float) -> Estimate:
    return Estimate(
        extracted.value + (spectra.value + fitted.value) / pass_seconds,
        extracted.low + (spectra.low + fitted.low) / pass_seconds,
        extracted.high + (spectra.high + fitted.high) / pass_seconds,
    )


def _describe(result: Fitted) -> str:
    before, after = result.accuracy["zero_shot"], result.accuracy["adapted"]
    accuracy = "" if before is None or after is None else f", accuracy {before:.2f} -> {after:.2f}"
    return f"{result.parameters} lambdas, {result.epochs} passes over {result.settings['n_train']} images{accuracy}"
