"""How long each unit's contribution is, and which share of the embedding's variance it carries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from residualign._messages import plural
from residualign._result import Result, Row, Table
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.units import Unit

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["UnitStatistics", "UnitSums", "relative_error", "unit_statistics"]


@dataclass(frozen=True, eq=False, repr=False)
class UnitStatistics(Result):
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

    @property
    def rows(self) -> list[Row]:
        """One row per unit."""
        columns = zip(self.units, self.norm.tolist(), self.variance.tolist(), self.variance_share.tolist(), strict=True)
        return [
            {"label": unit.label, "kind": unit.kind, "norm": norm, "variance": variance, "variance_share": share}
            for unit, norm, variance, share in columns
        ]

    @property
    def tables(self) -> dict[str, Table]:
        """`units`, one row per unit."""
        return {"units": self.rows}

    @property
    def figures(self) -> dict[str, Figure]:
        """`variance_share`: the share of the embedding's variance that every head carries."""
        from residualign.figures.units import head_map

        heads = [
            {"layer": unit.layer, "head": unit.head, "share": 100 * share}
            for unit, share in zip(self.units, self.variance_share.tolist(), strict=True)
            if unit.kind == "head"
        ]
        label = "share of the embedding's variance, %"
        if not heads:
            return {}
        return {"variance_share": head_map(heads, "share", f"Heads, {plural(self.n_images, 'image')}", label)}

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {"n_images": self.n_images, "residual_error": self.residual_error, "units": self.rows}

    def _summary(self) -> str:
        return f"{plural(len(self.units), 'unit')}, n_images={self.n_images}, residual_error={self.residual_error:.1e}"


def unit_statistics(batches: Iterable[Coordinates], maps: UnitMaps) -> UnitStatistics:
    """Statistics of every unit over batches of coordinates, summed in float64.

    Costs O(image x coordinate x dim) and memory O(batch x dim + unit x dim). `BadInputError` without images.
    """
    units = tuple(maps.units)
    total = UnitSums(len(units), maps.dim)
    for batch in batches:
        # in the working dtype, as the model's own error is measured
        error = float((maps.sum(batch) - batch.output).abs().max())
        total.add(batch.output, (maps.contribution(batch, unit) for unit in units), error)
    return total.statistics(units)


def relative_error(error: float, largest: float) -> float:
    """The error over the largest |model output|; where all of the output is zero, 0 without an error, else infinite."""
    if largest > 0:
        return error / largest
    return 0.0 if error == 0 else float("inf")


class UnitSums:
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

    def add(self, embeddings: Float[Tensor, "image dim"], contributions: Iterable[Tensor], error: float) -> None:
        """Some images. error: largest |sum of units - model output| of these."""
        output = embeddings.double().cpu()
        self.n += len(output)
        self.sum_output += output.sum(dim=0)
        self.square_output += output.square().sum()
        for i, of_unit in enumerate(contributions):
            contribution = of_unit.double().cpu()
            self.sum[i] += contribution.sum(dim=0)
            self.square[i] += contribution.square().sum()
            self.product[i] += (contribution * output).sum()
        self.error = max(self.error, error)
        self.largest = max(self.largest, float(output.abs().max()))

    def statistics(self, units: tuple[Unit, ...]) -> UnitStatistics:
        """What the sums say; `BadInputError` without images."""
        n = self.n
        if n == 0:
            raise BadInputError("there are no images to decompose")
        mean, mean_output = self.sum / n, self.sum_output / n
        covariance = self.product / n - mean @ mean_output
        variance = self.square_output / n - mean_output.square().sum()
        # one image, or images all alike, have no variance to share out
        varies = bool(variance > 1e-12 * self.square_output / n)
        return UnitStatistics(
            units=units,
            norm=(self.square / n).sqrt(),
            variance=(self.square / n - mean.square().sum(dim=1)).clamp(min=0.0),
            variance_share=covariance / variance if varies else covariance * 0.0,
            residual_error=relative_error(self.error, self.largest),
            n_images=n,
        )
