"""Handwriting: jittered skeletons drawn as distance fields, one batch at a time."""

from functools import lru_cache

import torch
from torch import Tensor

from recipes.mini.rng import Rng
from recipes.mini.skeletons import DIGIT_SKELETONS, LETTER_SKELETONS, Variant

N_POINTS = 64  # points per character; about one per pixel of stroke at 32 px
MAX_CONTROL = 20
CHARACTERS = tuple(DIGIT_SKELETONS) + tuple(LETTER_SKELETONS)


def _curve(control: Tensor, n: int) -> Tensor:
    """(n, control) weights of a Catmull-Rom curve: points on the curve = weights @ control."""
    m = control.shape[0]
    t = torch.linspace(0, m - 1, n)
    k = t.floor().clamp(max=m - 2).long()
    u = t - k
    basis = (
        torch.stack([-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3], dim=1) / 2
    )
    weights = torch.zeros(n, m)
    for offset in range(4):
        index = (k - 1 + offset).clamp(0, m - 1)
        weights.scatter_add_(1, index[:, None], basis[:, offset : offset + 1])
    return weights


def _compile(variant: Variant) -> tuple[Tensor, Tensor]:
    """One variant as (MAX_CONTROL, 2) control points and (N_POINTS, MAX_CONTROL) curve weights."""
    strokes = [torch.tensor(stroke) for stroke in variant]
    lengths = torch.stack([(s[1:] - s[:-1]).norm(dim=1).sum() for s in strokes])
    counts = (lengths / lengths.sum() * N_POINTS).floor().long().clamp(min=4)
    counts[int(lengths.argmax())] += N_POINTS - int(counts.sum())
    weights = torch.zeros(N_POINTS, MAX_CONTROL)
    control = torch.zeros(MAX_CONTROL, 2)
    row = column = 0
    for stroke, n in zip(strokes, counts.tolist(), strict=True):
        weights[row : row + n, column : column + len(stroke)] = _curve(stroke, n)
        control[column : column + len(stroke)] = stroke
        row, column = row + n, column + len(stroke)
    return control, weights


@lru_cache(maxsize=1)
def skeleton_bank() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All variants: control (v, MAX_CONTROL, 2), weights (v, N_POINTS, MAX_CONTROL), first variant and number of
    variants of each character of `CHARACTERS`.
    """
    control: list[Tensor] = []
    weights: list[Tensor] = []
    first: list[int] = []
    number: list[int] = []
    for skeletons in (DIGIT_SKELETONS, LETTER_SKELETONS):
        for variants in skeletons.values():
            first.append(len(control))
            number.append(len(variants))
            for variant in variants:
                c, w = _compile(variant)
                control.append(c)
                weights.append(w)
    return torch.stack(control), torch.stack(weights), torch.tensor(first), torch.tensor(number)


def write(rng: Rng, characters: Tensor, shear: Tensor, rotation: Tensor, wave: Tensor) -> Tensor:
    """Write characters by hand.

    characters: (n,) indices into `CHARACTERS`; shear: (n,) x shift per unit of height; rotation: (n,) radians;
    wave: (n,) amplitude of a smooth distortion, 0 for none. Returns (n, N_POINTS, 2) points (x, y), centered, with the
    longer side spanning [-1, 1].
    """
    control, weights, first, number = skeleton_bank()
    n = characters.shape[0]
    variant = first[characters] + (rng.uniform(n) * number[characters]).long()
    c = control[variant]
    # Corners are double points: both get the same jitter, or they would become small hooks.
    jitter = rng.normal(n, MAX_CONTROL, 2) * rng.uniform(n, 1, 1, low=0.005, high=0.055)
    double = torch.zeros(n, MAX_CONTROL, dtype=torch.bool)
    double[:, 1:] = (c[:, 1:] == c[:, :-1]).all(-1)
    jitter = torch.where(double[..., None], jitter.roll(1, dims=1), jitter)
    points = weights[variant] @ (c + jitter) - 0.5
    aspect = rng.uniform(n, 1, low=0.5, high=1.0) * rng.uniform(n, 1, low=0.85, high=1.25)
    points = torch.stack([points[..., 0] * aspect, points[..., 1]], dim=-1)
    for _ in range(2):
        frequency = rng.normal(n, 2, 1, std=3.0)
        phase = rng.uniform(n, 1, high=6.2832)
        direction = rng.normal(n, 1, 2, std=0.7)
        points = points + wave[:, None, None] * direction * torch.sin((points @ frequency)[..., 0] + phase)[..., None]
    x = points[..., 0] - shear[:, None] * points[..., 1]
    cos, sin = rotation.cos()[:, None], rotation.sin()[:, None]
    points = torch.stack([cos * x - sin * points[..., 1], sin * x + cos * points[..., 1]], dim=-1)
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    extent = (high - low).amax(-1, keepdim=True).clamp(min=1e-3)
    return (points - (low + high) / 2) * 2 / extent


def distance(points: Tensor, size: int, chunk: int = 64) -> Tensor:
    """Distance of each pixel center to the nearest stroke point, in pixels.

    points: (n, N_POINTS, 2) in image coordinates, [-1, 1] from edge to edge. Returns (n, size, size).
    """
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    pixels = torch.stack([axis.repeat(size), axis.repeat_interleave(size)], dim=1)
    squared_pixels = pixels.square().sum(1)
    out = torch.empty(points.shape[0], size * size)
    for start in range(0, points.shape[0], chunk):
        p = points[start : start + chunk]
        # |a|^2 - 2ab + |b|^2 by one batched product; cancellation of 1e-6 is far below a pixel
        d = torch.baddbmm(p.square().sum(-1)[:, :, None], p, pixels.T.expand(p.shape[0], -1, -1), alpha=-2)
        out[start : start + chunk] = d.amin(1)
    return (out + squared_pixels).clamp(min=0).sqrt().view(-1, size, size) * (size / 2)
