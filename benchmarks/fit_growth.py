"""Time and memory of a fit as the number of images, heads and classes grows."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from benchmarks.epochs import random_spectra
from benchmarks.fresh import in_fresh_process
from benchmarks.harness import Result, Row, exponent, median_interval
from benchmarks.towers import random_coordinates, random_maps
from residualign.decomposition.coordinates import UnitMaps
from residualign.fitting.fit import FitSettings, fit_method
from residualign.fitting.solvers import LBFGS, ScheduleFree
from residualign.spectrum import Spectra
from residualign.store import CoordinateShape, SplitPlan, Store, StorePlan, StoreWriter

__all__ = ["Sizes", "run"]

_HEADS_PER_LAYER = 12
_EPOCHS = 2
_VAL_IMAGES = 100


@dataclass(frozen=True)
class Sizes:
    """One axis grows at a time; the others stay at their base size. A layer has 12 heads and an MLP."""

    base_images: int = 2000
    base_layers: int = 12
    base_classes: int = 10
    images: tuple[int, ...] = (500, 2000, 8000)
    heads: tuple[int, ...] = (36, 72, 144, 288)
    classes: tuple[int, ...] = (10, 100, 1000)
    width: int = 768
    dim: int = 512
    repeats: int = 3


def run(sizes: Sizes) -> Result:
    """Each point in a process of its own, on Gaussian coordinates, method `residual`."""
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for axis, values in (("images", sizes.images), ("heads", sizes.heads), ("classes", sizes.classes)):
        points = []
        for value in values:
            point = {"images": sizes.base_images, "heads": sizes.base_layers * _HEADS_PER_LAYER}
            point |= {"classes": sizes.base_classes, axis: value}
            answer = in_fresh_process(
                fit_process, **point, width=sizes.width, dim=sizes.dim, repeats=sizes.repeats, epochs=_EPOCHS
            )
            points.append({**point, **answer, "memory": answer["peak_rss_bytes"] - answer["base_rss_bytes"]})
        details[axis] = points
        rows += _rows(axis, values, points)
    return Result(
        "fit_growth",
        f"residual, {sizes.base_images} images, {sizes.base_layers * _HEADS_PER_LAYER} heads with MLPs, "
        f"{sizes.base_classes} classes unless stated otherwise",
        asdict(sizes),
        rows,
        (
            "Time: two products of image x lambda x dim per pass. Classes add image x class x dim, which matters "
            "only if there are about as many classes as lambdas.",
            "Memory: image x lambda numbers are held (up to 4 GiB; above that, they are recomputed for each batch), "
            "and lambda x dim twice; the rest is the coordinates and the spectra.",
        ),
        details,
    )


def fit_process(
    images: int, heads: int, classes: int, width: int, dim: int, repeats: int, epochs: int
) -> dict[str, Any]:
    """Seconds per pass of both solvers at one size, and what the peak memory of the process consists of."""
    maps = random_maps(heads // _HEADS_PER_LAYER, _HEADS_PER_LAYER, width=width, dim=dim)
    spectra = random_spectra(maps, 2 * width)
    with tempfile.TemporaryDirectory() as scratch:
        store = gaussian_store(f"{scratch}/store", maps, images, classes).in_memory()
        return _timed(store, spectra, images, repeats, epochs)


def _timed(store: Store, spectra: Spectra, images: int, repeats: int, epochs: int) -> dict[str, Any]:
    solvers = {
        "schedule-free": ScheduleFree(learning_rate=0.8, max_epochs=epochs, patience=epochs),
        "lbfgs": LBFGS(max_iterations=2 * epochs),
    }
    answer: dict[str, Any] = {}
    # the first optimizer of a process makes torch load its compiler, which takes seconds unrelated to the size
    once = ScheduleFree(learning_rate=0.8, max_epochs=1)
    fit_method(store, "residual", spectra, settings=FitSettings(solver=once))
    for name, solver in solvers.items():
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = fit_method(store, "residual", spectra, settings=FitSettings(solver=solver))
            whole = time.perf_counter() - start
            passes = [record["seconds"] for record in result.history]
            seconds.append((whole, passes[-1] / result.epochs))
        answer[name] = [list(times) for times in zip(*seconds, strict=True)]
    values = images * result.parameters * 4
    return {**answer, "lambdas": result.parameters, "values_bytes": values}


def gaussian_store(folder: str, maps: UnitMaps, images: int, classes: int) -> Store:
    """A store of labeled Gaussian coordinates, with random class vectors."""
    sizes = {"train": images, "val": _VAL_IMAGES, "test": 0}
    plan = StorePlan(
        model={"name": "random", "fingerprint": "", "preprocessing": {}, "dtype": "float32"},
        data={"name": "noise"},
        splits={
            name: SplitPlan(tuple(f"{name}/{i}" for i in range(n)), tuple(i % classes for i in range(n)))
            for name, n in sizes.items()
        },
        class_names=tuple(str(i) for i in range(classes)),
        templates=(),
        shape=CoordinateShape(
            maps.units.n_layers, maps.units.n_heads, maps.heads.shape[2] - 2, maps.mlps.shape[1] - 1, maps.dim
        ),
        logit_scale=100.0,
        shard_size=500,
    )
    generator = torch.Generator().manual_seed(2)
    vectors = F.normalize(torch.randn(classes, maps.dim, generator=generator), dim=-1)
    with StoreWriter(folder, plan, maps, vectors) as writer:
        for shard in writer.pending_shards():
            writer.write_shard(shard, random_coordinates(maps, len(shard), seed=shard.start))
        return writer.finish()


def _rows(axis: str, values: tuple[int, ...], points: list[dict[str, Any]]) -> list[Row]:
    rows, series = [], {"schedule-free": [], "lbfgs": [], "memory": []}
    for value, point in zip(values, points, strict=True):
        for solver, what in (("schedule-free", "one epoch, Schedule-Free"), ("lbfgs", "one evaluation, L-BFGS")):
            estimate = median_interval(point[solver][1])
            series[solver].append(estimate.value)
            note = f"{point['lambdas']} lambdas" if solver == "schedule-free" else ""
            rows.append(Row.of(f"{value} {axis}: {what}", estimate, "s", note=note))
        series["memory"].append(point["memory"])
        held = point["values_bytes"] / 2**20
        rows.append(
            Row(f"{value} {axis}: peak memory", point["memory"] / 2**20, "MiB", note=f"coefficients {held:.0f} MiB")
        )
    if len(values) > 1:
        rows += [
            Row(f"{name}: exponent in the number of {axis}", exponent(values, numbers))
            for name, numbers in series.items()
        ]
    return rows
