"""Intrinsic dimension from the ratio of each point's two nearest distances: TwoNN."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from residualign.errors import BadInputError
from residualign.geometry.neighbors import Neighbors, nearest, nearest_by_differences
from residualign.geometry.resampling import deviation_interval

__all__ = ["COINCIDENCE", "Fit", "TwoNN", "distinct_points", "fit_ratios", "two_nn"]

COINCIDENCE = 1e-12
"""Points closer together than this share of the largest distance from the mean count as one: it is rounding."""

NEAR = 1e-3
"""A nearest distance below this share of the median one is that of near duplicates: points on a manifold
of any dimension have one in fewer than one case in a thousand."""

_MOST_NEAR = 0.01
# smaller samples of true manifolds are sometimes as bent
_LEAST_STRAIGHT, _ENOUGH_POINTS = 0.9, 100

_LIST = 16
"""Neighbors kept per point: for one point in 4,000, fewer than two of them are in a given half."""

_BLOCK = 4096


@dataclass(frozen=True)
class Fit:
    """The line through the origin. dimension: its slope; nan where there is none.

    straightness: squared cosine of the angle between both sides of the line, 1 where the points are exactly on it.
    n_points: how many points the line was fitted to.
    """

    dimension: float
    straightness: float
    n_points: int


@dataclass(frozen=True, eq=False)
class TwoNN:
    """The intrinsic dimension N of some points.

    fit: over all distinct points. halves: the dimension of each half sample, float64, nan where it has none. interval:
    95 %, from the halves (`deviation_interval`); nan without halves. n_points: distinct ones. n_duplicates: how many
    coincided with an earlier one and were dropped. near_duplicates: share of the points with a neighbor closer than
    `NEAR` of the median nearest distance.
    """

    fit: Fit
    halves: Float[Tensor, " half"]
    interval: tuple[float, float]
    n_points: int
    n_duplicates: int
    near_duplicates: float = 0.0

    @property
    def doubtful(self) -> bool:
        """Whether the dimension says little: near duplicates, or a line that the ratios do not follow."""
        bent = self.n_points >= _ENOUGH_POINTS and self.fit.straightness < _LEAST_STRAIGHT
        return self.near_duplicates > _MOST_NEAR or bent

    @property
    def dimension(self) -> float:
        """N; nan where there are fewer than three distinct points, or all ratios are one."""
        return self.fit.dimension


def two_nn(
    points: Float[Tensor, "point coordinate"],
    *,
    fraction: float = 0.9,
    halves: Sequence[Int[Tensor, " member"]] = (),
) -> TwoNN:
    """TwoNN of the points, and of each of the subsets `halves` of them.

    points: in any isometric coordinates; taken to float64. fraction: the share of the points, smallest ratios first,
    that the line is fitted to, in (0, 1]. halves: row numbers of each subset without repetition. Raises `BadInputError`
    for a fraction out of range.

    Points that coincide are dropped but for the first of each (`distinct_points`); a half has what is left of it.
    Neighbors are exact, in the whole and within each half: a half's are read from lists of 16 of the whole, and a
    point that has fewer than two of those in its half is searched again. Points that nearly coincide are no duplicates;
    they make the dimension small: see `TwoNN.doubtful`. Cost: that of `nearest`, and O(point) per half.

    Source: Facco et al. 2017 (Scientific Reports 7:12140), with the settings of arXiv 2411.00246.

    >>> flat = torch.rand(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> bool(abs(two_nn(flat @ torch.ones(2, 5).double().tril()).dimension - 2) < 0.2)
    True
    """
    if not 0 < fraction <= 1:
        raise BadInputError(f"fraction is a share of the points in (0, 1], got {fraction}")
    points = points.double()
    rows, neighbors = _distinct_neighbors(points, _LIST if halves else 2)
    kept = points[rows]
    two_nearest = _two_nearest(neighbors)
    fit = fit_ratios(two_nearest, fraction)
    first = two_nearest[:, 0]
    near = float((first < NEAR * first.median()).double().mean()) if len(first) else 0.0
    place = torch.full((len(points),), -1, dtype=torch.int64)
    place[rows] = torch.arange(len(kept))
    dimensions = []
    for half in halves:
        members = place[half]
        within = _two_nearest_within(kept, neighbors, members[members >= 0].sort().values)
        dimensions.append(fit_ratios(within, fraction).dimension)
    values = torch.tensor(dimensions, dtype=torch.float64)
    interval = deviation_interval(fit.dimension, values)
    return TwoNN(fit, values, interval, len(kept), len(points) - len(kept), near)


def fit_ratios(distances: Float[Tensor, "point 2"], fraction: float) -> Fit:
    """The slope of -log(1 - F) against log mu through the origin, over the smallest `fraction` of the ratios.

    distances: of each point's two nearest others, > 0, nearest first. mu is their ratio (Facco et al. 2017, eq. 5 and
    the algorithm after it), F of the i-th smallest of n ratios is i / n, and the first floor(fraction n) are fitted; at
    fraction 1 the last, where F is 1, is left out. No slope, nan, without points or where every ratio is one,
    to rounding.
    """
    n = len(distances)
    log_ratio = (distances[:, 1] / distances[:, 0]).log().sort().values
    used = min(int(fraction * n + 1e-9), n - 1)
    x = log_ratio[: max(used, 0)]
    y = -torch.log1p(-torch.arange(1, len(x) + 1, dtype=torch.float64) / max(n, 1))
    xx, xy, yy = (float((a * b).sum()) for a, b in ((x, x), (x, y), (y, y)))
    if not len(x) or float(x[-1]) < COINCIDENCE:
        return Fit(float("nan"), float("nan"), len(x))
    return Fit(xy / xx, xy**2 / (xx * yy), len(x))


def distinct_points(points: Float[Tensor, "point coordinate"]) -> Int[Tensor, " kept"]:
    """Row of the first of each set of points that coincide, to `COINCIDENCE` of the largest distance from the mean.

    Finds those whose coordinates agree when rounded to a grid of that size; `two_nn` goes on to drop what is on both
    sides of a grid line. Costs O(point x coordinate).
    """
    floor = _floor(points)
    # two points of one cell are at most its diagonal apart
    cell = floor / max(points.shape[1], 1) ** 0.5 if floor > 0 else 1.0
    mean = points.mean(dim=0)
    seen: set[bytes] = set()
    rows = []
    for start in range(0, len(points), _BLOCK):
        # adding zero makes one of both zeros
        cells = ((points[start : start + _BLOCK] - mean) / cell).round_() + 0.0
        for i, row in enumerate(cells.numpy()):
            key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
            if key not in seen:
                seen.add(key)
                rows.append(start + i)
    return torch.tensor(rows, dtype=torch.int64)


def _floor(points: Tensor) -> float:
    if not len(points):
        return 0.0
    mean = points.mean(dim=0)
    return COINCIDENCE * max(float((part - mean).square().sum(dim=1).max().sqrt()) for part in points.split(_BLOCK))


def _distinct_neighbors(points: Tensor, count: int) -> tuple[Tensor, Neighbors]:
    """Rows of the distinct points and the neighbors among them.

    After the grid, points that have an earlier one within the floor are dropped as well.
    """
    rows = distinct_points(points)
    floor = _floor(points)
    while True:
        kept = points[rows]
        neighbors = nearest(kept, count)
        near = (neighbors.distances <= floor) & (neighbors.indices < torch.arange(len(kept)).unsqueeze(1))
        again = near.any(dim=1)
        if not again.any():
            return rows, neighbors
        rows = rows[~again]


def _two_nearest(neighbors: Neighbors) -> Tensor:
    """(point, 2) distances; no rows where there are not two others."""
    enough = neighbors.distances.shape[1] >= 2
    return neighbors.distances[:, :2] if enough else neighbors.distances.new_empty(0, 2)


def _two_nearest_within(points: Tensor, neighbors: Neighbors, members: Int[Tensor, " member"]) -> Tensor:
    """(member, 2) distances to the two nearest others among the members, read from lists over all points."""
    if len(members) < 3:
        return points.new_empty(0, 2)
    is_member: Bool[Tensor, " point"] = torch.zeros(len(points), dtype=torch.bool)
    is_member[members] = True
    inside = is_member[neighbors.indices[members]]
    reached = inside.cumsum(dim=1, dtype=torch.int32)
    # argmax gives the first place where the count is reached
    places = torch.stack([(reached >= k).to(torch.uint8).argmax(dim=1) for k in (1, 2)], dim=1)
    distances = neighbors.distances[members].gather(1, places)
    short = torch.nonzero(reached[:, -1] < 2).flatten()
    if len(short):
        distances[short] = nearest_by_differences(points[members], short, 2).distances
    return distances
