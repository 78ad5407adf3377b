"""What a method's lambdas multiply, as one (image, feature) matrix.

A scaled unit is either taken apart into components, `contribution = mean + sum_k a_k phi_k + outside`, or scaled as a
whole. Its coefficients come straight from the compact coordinates, `a = y (B Phi^T) + (c - mean) Phi^T`: the
(image, unit, dim) tensor is never made. The adapted embedding is then one product,
`rest + values @ (lambdas[group] * weight)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import plural
from residualign.decomposition.coordinates import Coordinates, UnitMaps

__all__ = [
    "OUTPUT",
    "Features",
    "HasLambdas",
    "MeanMode",
    "RestMode",
    "ScaledUnit",
    "Scaling",
    "adapted_output",
    "build_features",
]

MeanMode = Literal["drop", "keep"]
RestMode = Literal["keep", "mean", "zero"]

OUTPUT = "output"
"""Label under which the whole embedding is scaled like a unit (`spectral-output`)."""

MAX_BYTES = 4 * 2**30
"""Above this size coefficients are recomputed for every batch instead of being kept in memory."""

_CHUNK = 2048


class AnyUnit:
    """What a scaled unit and its stored form (`adapter.compact`) have in common."""

    label: str
    mean: Tensor | None
    components: Tensor | None

    @property
    def n_lambdas(self) -> int:
        """Number of lambdas of this unit."""
        return 1 if self.components is None else self.components.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label}, {plural(self.n_lambdas, 'lambda')})"


class AnyScaling:
    """What a scaling and its stored form (`adapter.compact`) have in common."""

    units: tuple[Any, ...]
    mean: MeanMode
    rest: RestMode

    @property
    def n_lambdas(self) -> int:
        """Number of lambdas of all units together."""
        return sum(unit.n_lambdas for unit in self.units)

    @property
    def scale_free(self) -> bool:
        """Whether a common factor of all lambdas changes no cosine."""
        whole = all(unit.components is None for unit in self.units)
        output_only = all(unit.label == OUTPUT for unit in self.units)
        return bool(self.units) and (self.mean == "drop" or whole) and (self.rest == "zero" or output_only)

    def split(self, lambdas: Float[Tensor, " lambda"]) -> dict[str, Tensor]:
        """Lambdas of every unit by its label, as views of the one vector."""
        parts = torch.split(lambdas, [unit.n_lambdas for unit in self.units]) if self.units else ()
        return {unit.label: part for unit, part in zip(self.units, parts, strict=True)}

    def __repr__(self) -> str:
        sizes = f"{plural(len(self.units), 'unit')}, {plural(self.n_lambdas, 'lambda')}"
        content = f"{sizes}, mean={self.mean!r}, rest={self.rest!r}"
        return f"{type(self).__name__}({content})"


class HasLambdas:
    """What everything fitted has in common: lambdas on scaled units, or none."""

    scaling: AnyScaling
    learned: Mapping[str, Tensor]

    @property
    def lambdas(self) -> Mapping[str, Tensor]:
        """Lambdas of every scaled unit by its label, (component,); empty for a method without any (`linear`)."""
        return self.scaling.split(self.learned["lambdas"]) if "lambdas" in self.learned else {}


@dataclass(frozen=True, repr=False)
class ScaledUnit(AnyUnit):
    """One unit and the directions of it that are scaled.

    components: (component, dim), orthonormal rows, one lambda each; None scales the whole contribution, mean included,
    by one lambda, and mean is then zero. label: that of a unit, or `OUTPUT`.
    """

    label: str
    mean: Float[Tensor, " dim"]
    components: Float[Tensor, "component dim"] | None


@dataclass(frozen=True, repr=False)
class Scaling(AnyScaling):
    """All scaled units of a method, and what happens to everything that no lambda multiplies.

    mean: whether the means of scaled units are dropped (as in the paper) or added back. rest: whether unscaled units,
    and the part of a scaled unit outside its components, are kept, replaced by their mean over the spectrum's images
    (`rest_mean`, (dim,): of the unscaled units; outside the components it is zero), or left out. With
    `mean="keep", rest="keep"` lambdas of one give the model's own embedding exactly.
    """

    units: tuple[ScaledUnit, ...]
    mean: MeanMode
    rest: RestMode
    rest_mean: Float[Tensor, " dim"]

    def join(self, lambdas: Mapping[str, Tensor]) -> Float[Tensor, " lambda"]:
        """The inverse of `split`."""
        return torch.cat([lambdas[unit.label] for unit in self.units])


@dataclass(frozen=True)
class _Projections:
    """From coordinates to values, unit by unit: `y @ matrix + offset`; matrix None appends a one to y."""

    labels: tuple[str, ...]
    matrices: tuple[Tensor | None, ...]
    offsets: tuple[Tensor | None, ...]
    columns: tuple[int, ...]

    def values(self, coordinates: Coordinates) -> Tensor:
        dtype = next((m.dtype for m in self.matrices if m is not None), coordinates.output.dtype)
        values = torch.empty(len(coordinates), sum(self.columns), dtype=dtype, device=coordinates.output.device)
        start = 0
        for label, matrix, offset, width in zip(self.labels, self.matrices, self.offsets, self.columns, strict=True):
            y = _unit_coordinates(coordinates, label).to(dtype)
            block = values[:, start : start + width]
            if matrix is None:
                block[:, :-1] = y
                block[:, -1] = 1.0
            else:
                assert offset is not None
                torch.addmm(offset, y, matrix, out=block)
            start += width
        return values


@dataclass(frozen=True)
class Features:
    """The linear model in lambda: `adapted = rest + values @ (lambdas[group, None] * weight)`.

    values: (image, feature), or None if they would exceed the memory limit: `rows` then recomputes them from the
    coordinates. weight: (feature, dim). group: (feature,), the lambda of each feature.
    rest: (image, dim).
    """

    rest: Float[Tensor, "image dim"]
    weight: Float[Tensor, "feature dim"]
    group: Int[Tensor, " feature"]
    values: Float[Tensor, "image feature"] | None
    one_lambda_a_feature: bool
    _source: tuple[Coordinates, _Projections] | None = None

    def __len__(self) -> int:
        return self.rest.shape[0]

    @property
    def chunk(self) -> int:
        """Images a full-batch routine should take at a time."""
        return max(len(self), 1) if self.values is not None else _CHUNK

    def rows(self, index: slice | Tensor) -> Float[Tensor, "image feature"]:
        """Values of some images."""
        if self.values is not None:
            return self.values[index]
        assert self._source is not None
        coordinates, projections = self._source
        return projections.values(coordinates[index])

    def second_moment(self) -> Float[Tensor, " lambda"]:
        """Mean over the images of the squared length of what each lambda multiplies."""
        total = torch.zeros(len(self.group), dtype=torch.float64, device=self.weight.device)
        for start in range(0, len(self), _CHUNK):
            total += self.rows(slice(start, start + _CHUNK)).double().square().sum(dim=0)
        # exact for orthonormal components; for whole contributions it leaves out the products of different features
        per_feature = total / max(len(self), 1) * self.weight.double().square().sum(dim=-1)
        n_lambdas = int(self.group.max()) + 1 if len(self.group) else 0
        return per_feature.new_zeros(n_lambdas).index_add_(0, self.group, per_feature)

    def adapted(self, lambdas: Float[Tensor, " lambda"], index: slice | Tensor) -> Float[Tensor, "image dim"]:
        """Adapted embeddings of some images, not normalized: O(image x feature x dim).

        The lambdas go to the smaller side, so that no temporary (nor its gradient) is larger than the smaller of
        (image, feature) and (feature, dim).
        """
        values, rest = self.rows(index), self.rest[index]
        if values.shape[1] == 0:
            return rest
        scale = lambdas if self.one_lambda_a_feature else lambdas[self.group]
        if values.shape[0] < self.weight.shape[1]:
            return torch.addmm(rest, values * scale, self.weight)
        return torch.addmm(rest, values, scale[:, None] * self.weight)


def build_features(
    coordinates: Coordinates,
    maps: UnitMaps,
    scaling: Scaling,
    dtype: torch.dtype = torch.float32,
    max_bytes: int = MAX_BYTES,
) -> Features:
    """The features of these images for this scaling.

    Projections are computed in the dtype of the maps, values in `dtype`. Costs O(image x coordinate x component) per
    unit, and memory for image x feature numbers; above max_bytes `Features.rows` recomputes the values when needed.
    """
    projections, weight, group = _projections(maps, scaling, dtype)
    source = coordinates.to(dtype=dtype)
    n, size = len(source), torch.finfo(dtype).bits // 8
    held = projections.values(source) if n * weight.shape[0] * size <= max_bytes else None
    rest = _rest(source, scaling)
    if scaling.rest == "keep":
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            rest[part].addmm_(projections.values(source[part]) if held is None else held[part], weight, alpha=-1.0)
    source_if_needed = None if held is not None else (source, projections)
    return Features(rest, weight, group, held, weight.shape[0] == scaling.n_lambdas, source_if_needed)


def adapted_output(
    coordinates: Coordinates,
    maps: UnitMaps,
    scaling: Scaling,
    lambdas: Float[Tensor, " lambda"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "image dim"]:
    """Embeddings with the scaled units scaled, not normalized; `lambdas` as `Scaling.join` orders them.

    Computed in chunks of images, in the dtype of the lambdas unless `dtype` is given. Source: arXiv 2411.00246,
    equation 3 (`RD(X, lambda) = Phi^-1 diag(lambda) Phi (X - mu)^T`), summed over units.
    """
    dtype = dtype or lambdas.dtype
    chunks = []
    for start in range(0, len(coordinates), _CHUNK):
        features = build_features(coordinates[start : start + _CHUNK], maps, scaling, dtype)
        chunks.append(features.adapted(lambdas.to(dtype), slice(None)))
    return torch.cat(chunks) if chunks else coordinates.output.to(dtype)


def _rest(coordinates: Coordinates, scaling: Scaling) -> Tensor:
    """What is added whatever the lambdas are; if the rest is kept, before the scaled part is subtracted from it."""
    rest = coordinates.output.clone() if scaling.rest == "keep" else torch.zeros_like(coordinates.output)
    means = [unit.mean for unit in scaling.units]
    if means and (scaling.rest == "keep") != (scaling.mean == "keep"):
        rest += torch.stack(means).sum(dim=0).to(rest) * (1.0 if scaling.mean == "keep" else -1.0)
    return rest + scaling.rest_mean.to(rest) if scaling.rest == "mean" else rest


def _unit_coordinates(coordinates: Coordinates, label: str) -> Tensor:
    return coordinates.output if label == OUTPUT else coordinates.of(coordinates.units.get(label))


def _projections(maps: UnitMaps, scaling: Scaling, dtype: torch.dtype) -> tuple[_Projections, Tensor, Tensor]:
    """The projections of every scaled unit, the features' (feature, dim) output rows, and their lambdas."""
    matrices: list[Tensor | None] = []
    offsets: list[Tensor | None] = []
    rows, groups, first = [], [], 0
    for scaled in scaling.units:
        if scaled.label == OUTPUT:
            weight = torch.eye(maps.dim, dtype=maps.embedding.dtype, device=maps.embedding.device)
            bias = torch.zeros_like(weight[0])
        else:
            unit = maps.units.get(scaled.label)
            weight, bias = maps.weight(unit), maps.bias(unit)
        if scaled.components is None:
            matrices.append(None)
            offsets.append(None)
            rows.append(torch.cat([weight, bias[None]]))
            groups.append(torch.full((len(rows[-1]),), first, device=weight.device))
        else:
            components = scaled.components.to(weight)
            matrices.append((weight @ components.T).to(dtype))
            offsets.append(((bias - scaled.mean.to(weight)) @ components.T).to(dtype))
            rows.append(components)
            groups.append(torch.arange(first, first + scaled.n_lambdas, device=weight.device))
        first += scaled.n_lambdas
    labels = tuple(unit.label for unit in scaling.units)
    columns = tuple(len(row) for row in rows)
    empty = maps.embedding.new_zeros(0, maps.dim)
    group = torch.cat(groups) if groups else torch.zeros(0, dtype=torch.long, device=empty.device)
    weight = torch.cat([empty, *rows]).to(dtype)
    return _Projections(labels, tuple(matrices), tuple(offsets), columns), weight, group
