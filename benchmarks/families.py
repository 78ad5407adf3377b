"""What tracing costs in towers of every pooling and size: time and peak memory, compared with a plain pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks import towers
from benchmarks.fresh import in_fresh_process
from benchmarks.harness import Result, Row, interleave, median_interval, ratio_rows
from residualign.decomposition.trace import trace_coordinates

__all__ = ["Sizes", "run"]


@dataclass(frozen=True)
class Sizes:
    """batch: images per timed call; a quarter of that for large towers. memory_batch: images per call where memory is
    measured, memory_runs times each, every time in a new process.
    """

    families: tuple[str, ...] = towers.TOWERS
    batch: int = 8
    rounds: int = 21
    image_size: int = 224
    layers: int = 0
    memory_batch: int = 16
    memory_runs: int = 3


def run(sizes: Sizes) -> Result:
    """Time and memory of each tower, plain and traced."""
    rows, details = [], {}
    for name in sizes.families:
        batch = max(1, sizes.batch // 4) if "-l" in name else sizes.batch
        ways = _ways(name, sizes.layers, sizes.image_size, batch)
        timings = interleave(ways, sizes.rounds)
        aim = "1.15" if name.startswith(("siglip", "coca")) else "1.02"
        rows.append(Row.of(f"{name}: plain, batch {batch}", timings.median("plain").scaled(1e3), "ms"))
        rows += ratio_rows(f"{name}: traced / plain", timings.ratio("traced", "plain"), aim)
        peaks = {way: [_peak(name, way, sizes) for _ in range(sizes.memory_runs)] for way in ways}
        rows += [
            Row.of(f"{name}: peak memory, {way}, batch {sizes.memory_batch}", median_interval(found), "MiB")
            for way, found in peaks.items()
        ]
        details[name] = {"wall": dict(timings.wall), "cpu": dict(timings.cpu), "peaks": peaks}
    return Result(
        "families",
        f"one traced forward pass compared with a plain one, {sizes.rounds} rounds, random weights",
        asdict(sizes),
        rows,
        (
            "For a class token, or a mean before the norm, one row per layer is kept; if every token is normed before "
            "it is pooled, all tokens of all layers are held until the end of the pass: 2 x layer x token x width "
            "numbers per image, and the fixed products of the pooling once.",
        ),
        details,
    )


def _peak(name: str, way: str, sizes: Sizes) -> float:
    """Peak memory of a new process, in MiB."""
    found = in_fresh_process(
        peak, name=name, way=way, layers=sizes.layers, image_size=sizes.image_size, batch=sizes.memory_batch
    )
    return float(found["peak_rss_bytes"]) / 2**20


def _ways(name: str, layers: int, image_size: int, batch: int) -> dict[str, Callable[[], Any]]:
    tower = towers.tower(name, layers or None, image_size)
    pixels = torch.randn(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))

    def plain() -> None:
        with torch.no_grad():
            tower.forward(pixels)

    return {"plain": plain, "traced": lambda: trace_coordinates(tower, pixels)}


def peak(name: str, way: str, layers: int, image_size: int, batch: int) -> dict[str, Any]:
    """Run one alternative twice in this process; the caller reads the peak."""
    ways = _ways(name, layers, image_size, batch)
    for _ in range(2):
        ways[way]()
    return {"way": way}
