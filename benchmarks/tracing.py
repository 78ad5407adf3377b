"""(a) What tracing costs: a traced forward pass beside a plain one, with and without taking moments."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.harness import Result, Row, interleave, median_interval, ratio_rows
from benchmarks.machine import matrix_rate
from benchmarks.towers import forward_flops, vit_b32
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.models.tower import Block, Tower
from residualign.spectrum.moments import Moments

__all__ = ["Sizes", "run"]


@dataclass(frozen=True)
class Sizes:
    """calls: batches a round; 8 of 32 fill the buffer of the moments once, so that its emptying is in every round."""

    batch: int = 32
    layers: int = 12
    image_size: int = 224
    rounds: int = 15
    calls: int = 8


def run(sizes: Sizes) -> Result:
    """Time the three ways on the same pixels."""
    tower = vit_b32(sizes.layers, sizes.image_size)
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
    ways = {"plain": plain, "traced": traced, "traced, moments": with_moments}
    timings = interleave(ways, sizes.rounds, calls=sizes.calls, warmup=0)
    gflops = forward_flops(tower, sizes.image_size, patch=32) * sizes.batch * sizes.calls / 1e9
    best = matrix_rate(torch.float32)
    rate = gflops / timings.median("plain").value
    images = sizes.batch * sizes.calls
    empty, tokens = hollow(tower), (sizes.image_size // 32) ** 2 + 1
    stream = torch.randn(sizes.batch, tokens, tower.width, generator=torch.Generator().manual_seed(1))
    coordinates = trace_coordinates(tower, pixels)
    alone = interleave(
        {
            "hollow": lambda: empty.forward(stream),
            "hollow, traced": lambda: trace_coordinates(empty, stream),
            "moments": lambda: moments.update(coordinates),
        },
        sizes.rounds,
        calls=sizes.calls,
    )
    tracing_seconds = [a - b for a, b in zip(alone.wall["hollow, traced"], alone.wall["hollow"], strict=True)]
    tracing, taking = median_interval(tracing_seconds), alone.median("moments")
    plain_seconds = timings.median("plain").value
    products = 2 * len(tower.blocks) * (tower.n_heads * (tower.head_dim + 2) ** 2 + (tower.width + 1) ** 2) / 1e6
    share = 100 * products / 1e3 / (gflops / images)
    rows = [
        *(Row.of(f"{name}, a batch", timings.median(name).scaled(1e3 / sizes.calls), "ms") for name in ways),
        Row.of(
            "tracing alone, a batch", tracing.scaled(1e3 / sizes.calls), "ms", note="the same hooks on an empty tower"
        ),
        Row.of("moments alone, a batch", taking.scaled(1e3 / sizes.calls), "ms"),
        Row("(plain + tracing alone) / plain", 1 + tracing.value / plain_seconds, "x", aim="1.01"),
        Row(
            "(plain + tracing + moments alone) / plain",
            1 + (tracing.value + taking.value) / plain_seconds,
            "x",
            aim="1.01",
        ),
        *ratio_rows("traced / plain", timings.ratio("traced", "plain"), "1.01", "published tracer: 1.17"),
        *ratio_rows("traced with moments / plain", timings.ratio("traced, moments", "plain"), "1.01"),
        Row("plain pass", images / timings.median("plain").value, "images/s"),
    ]
    return Result(
        "tracing",
        f"one forward pass of a random ViT-B/32, batch {sizes.batch}, {sizes.rounds} rounds of {sizes.calls} batches",
        asdict(sizes),
        rows,
        (
            f"The forward pass is arithmetic: {gflops / images:.2f} GFLOP an image, {rate:.0f} GFLOP/s reached, "
            f"{100 * rate / best:.0f} % of the {best:.0f} GFLOP/s of a large float32 product here.",
            f"Moments add {products:.1f} MFLOP an image in float64, {share:.2f} % of the forward pass (double that in "
            "time, float64 being half as fast); tracing copies two rows a layer.",
        ),
        {"wall": {**timings.wall, **alone.wall}, "cpu": {**timings.cpu, **alone.cpu}},
    )


class _Through(nn.Linear):
    """A projection that does nothing but be hooked."""

    def forward(self, values: Tensor) -> Tensor:
        return values


def hollow(tower: Tower) -> Tower:
    """A tower with the same hooks to set and rows to copy, and no arithmetic: what is left is tracing."""
    width = tower.width
    blocks = tuple(Block(_Through(width, width, device="meta"), nn.Identity()) for _ in tower.blocks)

    def forward(stream: Tensor) -> Tensor:
        for block in blocks:
            block.mlp(block.out_proj(stream))
        return tower.final_norm(stream[:, tower.token])[:, : tower.dim]

    return replace(tower, forward=forward, blocks=blocks)
