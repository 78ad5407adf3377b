"""Linear centered kernel alignment of units on the same images: comparable across models with any spaces.

With centered contributions X, Y of the same n images, CKA = |X^T Y|^2 / (|X^T X| |Y^T Y|), Frobenius norms: in [0, 1],
1 for a unit with itself, unchanged by rotations, shifts and one common factor of either. Source: Kornblith et al.
1905.00414, equation 4 and section 3. It is biased upwards where there are few images for many directions; the debiased
value replaces each of the three terms by its unbiased estimate (Song et al. 2012, equation 5) and can fall below 0.

Everything is computed in each unit's own coordinates, where a head has head_dim + 2 numbers per image and all distances
are those of the output space, from sums that stream over the images: no image x image matrix is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.similarity.result import CkaPairs, UnitCka
from residualign.store import StoreSplit
from residualign.units import Unit

__all__ = ["check_same_images", "cka_by_unit", "cka_pairs", "linear_cka", "same_images"]

_BATCH = 512

# bytes of cross-moments held at a time; each further block is one more pass over the store
_BLOCK_BYTES = 256 * 2**20

Progress = Callable[[int, int], None]


def linear_cka(x: Float[Tensor, "image x_dim"], y: Float[Tensor, "y_image y_dim"]) -> UnitCka:
    """CKA of two matrices whose rows belong to the same images, in float64; the label is empty.

    Raises `BadInputError` for different numbers of rows, or none.
    """
    if len(x) != len(y) or not len(x):
        raise BadInputError(f"CKA compares rows of the same images, got {len(x)} and {len(y)} of them")
    x, y = (matrix.double() - matrix.double().mean(dim=0) for matrix in (x, y))
    cross, self_x, self_y = ((p.T @ q).square().sum().view(1, 1) for p, q in ((x, y), (x, x), (y, y)))
    lengths_x, lengths_y = (matrix.square().sum(dim=1, keepdim=True) for matrix in (x, y))
    cka, debiased = _ratios(cross, self_x, self_y[0], lengths_x, lengths_y)
    return UnitCka("", float(cka), float(debiased))


def check_same_images(a: StoreSplit, b: StoreSplit) -> None:
    """`BadInputError` unless both hold the same images in the same order, as far as keys, labels and classes tell."""
    if not same_images(a, b):
        raise BadInputError(
            f"CKA needs the same images in the same order; {a.store.path} ({len(a)} images) and {b.store.path} "
            f"({len(b)}) have other keys or labels, so extract both over the same data"
        )


def same_images(a: StoreSplit, b: StoreSplit) -> bool:
    """Whether both hold the same images in the same order, as far as keys, labels and class names tell."""
    return a.keys == b.keys and a.store.class_names == b.store.class_names and torch.equal(a.labels, b.labels)


def cka_by_unit(a: StoreSplit, b: StoreSplit, units: Sequence[Unit] | None = None) -> tuple[UnitCka, ...]:
    """The CKA of each unit with the unit of the same label, and of the output (label "output", at the end).

    units: of both towers; by default all. A few passes over the coordinates; O(image x coordinate^2) per unit. Raises
    `BadInputError` unless both splits hold the same images in the same order.
    """
    check_same_images(a, b)
    chosen = tuple(a.store.units if units is None else units)
    first, second = (_Representations.of(split, (*chosen, None)) for split in (a, b))
    totals = [
        torch.zeros(height, width, dtype=torch.float64)
        for height, width in zip(first.widths, second.widths, strict=True)
    ]
    for x, y in zip(first.batches(), second.batches(), strict=True):
        for total, left, right in zip(totals, x, y, strict=True):
            total.addmm_(left.T, right)
    cross = torch.stack([total.square().sum() for total in totals])
    (self_x, sx), (self_y, sy) = _self_products(first), _self_products(second)
    results = []
    for i, label in enumerate((*(unit.label for unit in chosen), "output")):
        one = slice(i, i + 1)
        cka, debiased = _ratios(cross[one, None], self_x[one, None], self_y[one], sx[:, one], sy[:, one])
        results.append(UnitCka(label, float(cka), float(debiased)))
    return tuple(results)


def cka_pairs(
    a: StoreSplit,
    b: StoreSplit,
    rows: Sequence[Unit] | None = None,
    columns: Sequence[Unit] | None = None,
    progress: Progress | None = None,
) -> CkaPairs:
    """The CKA of all pairs of a unit of `a` and a unit of `b`; by default of all heads.

    Costs O(image x coordinates of all rows x coordinates of all columns) in float64, in as many passes over the stores
    as keep the cross-moments within 256 MB. progress is called with (rows done, rows in all). Raises `BadInputError`
    unless both splits hold the same images in the same order.
    """
    check_same_images(a, b)
    rows = tuple(a.store.units.of_kind("head") if rows is None else rows)
    columns = tuple(b.store.units.of_kind("head") if columns is None else columns)
    second = _Representations.of(b, columns)
    self_y, sy = _self_products(second)
    cross, self_x, norms = [], [], []
    done = 0
    for part in _parts(a, rows, sum(second.widths)):
        first = _Representations.of(a, part)
        total = torch.zeros(sum(first.widths), sum(second.widths), dtype=torch.float64)
        for x, y in zip(first.batches(), second.batches(), strict=True):
            total.addmm_(torch.cat(x, dim=1).T, torch.cat(y, dim=1))
        cross.append(_sums_of_blocks(total.square_(), first.widths, second.widths))
        products, squared = _self_products(first)
        self_x.append(products)
        norms.append(squared)
        done += len(part)
        if progress is not None:
            progress(done, len(rows))
    cka, debiased = _ratios(torch.cat(cross), torch.cat(self_x)[:, None], self_y, torch.cat(norms, dim=1), sy)
    return CkaPairs(str(a.store.data["name"]), str(b.store.data["name"]), rows, columns, cka, debiased)


def _ratios(
    cross: Float[Tensor, "row column"],
    self_x: Float[Tensor, "row 1"],
    self_y: Float[Tensor, " column"],
    sx: Float[Tensor, "image row"],
    sy: Float[Tensor, "image column"],
) -> tuple[Float[Tensor, "row column"], Float[Tensor, "row column"]]:
    """CKA and debiased CKA from |X^T Y|^2, |X^T X|^2, |Y^T Y|^2 and the squared lengths of centered rows."""
    cka = (cross / (self_x * self_y).sqrt()).clamp(max=1.0)
    n = len(sx)
    if n < 4:
        return cka, torch.full_like(cka, math.nan)

    def unbiased(product: Tensor, of_rows: Tensor, of_sums: Tensor) -> Tensor:
        # Song et al. 2012, equation 5, for linear kernels of centered rows, but for the factor n (n - 3)
        return product - n / (n - 2) * of_rows + of_sums / ((n - 1) * (n - 2))

    sum_x, sum_y = sx.sum(dim=0)[:, None], sy.sum(dim=0)
    top = unbiased(cross, sx.T @ sy, sum_x * sum_y)
    x = unbiased(self_x, sx.square().sum(dim=0)[:, None], sum_x.square()).clamp(min=0)
    y = unbiased(self_y, sy.square().sum(dim=0), sum_y.square()).clamp(min=0)
    bottom = (x * y).sqrt()
    return cka, torch.where(bottom > 0, top / bottom, math.nan)


class _Representations:
    """Centered contributions of some units (None: the output) in orthonormal coordinates, batch by batch."""

    def __init__(self, split: StoreSplit, units: Sequence[Unit | None], factors: list[Tensor | None]) -> None:
        self._split = split
        self._units = units
        self._factors = factors
        dim = split.store.maps.dim
        self.widths = tuple(dim if factor is None else factor.shape[1] for factor in factors)
        totals = [torch.zeros(width, dtype=torch.float64) for width in self.widths]
        for batch in self._batches():
            totals = [total + rows.sum(dim=0) for total, rows in zip(totals, batch, strict=True)]
        self._means = [total / len(split) for total in totals]

    @classmethod
    def of(cls, split: StoreSplit, units: Sequence[Unit | None]) -> _Representations:
        maps = split.store.maps.to(dtype=torch.float64)
        factors: list[Tensor | None] = []
        for unit in units:
            weight = None if unit is None else maps.weight(unit)
            if weight is not None and weight.shape[0] < weight.shape[1]:
                # B = R^T Q^T with orthonormal Q: rows y R^T have the inner products of rows y B, and are shorter
                weight = torch.linalg.qr(weight.T).R.T
            factors.append(weight)
        return cls(split, units, factors)

    def batches(self) -> Iterator[list[Tensor]]:
        for batch in self._batches():
            yield [rows - mean for rows, mean in zip(batch, self._means, strict=True)]

    def _batches(self) -> Iterator[list[Tensor]]:
        for coordinates in self._split.batches(_BATCH):
            yield [_rows(coordinates, unit, factor) for unit, factor in zip(self._units, self._factors, strict=True)]


def _rows(coordinates: Coordinates, unit: Unit | None, factor: Tensor | None) -> Float[Tensor, "image coordinate"]:
    if unit is None or factor is None:
        return coordinates.output.double()
    return coordinates.of(unit).double() @ factor


def _self_products(of: _Representations) -> tuple[Float[Tensor, " unit"], Float[Tensor, "image unit"]]:
    """|X^T X|^2 of every unit, and the squared length of every centered row."""
    totals = [torch.zeros(width, width, dtype=torch.float64) for width in of.widths]
    norms = []
    for batch in of.batches():
        totals = [total.addmm_(rows.T, rows) for total, rows in zip(totals, batch, strict=True)]
        norms.append(torch.stack([rows.square().sum(dim=1) for rows in batch], dim=1))
    return torch.stack([total.square().sum() for total in totals]), torch.cat(norms)


def _sums_of_blocks(matrix: Tensor, heights: Sequence[int], widths: Sequence[int]) -> Float[Tensor, "row column"]:
    lines = torch.stack([block.sum(dim=0) for block in matrix.split(list(heights))])
    return torch.stack([block.sum(dim=1) for block in lines.split(list(widths), dim=1)], dim=1)


def _parts(split: StoreSplit, units: Sequence[Unit], columns: int) -> Iterator[tuple[Unit, ...]]:
    """Units in turn, as many at a time as the cross-moments have room for."""
    maps = split.store.maps
    widest = max((min(maps.weight(unit).shape) for unit in units), default=1)
    step = max(1, _BLOCK_BYTES // (8 * widest * max(columns, 1)))
    for start in range(0, len(units), step):
        yield tuple(units[start : start + step])
