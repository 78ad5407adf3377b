"""Half samples drawn without replacement, and intervals from how an estimate varies over them.

A bootstrap sample holds images twice, which are their own nearest neighbours at distance zero: a true dimension of 8
reads 11 to 12. Halves without replacement have no such ties. For an estimate whose error falls as 1 / sqrt(images), the
spread of halves about the whole is that of the whole about the truth: sigma^2 (2 / n - 1 / n) = sigma^2 / n, so that
nothing is rescaled (Politis and Romano 1994, with the correction for a finite sample).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["CONFIDENCE", "deviation_interval", "draw_halves", "percentiles"]

CONFIDENCE = 0.95


def draw_halves(n_images: int, count: int, seed: int) -> list[Int[Tensor, " member"]]:
    """`count` halves of the images, in pairs that share no image: the first and the rest of one shuffle.

    count: even, or 0 for none. Of an odd number of images the last of a shuffle is in
    neither half. Row numbers are in ascending order. seed: decides all of them.
    """
    assert count >= 0
    assert count % 2 == 0
    generator = torch.Generator().manual_seed(seed)
    halves = []
    for _ in range(count // 2):
        shuffled = torch.randperm(n_images, generator=generator)
        size = n_images // 2
        halves += [shuffled[:size].sort().values, shuffled[size : 2 * size].sort().values]
    return halves


def deviation_interval(estimate: float, halves: Float[Tensor, " half"]) -> tuple[float, float]:
    """95 % interval: the estimate less the central 95 % of the halves' deviations from their own mean.

    From their own mean, not from the estimate: half the points lie farther apart, and where an estimate depends on
    scale its halves are all shifted. nan where the estimate, or more than a twentieth of the halves, is none.
    """
    low, high = percentiles(halves)
    centre = float(halves.nanmean()) if len(halves) else float("nan")
    return estimate - (high - centre), estimate - (low - centre)


def percentiles(halves: Float[Tensor, " half"]) -> tuple[float, float]:
    """The central 95 % of the values themselves; nan where there are none, or more than a twentieth are nan."""
    there = halves[~halves.isnan()]
    if len(there) < max(CONFIDENCE * len(halves), 1):
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = torch.quantile(there.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
