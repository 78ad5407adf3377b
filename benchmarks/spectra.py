"""Spectra from streaming moments, compared with one SVD per head of projected contributions; memory by images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.fresh import in_fresh_process
from benchmarks.harness import Result, Row, exponent, interleave, ratio_rows
from benchmarks.machine import matrix_rate
from benchmarks.towers import random_coordinates, random_maps
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.spectrum import Moments, Spectra
from residualign.units import Unit

__all__ = ["Sizes", "run"]

_BATCH = 256


@dataclass(frozen=True)
class Sizes:
    """svd_units: number of heads (and of MLPs) that the SVD is timed on; its time is extrapolated to all of them."""

    images: int = 5000
    layers: int = 12
    heads: int = 12
    dim: int = 512
    svd_units: int = 6
    rounds: int = 7
    memory_images: tuple[int, ...] = (1000, 5000, 20000)


def run(sizes: Sizes) -> Result:
    """Time both ways on Gaussian coordinates of ViT-B size; memory in fresh processes."""
    maps = random_maps(layers=sizes.layers, heads=sizes.heads, dim=sizes.dim)
    coordinates = random_coordinates(maps, sizes.images)
    few_maps, few_coordinates = heads_only(maps), replace(coordinates, mlps=coordinates.mlps[:, :, :1])
    heads, mlps = (maps.units.of_kind(kind)[: sizes.svd_units] for kind in ("head", "mlp"))
    ways = {
        "streaming, heads": lambda: streamed(few_coordinates, few_maps),
        "streaming, tower": lambda: streamed(coordinates, maps),
        "SVD, heads": lambda: [svd(coordinates, maps, unit) for unit in heads],
        "SVD, MLPs": lambda: [svd(coordinates, maps, unit) for unit in mlps],
    }
    timings = interleave(ways, sizes.rounds)
    n_heads, n_mlps = (len(maps.units.of_kind(kind)) for kind in ("head", "mlp"))
    head_factor, mlp_factor = n_heads / len(heads), n_mlps / len(mlps)
    whole = {
        "wall": {**timings.wall, "SVD, tower": _sum(timings.wall, head_factor, mlp_factor)},
        "cpu": {**timings.cpu, "SVD, tower": _sum(timings.cpu, head_factor, mlp_factor)},
    }
    timings = replace(timings, wall=whole["wall"], cpu=whole["cpu"])
    memory = memory_rows(sizes)
    difference = _difference(streamed(coordinates, maps), coordinates, maps, heads[0])
    rows = [
        Row.of(f"streaming, {n_heads} heads", timings.median("streaming, heads"), "s"),
        Row.of(
            f"SVD, {n_heads} heads",
            timings.median("SVD, heads").scaled(head_factor),
            "s",
            note=f"{len(heads)} heads x {head_factor:g}",
        ),
        *ratio_rows(
            "SVD / streaming, heads", timings.ratio("SVD, heads", "streaming, heads").scaled(head_factor), "20"
        ),
        Row.of(f"streaming, tower of {n_heads} heads and {n_mlps} MLPs", timings.median("streaming, tower"), "s"),
        Row.of("SVD, tower", timings.median("SVD, tower"), "s", note=f"{len(mlps)} MLPs x {mlp_factor:g}"),
        *ratio_rows("SVD / streaming, tower", timings.ratio("SVD, tower", "streaming, tower")),
        Row("difference of the variances", difference, note="relative, streaming float64, SVD float32"),
        *memory[0],
    ]
    scatter = 2 * sizes.images * (n_heads * maps.heads.shape[2] ** 2 + n_mlps * maps.mlps.shape[1] ** 2) / 1e9
    rate, tower = matrix_rate(torch.float64), timings.median("streaming, tower").value
    limits = (
        f"Streaming the tower is {scatter:.0f} GFLOP of float64 moments ({scatter / rate:.2f} of its {tower:.2f} s, at "
        f"the {rate:.0f} GFLOP/s of a large product), then one eigendecomposition a unit, independent of the images.",
        f"One SVD of an image x dim matrix is about 4 n d^2 + 22 d^3 = "
        f"{(4 * sizes.images * sizes.dim**2 + 22 * sizes.dim**3) / 1e9:.1f} GFLOP, mostly not in matrix products.",
    )
    return Result(
        "spectra",
        f"{sizes.images} images, {n_heads} heads of 64, dim {sizes.dim}, {sizes.rounds} rounds",
        asdict(sizes),
        rows,
        limits,
        {**whole, "memory": memory[1]},
    )


def streamed(coordinates: Coordinates, maps: UnitMaps) -> Spectra:
    """Moments batch by batch, then the spectra of all units."""
    moments = Moments.empty(maps)
    for start in range(0, len(coordinates), _BATCH):
        moments.update(coordinates[start : start + _BATCH])
    return moments.spectra(maps, source="benchmark")


def svd(coordinates: Coordinates, maps: UnitMaps, unit: Unit) -> tuple[Tensor, Tensor]:
    """The published way: project all images of one unit, center, full SVD in float32. Components and variances."""
    contribution = maps.contribution(coordinates, unit)
    _, values, components = torch.linalg.svd(contribution - contribution.mean(dim=0), full_matrices=False)
    return components, values.square() / (len(coordinates) - 1)


def heads_only(maps: UnitMaps) -> UnitMaps:
    """The same heads, with MLPs of width one, which cost nothing."""
    return replace(maps, mlps=maps.mlps[:, :2])


def memory_rows(sizes: Sizes) -> tuple[list[Row], dict[str, Any]]:
    """Peak memory of a process that streams, and of one that computes one head's SVD, minus the process at rest."""
    rows, details, grown = [], {}, {}
    for what, function in (("streaming, tower", streaming_process), ("SVD, one head", svd_process)):
        megabytes = []
        for n in sizes.memory_images:
            answer = in_fresh_process(function, n=n, layers=sizes.layers, heads=sizes.heads, dim=sizes.dim)
            megabytes.append((answer["peak_rss_bytes"] - answer["base_rss_bytes"]) / 2**20)
            details[f"{what}, {n} images"] = answer
            rows.append(
                Row(f"{what}: memory at {n} images", megabytes[-1], "MiB", note="peak resident, without interpreter")
            )
        if len(megabytes) > 1:
            grown[what] = exponent(sizes.memory_images, megabytes)
            rows.append(
                Row(
                    f"{what}: exponent of the memory in the number of images",
                    grown[what],
                    aim="0" if "str" in what else "",
                )
            )
    return rows, details


