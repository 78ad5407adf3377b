"""What tracing costs: a traced forward pass, with and without moments, compared with a plain one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from benchmarks.harness import Result, Row, interleave, ratio_rows
from benchmarks.machine import matrix_rate
from benchmarks.towers import forward_flops, vit_b32
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.spectrum.moments import Moments

__all__ = ["Sizes", "run"]


@dataclass(frozen=True)
class Sizes:
    """calls: batches per round; 8 batches of 32 fill the buffer of the moments once, so every round empties it once.

    library: transformers, or open_clip, whose attention is replaced during the trace.
    """

    batch: int = 32
    layers: int = 12
    image_size: int = 224
    rounds: int = 15
    calls: int = 8
    library: str = "transformers"


def run(sizes: Sizes) -> Result:
    """Time all three on the same pixels."""
    tower = vit_b32(sizes.layers, sizes.image_size, sizes.library)
    pixels = torch.randn(sizes.batch, 3, sizes.image_size, sizes.image_size, generator=torch.Generator().manual_seed(0))
    moments = Moments.empty(unit_maps(tower))

    def plain() -> None:
        with torch.no_grad():
            tower.forward(pixels)

    def traced() -> None:
        trace_coordinates(tower, pixels)

    def with_moments() -> None:
        moments.update(trace_coordinates(tower, pixels))

    # no untimed call of the moments: a round must start with an empty buffer
    plain()
    ways = {"plain": plain, "traced": traced, "traced with moments": with_moments}
    timings = interleave(ways, sizes.rounds, calls=sizes.calls, warmup=0)
    gflops = forward_flops(tower, sizes.image_size, patch=32) * sizes.batch * sizes.calls / 1e9
    best = matrix_rate(torch.float32)
    rate = gflops / timings.median("plain").value
    images = sizes.batch * sizes.calls
    products = 2 * len(tower.blocks) * (tower.n_heads * (tower.head_dim + 2) ** 2 + (tower.width + 1) ** 2) / 1e6
    share = 100 * products / 1e3 / (gflops / images)
    rows = [
        *(Row.of(f"{name}, per batch", timings.median(name).scaled(1e3 / sizes.calls), "ms") for name in ways),
        *ratio_rows("traced / plain", timings.ratio("traced", "plain"), "1.01", "published tracer: 1.17"),
        *ratio_rows("traced with moments / plain", timings.ratio("traced with moments", "plain"), "1.01"),
        Row("plain pass", images / timings.median("plain").value, "images/s"),
    ]
    return Result(
        "tracing",
        f"one forward pass of a random ViT-B/32 of {sizes.library}, batch {sizes.batch}, {sizes.rounds} rounds of "
        f"{sizes.calls} batches",
        asdict(sizes),
        rows,
        (
            f"The forward pass is limited by arithmetic: {gflops / images:.2f} GFLOP per image at {rate:.0f} GFLOP/s, "
            f"{100 * rate / best:.0f} % of the {best:.0f} GFLOP/s of a large float32 product here.",
            f"Moments add {products:.1f} MFLOP per image in float64, {share:.2f} % of the forward pass (double that in "
            "time, float64 being half as fast); tracing copies two rows per layer.",
        ),
        {"wall": dict(timings.wall), "cpu": dict(timings.cpu)},
    )
