"""Exact nearest neighbors in blocks: no image x image matrix, and no neighbor lost to rounding.

Distances by `|a|^2 + |b|^2 - 2 a b` are fast and lose near neighbors (a TwoNN of 2.23 where 1.90 is right). Here that
product, in float32, only proposes candidates; their distances are computed again from float64 differences, and a bound
on the product's rounding proves for each row that no other point can be as near. Rows without the proof are searched
again with the product in float64, and what is left by differences alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Neighbors", "nearest", "nearest_by_differences"]

_SPARE = 8
"""Candidates beyond those asked for: the gap to the last one is what proves the list."""

_GROUP = 64
_BLOCK_BYTES = 48 * 2**20
_ROWS = 4096
_SMALL = 512
"""Up to this many points are searched by differences alone."""

_FAR = 4.0
"""Above half a squared distance plus half a squared length between points no longer than 1."""


@dataclass(frozen=True)
class Neighbors:
    """The nearest other points of each row, nearest first.

    distances: in the unit of the points, from float64 differences. indices: into the points.
    by_float32, by_float64, by_differences: how many rows each way of searching settled.
    """

    distances: Float[Tensor, "row neighbor"]
    indices: Int[Tensor, "row neighbor"]
    by_float32: int = 0
    by_float64: int = 0
    by_differences: int = 0

    def __len__(self) -> int:
        return self.distances.shape[0]


def nearest(points: Float[Tensor, "point coordinate"], count: int) -> Neighbors:
    """The `count` nearest other points of every point (fewer where there are no more), exactly.

    points: float64. Two distances that differ by less than float64 rounding of the differences may come in either
    order.

    Time O(point^2 coordinate), as matrix products in float32; rows with more than 8 others just as near as the last one
    asked for (points on a lattice) are settled by differences, many times slower. Memory beyond the points: half as
    much again for a float32 copy, one block of at most 48 MiB with a copy of the candidates' part, and the result.
    """
    n = len(points)
    count = max(min(count, n - 1), 0)
    everything = torch.arange(n)
    if n <= max(_SMALL, 2 * (count + _SPARE)):
        return nearest_by_differences(points, everything, count)
    frame = _Frame.of(points)
    distances = torch.empty(n, count, dtype=torch.float64)
    indices = torch.empty(n, count, dtype=torch.int64)
    left, settled = everything, {torch.float32: 0, torch.float64: 0}
    # a program may have allowed float32 products to be computed in bfloat16, which the proof knows nothing of
    in_full = torch.get_float32_matmul_precision() == "highest"
    for dtype in (torch.float32, torch.float64) if in_full else (torch.float64,):
        proved = _search(points, frame, left, count, dtype, distances, indices)
        settled[dtype] = int(proved.sum())
        left = left[~proved]
        if not len(left):
            break
    if len(left):
        last = nearest_by_differences(points, left, count)
        distances[left], indices[left] = last.distances, last.indices
    return Neighbors(distances, indices, settled[torch.float32], settled[torch.float64], len(left))


def nearest_by_differences(
    points: Float[Tensor, "point coordinate"], rows: Int[Tensor, " row"], count: int
) -> Neighbors:
    """The same for some of the points, from float64 differences to all: O(row x point x coordinate), slow and plain."""
    n, size = points.shape
    count = max(min(count, n - 1), 0)
    parts = []
    # the differences of a few rows at a time, as large as a block
    step = max(1, _BLOCK_BYTES // (8 * max(n * size, 1)))
    for block in rows.split(step):
        exact = (points[block].unsqueeze(1) - points).square_().sum(dim=-1)
        exact[torch.arange(len(block)), block] = torch.inf
        parts.append(exact.topk(count, largest=False, sorted=True))
    squared, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    return Neighbors(squared.sqrt(), indices, by_differences=len(rows))


@dataclass(frozen=True)
class _Frame:
    """Points about their mean and no longer than 1, block by block, so that no copy is held.

    scale is a power of two: it changes no digit, and keeps small numbers within float32.
    """

    mean: Float[Tensor, " coordinate"]
    scale: float

    @classmethod
    def of(cls, points: Tensor) -> _Frame:
        mean = points.mean(dim=0)
        longest = max(float((block - mean).square().sum(dim=1).max().sqrt()) for block in points.split(_ROWS))
        return cls(mean, 2.0 ** math.floor(-math.log2(longest) - 1e-9) if longest > 0 else 1.0)

    def __call__(self, points: Tensor) -> Tensor:
        return (points - self.mean).mul_(self.scale)


def _search(
    points: Tensor,
    frame: _Frame,
    rows: Tensor,
    count: int,
    dtype: torch.dtype,
    distances: Tensor,
    indices: Tensor,
) -> Tensor:
    """Write the neighbors of the rows where the candidates of a product in `dtype` are proved; says which were."""
    n, size = points.shape
    n_groups = -(-n // _GROUP)
    # [x ; 1] times [-y ; |y|^2 / 2] is half the squared distance less |x|^2 / 2, which is the same for all y
    right = torch.zeros(size + 1, _GROUP * n_groups, dtype=dtype)
    right[size] = _FAR
    for start in range(0, n, _ROWS):
        part = frame(points[start : start + _ROWS])
        right[:size, start : start + len(part)] = -part.T
        right[size, start : start + len(part)] = part.square().sum(dim=1) / 2
    proved = torch.zeros(len(rows), dtype=torch.bool)
    n_candidates = count + _SPARE
    row_bytes = max(right.element_size() * right.shape[1], 16 * n_candidates * size)
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        here = frame(points[block])
        products = torch.cat([here, here.new_ones(len(block), 1)], dim=1).to(dtype) @ right
        products[torch.arange(len(block)), block] = _FAR
        last, candidates = _candidates(products, n_candidates, n_groups)
        exact = (points[block].unsqueeze(1) - points[candidates]).square_().sum(dim=-1)
        squared, order = exact.topk(count, largest=False, sorted=True)
        radius, lengths = squared[:, -1] * frame.scale**2, here.square().sum(dim=1)
        proof = _is_proved(last.double(), radius, lengths, size, torch.finfo(dtype).eps / 2)
        proved[start : start + step] = proof
        distances[block[proof]] = squared[proof].sqrt()
        indices[block[proof]] = candidates.gather(1, order)[proof]
    return proved


def _candidates(products: Tensor, count: int, n_groups: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest of each row: the largest of them, and all their columns.

    Columns are in groups of `_GROUP`. A group whose smallest entry is not among the `count` smallest such entries has
    nothing smaller than any of those, so that only `count` groups are looked through.
    """
    grouped = products.view(len(products), _GROUP, n_groups)
    groups = grouped.amin(dim=1).topk(min(count, n_groups), largest=False).indices
    inside = grouped.gather(2, groups.unsqueeze(1).expand(-1, _GROUP, -1)).flatten(1)
    values, places = inside.topk(count, largest=False, sorted=False)
    columns = places // groups.shape[1] * n_groups + groups.gather(1, places % groups.shape[1])
    return values.amax(dim=1), columns


def _is_proved(last: Tensor, radius: Tensor, lengths: Tensor, size: int, unit: float) -> Tensor:
    """Whether no point that is not a candidate can be nearer than the squared `radius`.

    last: the largest candidate's half squared distance less half of the row's squared length, as computed; `lengths`
    are those squared lengths, and every other point has a computed value of at least `last`.

    A point within the radius of a row of length a is no longer than b = a + sqrt(radius), so its computed value is
    off by no more than the rounding of the coordinates (2 u a b), of half its squared length (u b^2 / 2), and of a
    scalar product of size + 1 terms in any order, (size + 1) u / (1 - (size + 1) u) times the sum of their magnitudes
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). The float64 numbers on this side of the
    comparison, and numbers too small for float32, are allowed for as well.
    """
    a = lengths.sqrt()
    b = a + radius.sqrt()
    magnitude = (a * b + b.square() / 2) * (1 + 4 * unit)
    terms = size + 3
    error = (terms * unit / (1 - terms * unit) + 3 * unit) * magnitude
    own = 8 * terms * 2.0**-53 * (lengths + radius + last.abs())
    return last - error - own - terms * 1e-37 > (radius - lengths) / 2
