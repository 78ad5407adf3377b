"""How long each unit's contribution is, and which share of the embedding's variance it carries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.units import Unit

__all__ = ["UnitStatistics", "unit_statistics"]


@dataclass(frozen=True)
class UnitStatistics:
    """Per unit, in unit order.

    norm: (unit,), root mean square length of the contribution. variance: (unit,), its total variance, divided by the
    number of images. variance_share: (unit,), the covariance of contribution and embedding, summed over dimensions,
    over the embedding's total variance: shares add up to one, and a unit that works against the others has a negative
    one.
    residual_error: largest |sum of units - model output| over largest |model output|.
    """

    units: tuple[Unit, ...]
    norm: Float[Tensor, " unit"]
    variance: Float[Tensor, " unit"]
    variance_share: Float[Tensor, " unit"]
    residual_error: float
    n_images: int


def unit_statistics(batches: Iterable[Coordinates], maps: UnitMaps) -> UnitStatistics:
    """Statistics of every unit over batches of coordinates, summed in float64.

    Costs O(image x coordinate x dim) and memory O(batch x dim + unit x dim). `BadInputError` without images.
    """
    units = tuple(maps.units)
    total = _Sums(len(units), maps.dim)
    for batch in batches:
        total.add(batch, maps)
    if total.n == 0:
        raise BadInputError("there are no images to decompose")
    mean, mean_output = total.sum / total.n, total.sum_output / total.n
    variance = total.square / total.n - mean.square().sum(dim=1)
    covariance = total.product / total.n - mean @ mean_output
    variance_output = total.square_output / total.n - mean_output.square().sum()
    # one image, or images all alike, have no variance to share out
    share = (
        covariance / variance_output if variance_output > 1e-12 * total.square_output / total.n else covariance * 0.0
    )
    return UnitStatistics(
        units=units,
        norm=(total.square / total.n).sqrt(),
        variance=variance.clamp(min=0.0),
        variance_share=share,
        residual_error=total.error / total.largest,
        n_images=total.n,
    )


class _Sums:
    """Running sums over images, float64."""

    def __init__(self, n_units: int, dim: int) -> None:
        self.n = 0
        self.sum = torch.zeros(n_units, dim, dtype=torch.float64)
        self.square = torch.zeros(n_units, dtype=torch.float64)
        self.product = torch.zeros(n_units, dtype=torch.float64)
        self.sum_output = torch.zeros(dim, dtype=torch.float64)
        self.square_output = torch.zeros((), dtype=torch.float64)
        self.error = 0.0
        self.largest = 0.0

    def add(self, batch: Coordinates, maps: UnitMaps) -> None:
        output = batch.output.double().cpu()
        self.n += len(batch)
        self.sum_output += output.sum(dim=0)
        self.square_output += output.square().sum()
        for i, unit in enumerate(maps.units):
            contribution = maps.contribution(batch, unit).double().cpu()
            self.sum[i] += contribution.sum(dim=0)
            self.square[i] += contribution.square().sum()
            self.product[i] += (contribution * output).sum()
        # in the working dtype, as the model's own error is measured
        self.error = max(self.error, float((maps.sum(batch) - batch.output).abs().max()))
        self.largest = max(self.largest, float(batch.output.abs().max()))
