"""Layer profiles: how a figure of the heads (or MLPs) changes with depth, and whether that is more than chance.

The images vary from half to half, the model's layers and heads do not: an interval speaks of other images of the kind,
not of other models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from residualign.geometry.halves import deviation_interval, percentiles

__all__ = ["Hunchback", "LayerProfile", "Trend", "hunchback", "layer_profile", "trend"]

_MIN_LAYERS = 3

Interval = tuple[float, float]


@dataclass(frozen=True)
class Hunchback:
    """Whether a profile rises to a maximum strictly inside and falls again.

    peak: the layer of the maximum (the first, of equal ones); position: peak / (layers - 1), 0 at the first layer and 1
    at the last. rise, fall: the maximum less the first layer's and the last layer's value.

    A maximum is chosen because it is large, so rise and fall of a flat, noisy profile are positive as well. Hence
    rise_interval and fall_interval (95 %) are of halves in which the peak was *not* chosen: the layer is the maximum of
    one half, rise and fall are measured on the half that shares no image with it. position_interval: of the halves' own
    maxima. share_inside: the share of halves whose own maximum is strictly inside, with rise and fall above zero.

    holds: whether the maximum is strictly inside and both intervals lie above zero. nan and False without halves.
    """

    peak: int
    position: float
    rise: float
    fall: float
    position_interval: Interval
    rise_interval: Interval
    fall_interval: Interval
    share_inside: float
    holds: bool


@dataclass(frozen=True)
class Trend:
    """Whether a profile grows with depth: Spearman's rank correlation of layer and value, in [-1, 1].

    interval: the central 95 % over the halves, each with the profile moved, layer by layer, so that the mean of all
    halves is the profile of the whole: fewer images lie farther apart, and shift a dimension without its being chance.
    share_growing: the share of these in which the correlation is above zero. grows: whether the whole interval is.
    nan and False without halves; nan where all layers are equal.
    """

    spearman: float
    interval: Interval
    share_growing: float
    grows: bool


@dataclass(frozen=True)
class LayerProfile:
    """One figure by layer.

    quantity: the field of `UnitGeometry`. kind: "head" or "mlp". mean, spread: of the units of each layer in which the
    figure is known (spread: standard deviation over them, 0 for one), nan where it is in none. intervals: 95 %, of the
    mean, from the halves. hunchback, trend: None for fewer than three layers, or where a layer has no value.
    """

    quantity: str
    kind: str
    layers: tuple[int, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    intervals: tuple[Interval, ...]
    hunchback: Hunchback | None
    trend: Trend | None


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
    rise_interval, fall_interval = percentiles(rises.flatten()), percentiles(falls.flatten())
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
        holds=0 < top < last and rise_interval[0] > 0 and fall_interval[0] > 0,
    )


def trend(layers: tuple[int, ...], profile: Float[Tensor, " layer"], halves: Float[Tensor, "half layer"]) -> Trend:
    """The rank correlation of layer and value, of the whole and over halves; halves with a nan are left out."""
    there = halves[~halves.isnan().any(dim=1)]
    moved = there - there.mean(dim=0) + profile if len(there) else there
    correlations = torch.tensor([_spearman(layers, half) for half in moved], dtype=torch.float64)
    interval = percentiles(correlations)
    growing = float((correlations > 0).double().mean())
    return Trend(_spearman(layers, profile), interval, growing, interval[0] > 0)


def _spearman(layers: tuple[int, ...], values: Tensor) -> float:
    if float(values.max()) == float(values.min()):
        return math.nan
    return float(spearmanr(layers, values.numpy()).statistic)
