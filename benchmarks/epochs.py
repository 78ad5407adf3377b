"""One epoch with the encoder in the loop, as published, compared with one epoch on cached coefficients."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from benchmarks.encoder_loop import EncoderLoop
from benchmarks.harness import Result, Row, interleave, ratio_rows
from benchmarks.machine import matrix_rate
from benchmarks.towers import forward_flops, random_coordinates, vit_b32
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.fitting.coefficients import ScaledUnit, Scaling, build_features
from residualign.fitting.methods import build_scaling, get_method, start_parameters
from residualign.fitting.objective import Objective
from residualign.fitting.solvers import ScheduleFree
from residualign.models.tower import Tower
from residualign.spectrum import Moments, Spectra

__all__ = ["Sizes", "run"]

_RATE = 0.8
_LOGIT_SCALE = 100.0
_AIMS = {"residual-heads": "500", "residual": "200"}


@dataclass(frozen=True)
class Sizes:
    """images: per epoch. The loop is timed for one batch per round, times the number of batches per epoch."""

    images: int = 2000
    batch: int = 64
    classes: int = 10
    layers: int = 12
    image_size: int = 224
    spectrum_images: int = 2000
    rounds: int = 9


def run(sizes: Sizes) -> Result:
    """Time both ways for both methods, on a random ViT-B/32 and Gaussian coordinates of its size."""
    tower = vit_b32(sizes.layers, sizes.image_size)
    maps = unit_maps(tower)
    spectra = random_spectra(maps, sizes.spectrum_images)
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(sizes.classes, maps.dim, generator=generator), dim=-1)
    pixels = torch.randn(sizes.batch, 3, sizes.image_size, sizes.image_size, generator=generator)
    labels = torch.randint(sizes.classes, (sizes.images,), generator=generator)
    cached = random_coordinates(maps, sizes.images)
    rows: list[Row] = []
    limits: list[str] = []
    details: dict[str, Any] = {}
    for method in _AIMS:
        scaling = single(build_scaling(get_method(method), spectra))
        loop = EncoderLoop.start(tower, maps, scaling, vectors, _LOGIT_SCALE, _RATE)
        part = _compare(method, sizes, loop, cached, pixels, labels)
        rows += part[0]
        limits += part[1]
        details[method] = part[2]
    return Result(
        "epochs",
        f"one epoch of {sizes.images} images, batch {sizes.batch}, random ViT-B/32, {sizes.rounds} rounds",
        asdict(sizes),
        rows,
        limits,
        details,
    )


def random_spectra(maps: UnitMaps, n_images: int) -> Spectra:
    """Spectra of Gaussian coordinates: full rank; in heads the variances decay as in real ones."""
    moments = Moments.empty(maps)
    for start in range(0, n_images, 256):
        moments.update(random_coordinates(maps, min(256, n_images - start), seed=start))
    return moments.spectra(maps, source="Gaussian coordinates")


def single(scaling: Scaling) -> Scaling:
    """The scaling in float32, which the published loop uses."""
    units = tuple(
        ScaledUnit(unit.label, unit.mean.float(), None if unit.components is None else unit.components.float())
        for unit in scaling.units
    )
    return replace(scaling, units=units, rest_mean=scaling.rest_mean.float())


def objective(loop: EncoderLoop, coordinates: Coordinates, labels: Tensor) -> Objective:
    """The package's objective on cached coefficients, for the same scaling and classes."""
    features = build_features(coordinates, loop.maps, loop.scaling, loop.maps.heads.dtype)
    return Objective(features, labels, loop.class_vectors, loop.logit_scale)


def disagreement(loop: EncoderLoop, tower: Tower, pixels: Tensor, labels: Tensor) -> float:
    """Largest relative difference between the adapted embeddings of the two, both at the loop's current lambdas."""
    with torch.no_grad():
        coordinates = trace_coordinates(tower, pixels)
        values = torch.stack([loop.maps.contribution(coordinates, unit) for unit in loop.maps.units], dim=1)
        theirs = loop.adapted(values)
        ours = objective(loop, coordinates, labels).features.adapted(loop.lambdas, slice(None))
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _compare(
    method: str, sizes: Sizes, loop: EncoderLoop, cached: Coordinates, pixels: Tensor, labels: Tensor
) -> tuple[list[Row], list[str], dict[str, Any]]:
    few = labels[: sizes.batch]
    train = objective(loop, cached, labels)
    # the solver validates after each epoch, the loop does not: one batch, and it counts against us
    val = objective(loop, cached[: sizes.batch], few)
    start = start_parameters(get_method(method), loop.scaling, sizes.classes, loop.maps.dim)
    start = {name: value.to(train.class_vectors) for name, value in start.items()}
    solver = ScheduleFree(learning_rate=_RATE, batch_size=sizes.batch, max_epochs=1)
    ways = {
        "encoder in the loop": lambda: loop.step(pixels, few),
        "cached": lambda: solver.solve(train, val, start),
    }
    timings = interleave(ways, sizes.rounds)
    n_batches = sizes.images / sizes.batch
    ratio = timings.ratio("encoder in the loop", "cached").scaled(n_batches)
    n_features = train.features.weight.shape[0]
    seconds = timings.median("cached")
    flops = 4 * n_features * loop.maps.dim
    encoder = forward_flops(loop.tower, sizes.image_size, patch=32)
    steps = math.ceil(n_batches)
    traffic = steps * 2 * n_features * loop.maps.dim * 4 + sizes.images * n_features * 4 * 6
    rows = [
        Row.of(
            f"{method}: epoch, encoder in the loop",
            timings.median("encoder in the loop").scaled(n_batches),
            "s",
            note=f"one batch x {n_batches:g}",
        ),
        Row.of(f"{method}: epoch, cached", seconds, "s", note=f"{n_features} lambdas, one validation included"),
        *ratio_rows(f"{method}: loop / cached", ratio, _AIMS[method]),
        Row(
            f"{method}: difference between the two",
            disagreement(loop, loop.tower, pixels, few),
            note="relative, float32",
        ),
    ]
    rate = flops * sizes.images / seconds.value / 1e9
    limits = [
        f"{method}: two products of image x lambda x dim, {flops / 1e6:.1f} MFLOP per image against the encoder's "
        f"{encoder / 1e6:.0f}: at equal speed {encoder / flops:.0f} x. Cached epochs reach {rate:.0f} GFLOP/s of the "
        f"{matrix_rate(torch.float32):.0f} of a large product, and move about {traffic / 1e9:.1f} GB."
    ]
    return rows, limits, {"wall": dict(timings.wall), "cpu": dict(timings.cpu), "lambdas": n_features}
