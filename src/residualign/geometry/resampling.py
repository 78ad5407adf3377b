"""Half-samples drawn without replacement: intervals, layer profiles, and tests of a profile against chance.

A bootstrap sample holds images twice, which are their own nearest neighbors at distance zero: a true dimension of 8
reads 11 to 12. Halves without replacement have no such ties. For an estimate whose error falls as 1 / sqrt(images), the
spread of halves about the whole is that of the whole about the truth: sigma^2 (2 / n - 1 / n) = sigma^2 / n, so that
nothing is rescaled (Politis and Romano 1994, with the correction for a finite sample).

The images vary from half to half, the model's layers and heads do not: an interval speaks of other images of the kind,
not of other models.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from residualign.geometry.result import Hunchback, LayerProfile, Trend

__all__ = ["CONFIDENCE", "deviation_interval", "draw_halves", "hunchback", "layer_profile", "percentiles", "trend"]

CONFIDENCE = 0.95

_MIN_LAYERS = 3


def draw_halves(n_images: int, count: int, seed: int) -> list[Int[Tensor, " member"]]:
    """`count` halves of the images, in pairs that share no image: the first and the rest of one shuffle.

    count: even, or 0 for none. With an odd number of images the last of a shuffle is in neither half. Row numbers are
    in ascending order.
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

    From their own mean, not from the estimate: half as many points are farther apart, and where an estimate depends
    on scale all halves are shifted. Never without the estimate: where a few halves are so far off that their mean is
    outside the central 95 %, the interval reaches to the estimate. NaN where the estimate or more than 5 % of the
    halves is NaN.
    """
    low, high = percentiles(halves)
    center = float(halves.nanmean()) if len(halves) else float("nan")
    if math.isnan(low) or math.isnan(estimate):
        return math.nan, math.nan
    return min(estimate, estimate - (high - center)), max(estimate, estimate - (low - center))


def percentiles(halves: Float[Tensor, " half"]) -> tuple[float, float]:
    """The central 95 % of the values themselves; NaN where there are none, or where more than 5 % are NaN."""
    there = halves[~halves.isnan()]
    if len(there) < max(CONFIDENCE * len(halves), 1):
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = torch.quantile(there.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def layer_profile(
    quantity: str,
    kind: str,
    layers: tuple[int, ...],
    values: Float[Tensor, " unit"],
    halves: Float[Tensor, "half unit"],
) -> LayerProfile:
    """The profile of a figure.

    layers: of each unit. values: over all images. halves: over each half, those that share no image side by side.
    """
    different = tuple(sorted(set(layers)))
    members = [torch.tensor([layer == one for one in layers]) for layer in different]
    values, halves = values.double(), halves.double()
    mean = torch.stack([values[there].nanmean() for there in members])
    of_halves = torch.stack([halves[:, there].nanmean(dim=1) for there in members], dim=1)
    known = [values[there][~values[there].isnan()] for there in members]
    spread = [float(part.std(correction=0)) if len(part) else math.nan for part in known]
    intervals = tuple(deviation_interval(float(m), of_halves[:, i]) for i, m in enumerate(mean))
    complete = len(different) >= _MIN_LAYERS and not bool(mean.isnan().any())
    return LayerProfile(
        quantity,
        kind,
        different,
        tuple(mean.tolist()),
        tuple(spread),
        intervals,
        hunchback(different, mean, of_halves) if complete else None,
        trend(different, mean, of_halves) if complete else None,
    )


def hunchback(
    layers: tuple[int, ...], profile: Float[Tensor, " layer"], halves: Float[Tensor, "half layer"]
) -> Hunchback:
    """The hunchback test of a profile of three or more layers. halves: in pairs that share no image.

    Halves with a nan are left out, together with the other of the pair.
    """
    last = len(layers) - 1
    top = int(profile.argmax())
    rise, fall = float(profile[top] - profile[0]), float(profile[top] - profile[last])
    pairs = halves[: len(halves) // 2 * 2].view(-1, 2, len(layers))
    pairs = pairs[~pairs.isnan().any(dim=(1, 2))]
    tops = pairs.argmax(dim=2)
    # the peak of each half, read in the other half
    elsewhere = pairs.flip(1).gather(2, tops.unsqueeze(2)).squeeze(2)
    rises, falls = (elsewhere - pairs.flip(1)[:, :, end] for end in (0, last))
    rises, falls = rises.flatten(), falls.flatten()
    rise_interval, fall_interval = deviation_interval(rise, rises), deviation_interval(fall, falls)
    # the maximum was chosen for being large, and with it the middle of the intervals; where it was not chosen, in the
    # other halves, rise and fall have to be there as well
    everywhere = [*rise_interval[:1], *fall_interval[:1], percentiles(rises)[0], percentiles(falls)[0]]
    own = pairs.amax(dim=2)
    inside = (tops > 0) & (tops < last) & (own > pairs[:, :, 0]) & (own > pairs[:, :, last])
    return Hunchback(
        peak=layers[top],
        position=top / last,
        rise=rise,
        fall=fall,
        position_interval=percentiles(tops.flatten() / last),
        rise_interval=rise_interval,
        fall_interval=fall_interval,
        share_inside=float(inside.double().mean()),
        holds=0 < top < last and all(low > 0 for low in everywhere),
    )


def trend(layers: tuple[int, ...], profile: Float[Tensor, " layer"], halves: Float[Tensor, "half layer"]) -> Trend:
    """The rank correlation of layer and value, of the whole and over halves; halves with a nan are left out."""
    there = halves[~halves.isnan().any(dim=1)]
    moved = there - there.mean(dim=0) + profile if len(there) else there
    correlations = torch.tensor([_spearman(layers, half) for half in moved], dtype=torch.float64)
    whole = _spearman(layers, profile)
    low, high = deviation_interval(whole, correlations)
    interval = max(low, -1.0) if low == low else low, min(high, 1.0) if high == high else high
    growing = float((correlations > 0).double().mean())
    # halves are noisier than the whole, so their correlations are nearer to zero: they have to be above it themselves
    return Trend(whole, interval, growing, interval[0] > 0 and percentiles(correlations)[0] > 0)


def _spearman(layers: tuple[int, ...], values: Tensor) -> float:
    if float(values.max()) == float(values.min()):
        return math.nan
    return float(spearmanr(layers, values.numpy()).statistic)
