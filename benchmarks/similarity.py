"""All pairs of heads of a ViT-B by normalized spectral cosine: in batches, compared with a loop over pairs."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.fresh import in_fresh_process
from benchmarks.harness import Result, Row, interleave, ratio_rows
from benchmarks.spectra import heads_only, streamed
from benchmarks.towers import random_coordinates, random_maps
from residualign.similarity import compare_heads
from residualign.spectrum import Spectra, Spectrum, truncate

__all__ = ["Sizes", "run"]

_THRESHOLD = 0.9

# for the runs that measure memory: making spectra must not need more memory than comparing them
_FEW_IMAGES = 80


@dataclass(frozen=True)
class Sizes:
    """loop_pairs: number of pairs that the loop is timed on; its time is extrapolated to all pairs."""

    images: int = 2000
    layers: int = 12
    heads: int = 12
    dim: int = 512
    loop_pairs: int = 288
    rounds: int = 7


def run(sizes: Sizes) -> Result:
    """Time both on the spectra of random heads that decay like those of a real tower; memory in fresh processes."""
    a, b = (head_spectra(sizes.images, sizes.layers, sizes.heads, sizes.dim, seed) for seed in (0, 1))
    heads = [unit.label for unit in a.units.of_kind("head")]
    n_pairs = len(heads) ** 2
    # pairs of every layer with every layer, drawn evenly
    step = max(1, n_pairs // sizes.loop_pairs)
    sample = [(heads[k // len(heads)], heads[k % len(heads)]) for k in range(0, n_pairs, step)]
    ways = {
        "batched": lambda: compare_heads(a, b, variance_threshold=_THRESHOLD),
        "batched, optimal": lambda: compare_heads(a, b, variance_threshold=_THRESHOLD, matching="optimal"),
        "loop": lambda: [both_cosines(a[row], b[column]) for row, column in sample],
    }
    timings = interleave(ways, sizes.rounds)
    factor = n_pairs / len(sample)
    difference = _difference(a, b, sample)
    counts = [truncate(a[label], _THRESHOLD).n_components for label in heads]
    few = {"images": _FEW_IMAGES, "layers": sizes.layers, "heads": sizes.heads, "dim": sizes.dim}
    before, memory = (in_fresh_process(function, **few) for function in (spectra_process, batched_process))
    cpu = {name: statistics.median(seconds) for name, seconds in timings.cpu.items()}
    rows = [
        Row.of(f"batched, {n_pairs:,} pairs", timings.median("batched"), "s", "seconds"),
        Row.of(
            f"loop, {n_pairs:,} pairs",
            timings.median("loop").scaled(factor),
            "s",
            note=f"{len(sample)} pairs x {factor:g}",
        ),
        *ratio_rows("loop / batched", timings.ratio("loop", "batched").scaled(factor)),
        Row("batched, CPU time", cpu["batched"], "s"),
        Row("loop, CPU time", cpu["loop"] * factor, "s"),
        Row.of("batched, optimal matching", timings.median("batched, optimal"), "s", note="scipy, pair by pair"),
        Row("difference of the values", difference, note="largest, both in float64"),
        Row(
            "memory of the comparison",
            (memory["peak_rss_bytes"] - before["peak_rss_bytes"]) / 2**20,
            "MiB",
            note="peak resident, beyond that of making the spectra",
        ),
    ]
    limits = (
        f"Heads have {min(counts)} to {max(counts)} components for {_THRESHOLD} of their variance; the product of all "
        f"with all is {2 * len(heads) ** 2 * max(counts) ** 2 * sizes.dim / 1e9:.1f} GFLOP of float64, the rest is "
        "reading the cosines once per match.",
        "Both give the weighted and the unweighted similarity of every pair; the loop forms the cosines once for both.",
    )
    return Result(
        "similarity",
        f"{len(heads)} x {len(heads)} heads of 64, dim {sizes.dim}, {sizes.rounds} rounds",
        asdict(sizes),
        rows,
        limits,
        {"wall": timings.wall, "cpu": timings.cpu, "components": counts, "memory": memory, "before": before},
    )


def head_spectra(images: int, layers: int, heads: int, dim: int, seed: int) -> Spectra:
    """Spectra of random heads of one tower, with MLPs of width one, on its own random images."""
    maps = random_maps(layers=layers, heads=heads, dim=dim)
    coordinates = random_coordinates(maps, images, seed=seed)
    return streamed(replace(coordinates, mlps=coordinates.mlps[:, :, :1]), heads_only(maps))


def both_cosines(x: Spectrum, y: Spectrum) -> tuple[float, float]:
    """The plain way: one pair, one match per step, each a pass over the whole matrix. Weighted, unweighted."""
    x, y = truncate(x, _THRESHOLD), truncate(y, _THRESHOLD)
    cosines = (x.components @ y.components.T).abs()
    weights = torch.outer(x.explained_variance, y.explained_variance)
    return picked(cosines * weights / weights.diagonal().norm()), picked(cosines / min(cosines.shape) ** 0.5)


def picked(matrix: Tensor) -> float:
    """Length of the vector of greedy picks."""
    picks = []
    for _ in range(min(matrix.shape)):
        of_rows, columns = matrix.max(dim=1)
        row = of_rows.argmax()
        picks.append(of_rows[row])
        column = columns[row]
        matrix[row] = -torch.inf
        matrix[:, column] = -torch.inf
    return float(torch.stack(picks).norm())


def batched_process(images: int, layers: int, heads: int, dim: int) -> dict[str, Any]:
    """Make the spectra and compare all pairs."""
    a, b = (head_spectra(images, layers, heads, dim, seed) for seed in (0, 1))
    return {"mean": float(compare_heads(a, b, variance_threshold=_THRESHOLD).weighted.mean())}


def spectra_process(images: int, layers: int, heads: int, dim: int) -> dict[str, Any]:
    """Make the spectra alone."""
    a, b = (head_spectra(images, layers, heads, dim, seed) for seed in (0, 1))
    return {"images": a.n_samples + b.n_samples}


def _difference(a: Spectra, b: Spectra, sample: list[tuple[str, str]]) -> float:
    pairs = compare_heads(a, b, variance_threshold=_THRESHOLD)
    rows = {unit.label: i for i, unit in enumerate(pairs.rows)}
    largest = 0.0
    for row, column in sample:
        weighted, unweighted = both_cosines(a[row], b[column])
        i, j = rows[row], rows[column]
        largest = max(
            largest, abs(float(pairs.weighted[i, j]) - weighted), abs(float(pairs.unweighted[i, j]) - unweighted)
        )
    return largest