def streaming_process(n: int, layers: int, heads: int, dim: int) -> dict[str, Any]:
    """Stream n images, each batch drawn when it is needed."""
    maps = random_maps(layers=layers, heads=heads, dim=dim)
    moments = Moments.empty(maps)
    for start in range(0, n, _BATCH):
        moments.update(random_coordinates(maps, min(_BATCH, n - start), seed=start))
    spectra = moments.spectra(maps, source="benchmark")
    return {"images": spectra.n_samples, "held_bytes": moments.nbytes}


def svd_process(n: int, layers: int, heads: int, dim: int) -> dict[str, Any]:
    """SVD of one head on n images; only its contributions are held."""
    maps = random_maps(layers=1, heads=1, dim=dim)
    svd(random_coordinates(heads_only(maps), n), heads_only(maps), maps.units.get("L0.H0"))
    return {"images": n}


def _sum(seconds: Any, head_factor: float, mlp_factor: float) -> tuple[float, ...]:
    pairs = zip(seconds["SVD, heads"], seconds["SVD, MLPs"], strict=True)
    return tuple(a * head_factor + b * mlp_factor for a, b in pairs)


def _difference(spectra: Spectra, coordinates: Coordinates, maps: UnitMaps, unit: Unit) -> float:
    ours = spectra[unit].explained_variance
    theirs = svd(coordinates, maps, unit)[1][: len(ours)].double()
    return float(((ours - theirs).abs() / ours[0]).max())
