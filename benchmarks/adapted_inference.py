"""What an adapter costs at inference: adapted embeddings compared with a plain forward pass of the frozen model."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from benchmarks.harness import Result, Row, interleave, ratio_rows
from benchmarks.machine import matrix_rate
from benchmarks.towers import forward_flops, vit_b32
from residualign.adapter.fold import FoldedMap
from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.trace import trace_coordinates
from residualign.models.tower import Tower

__all__ = ["Sizes", "run"]


@dataclass(frozen=True)
class Sizes:
    """calls: batches per round, for each alternative."""

    batch: int = 32
    layers: int = 12
    image_size: int = 224
    rounds: int = 15
    calls: int = 3


def run(sizes: Sizes) -> Result:
    """Time plain, traced and adapted forward passes on the same pixels, and the product alone."""
    tower = vit_b32(sizes.layers, sizes.image_size)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(sizes.batch, 3, sizes.image_size, sizes.image_size, generator=generator)
    full, heads_only = _random_map(tower, mlps=True), _random_map(tower, mlps=False)
    joined = _joined(full)
    coordinates = trace_coordinates(tower, pixels)
    torch.testing.assert_close(_one_buffer(coordinates, full, joined), full(coordinates), rtol=1e-3, atol=1e-3)

    def plain() -> None:
        with torch.no_grad():
            tower.forward(pixels)

    def traced() -> Coordinates:
        return trace_coordinates(tower, pixels)

    passes = {
        "plain": plain,
        "traced": traced,
        "residual": lambda: full(traced()),
        "residual-heads": lambda: heads_only(traced()),
    }
    timings = interleave(passes, sizes.rounds, calls=sizes.calls)
    products = {
        "products": lambda: full(coordinates),
        "one buffer": lambda: _one_buffer(coordinates, full, joined),
    }
    alone = interleave(products, sizes.rounds, calls=10 * sizes.calls)
    gflops = forward_flops(tower, sizes.image_size, patch=32) * sizes.batch / 1e9
    product = 2 * joined.numel() * sizes.batch / 1e9
    rate = gflops * sizes.calls / timings.median("plain").value
    rows = [
        *(Row.of(f"{name}, per batch", timings.median(name).scaled(1e3 / sizes.calls), "ms") for name in passes),
        *ratio_rows("residual / plain", timings.ratio("residual", "plain"), "1.01"),
        *ratio_rows("residual-heads / plain", timings.ratio("residual-heads", "plain"), "1.01"),
        *ratio_rows("traced / plain", timings.ratio("traced", "plain")),
        *(Row.of(f"{name} alone", alone.median(name).scaled(1e2 / sizes.calls), "ms") for name in products),
        *ratio_rows("one buffer / one product per kind", alone.ratio("one buffer", "products")),
    ]
    return Result(
        "adapted_inference",
        f"adapted embeddings of a random ViT-B/32, batch {sizes.batch}, {sizes.rounds} rounds of {sizes.calls} batches",
        asdict(sizes),
        rows,
        (
            f"The product is {100 * product / gflops:.2f} % of the forward pass in operations ({product:.2f} of "
            f"{gflops:.0f} GFLOP per batch); its matrix of {joined.numel() * 4 / 1e6:.0f} MB is read once per batch, "
            "so larger batches cost less per image.",
            f"The plain pass reaches {rate:.0f} GFLOP/s, {100 * rate / matrix_rate(torch.float32):.0f} % of a large "
            "float32 product here; the rest of the difference is two copied rows per layer.",
        ),
        {"wall": {**timings.wall, **alone.wall}, "cpu": {**timings.cpu, **alone.cpu}},
    )


def _random_map(tower: Tower, *, mlps: bool) -> FoldedMap:
    """A folded map of a method that scales heads, or heads and MLPs; random numbers take as long as fitted ones."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / tower.width

    layers, dim = len(tower.blocks), tower.dim
    return FoldedMap(
        bias=normal(dim),
        adds_output=mlps,
        heads=normal(layers, tower.n_heads, tower.head_dim, dim),
        mlps=normal(layers, tower.width, dim) if mlps else None,
        scalars=normal(2, dim),
    )


def _joined(folded: FoldedMap) -> Tensor:
    """All rows of a map as one matrix."""
    assert folded.heads is not None
    assert folded.mlps is not None
    assert folded.scalars is not None
    return torch.cat([folded.heads.flatten(0, 2), folded.mlps.flatten(0, 1), folded.scalars])


def _one_buffer(coordinates: Coordinates, folded: FoldedMap, joined: Tensor) -> Tensor:
    """The same with all coordinates joined first: the alternative that is not used."""
    parts = [coordinates.heads.flatten(1), coordinates.mlps.flatten(1), coordinates.embedding_coordinates()]
    return torch.addmm(folded.bias + coordinates.output, torch.cat(parts, dim=1), joined)
