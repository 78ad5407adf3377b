"""TwoNN, exact neighbors in blocks: seconds and memory at 50,000 points; scikit-learn, scikit-dimension."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fresh import in_fresh_process
from benchmarks.harness import Result, Row, exponent, interleave, ratio_rows
from benchmarks.machine import matrix_rate
from benchmarks.towers import random_coordinates, random_maps
from residualign.decomposition.coordinates import UnitMaps
from residualign.geometry.measure import Isometry, linear_dimension_of_points
from residualign.geometry.neighbors import nearest
from residualign.geometry.resampling import draw_halves
from residualign.geometry.two_nn import two_nn
from residualign.store import CoordinateShape, SplitPlan, Store, StorePlan, StoreWriter

__all__ = ["Sizes", "run"]

_BATCH = 1000


@dataclass(frozen=True)
class Sizes:
    """extrapolated: number of heads to extrapolate to. compared: numbers of points for the alternatives."""

    images: int = 50_000
    heads: int = 3
    head_dim: int = 64
    dim: int = 512
    subsamples: int = 100
    extrapolated: int = 144
    compared: tuple[int, ...] = (2000, 4000, 8000)
    rounds: int = 5


def run(sizes: Sizes) -> Result:
    """`measure_geometry` of a few heads in a fresh process; then a comparison with alternatives on fewer points."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", sizes)
        process = {
            name: in_fresh_process(geometry_process, path=store.path, subsamples=subsamples)
            for name, subsamples in (("N alone", 0), (f"N, L and {sizes.subsamples} halves", sizes.subsamples))
        }
    rows, details = [], dict[str, Any](process)
    factor = sizes.extrapolated / sizes.heads
    for name, answer in process.items():
        rows += [
            Row(
                f"{name}: one head of {sizes.head_dim} at {sizes.images} points",
                answer["seconds"] / sizes.heads,
                "s",
                note=f"CPU time {answer['cpu_seconds'] / sizes.heads:.1f} s",
            ),
            Row(
                f"{name}: {sizes.extrapolated} heads",
                answer["seconds"] * factor / 60,
                "min",
                note=f"{sizes.heads} heads x {factor:g}; CPU time {answer['cpu_seconds'] * factor / 60:.1f} min",
            ),
            Row(
                f"{name}: memory",
                (answer["peak_rss_bytes"] - answer["base_rss_bytes"]) / 2**20,
                "MiB",
                aim="500",
                note="peak resident, without interpreter and libraries",
            ),
        ]
    compared, times = _compared(sizes)
    rows += compared
    n, size = sizes.images, sizes.head_dim + 2
    flops = 2 * n**2 * (size + 1) / 1e9
    rate = matrix_rate(torch.float32)
    one = process["N alone"]["cpu_seconds"] / sizes.heads
    limits = (
        f"The products of one head are {flops:.0f} GFLOP of float32: {flops / rate:.1f} s at the {rate:.0f} GFLOP/s of "
        f"a large product, of its {one:.1f} s of CPU time; the rest finds the smallest entries of each row.",
        f"Rows not proved in float32, of {n} per head: {process['N alone']['unsettled']}.",
    )
    title = f"{sizes.heads} heads of {sizes.head_dim}, {n} points, {sizes.rounds} rounds on up to {max(sizes.compared)}"
    return Result("two_nn", title, asdict(sizes), rows, limits, {**details, **times})


def geometry_process(path: str, subsamples: int) -> dict[str, Any]:
    """The geometry of the heads of a store."""
    import residualign as ra
    from residualign.geometry import measure_geometry
    from residualign.geometry.measure import unit_points

    store = Store.open(path)
    split, heads = store.split("train"), store.units.of_kind("head")
    spectra = ra.fit_spectrum(store)
    began, processor = time.perf_counter(), time.process_time()
    found = measure_geometry(split, spectra=spectra, units=heads, subsamples=subsamples)
    seconds, cpu = time.perf_counter() - began, time.process_time() - processor
    unsettled = 0
    if not subsamples:
        _, points = next(unit_points(split, heads[:1]))
        unsettled = len(points) - nearest(points, 2).by_float32
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "two_nn": [one.two_nn for one in found.units],
        "unsettled": unsettled,
    }


def make_store(path: Path, sizes: Sizes) -> Store:
    """Random coordinates of one layer of heads, with an MLP of width one."""
    maps = random_maps(layers=1, heads=sizes.heads, head_dim=sizes.head_dim, width=1, dim=sizes.dim)
    keys = tuple(map(str, range(sizes.images)))
    plan = StorePlan(
        model={"name": "random", "fingerprint": "random", "preprocessing": {}, "dtype": "float32"},
        data={"name": "noise"},
        splits={"train": SplitPlan(keys, (0,) * sizes.images)},
        class_names=("a",),
        templates=(),
        shape=CoordinateShape(1, sizes.heads, sizes.head_dim, 1, sizes.dim),
        logit_scale=None,
        shard_size=_BATCH,
        batch_size=_BATCH,
        residual_error=0.0,
    )
    with StoreWriter(path, plan, maps, None) as writer:
        for shard in writer.pending_shards():
            writer.write_shard(shard, random_coordinates(maps, len(shard), seed=shard.start), [])
        return writer.finish()


def _compared(sizes: Sizes) -> tuple[list[Row], dict[str, Any]]:
    from skdim.id import TwoNN
    from sklearn.neighbors import NearestNeighbors

    maps = random_maps(layers=1, heads=1, head_dim=sizes.head_dim, width=1, dim=sizes.dim)
    rows, times = [], {}
    seconds: dict[str, list[float]] = {}
    for n in sizes.compared:
        points, halves = _points(maps, n), draw_halves(n, sizes.subsamples, seed=0)
        array = points.numpy()
        ways = {
            "ours": lambda points=points: nearest(points, 2),
            "scikit-learn, brute": lambda array=array: _brute(NearestNeighbors, array),
            "scikit-dimension": lambda array=array: TwoNN().fit(array).dimension_,
            "ours with halves": lambda points=points, halves=halves: _with_halves(points, halves),
        }
        timings = interleave(ways, sizes.rounds)
        times[f"{n} points"] = {"wall": timings.wall, "cpu": timings.cpu}
        for name in ways:
            seconds.setdefault(name, []).append(timings.median(name).value)
        for name in ("scikit-learn, brute", "scikit-dimension"):
            rows += ratio_rows(f"{name} / ours, {n} points", timings.ratio(name, "ours"))
        rows.append(
            Row(f"halves: the whole / ours without, {n} points", timings.ratio("ours with halves", "ours").cpu, "x")
        )
    if len(sizes.compared) > 1:
        rows += [
            Row(f"{name}: exponent of the time in the number of points", exponent(sizes.compared, s))
            for name, s in seconds.items()
        ]
    distances, _ = NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(array).kneighbors(array)
    difference = np.abs(nearest(points, 2).distances.numpy() / distances[:, 1:] - 1).max()
    rows.append(Row("difference of the distances from those of a kd-tree", float(difference), note="relative, largest"))
    return rows, times


def _points(maps: UnitMaps, n: int) -> Tensor:
    unit = maps.units.get("L0.H0")
    y = random_coordinates(maps, n).of(unit)
    return Isometry.of(maps, unit, y[0])(y)


def _brute(neighbors: Any, array: Any) -> Any:
    return neighbors(n_neighbors=3, algorithm="brute").fit(array).kneighbors(array)


def _with_halves(points: Tensor, halves: list[Tensor]) -> float:
    for half in halves:
        linear_dimension_of_points(points[half])
    return two_nn(points, halves=halves).dimension
