"""What a method learned, on the units of one tower, as one linear map of an image's coordinates.

A unit's contribution is linear in the compact coordinates, and so is any scaling of it: an adapted embedding is the
plain forward pass plus one matrix product. The map cannot go into the tower's own weights, because later blocks read
what earlier units wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from residualign._messages import plural
from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, HasLambdas, ScaledUnit, Scaling

__all__ = ["Adapted", "FactoredMap", "FoldedMap", "fold"]


class _OutputPart:
    """What folded and factored maps have in common: the part that comes from the model's own embedding."""

    bias: Tensor
    adds_output: bool
    output: Tensor | None

    def of_output(self, output: Float[Tensor, "image dim"]) -> Float[Tensor, "image dim"]:
        """The part that comes from the model's own embedding and the bias; everything if not `needs_units`."""
        total = self.bias + output if self.adds_output else self.bias.expand(output.shape[0], -1)
        return total if self.output is None else torch.addmm(total, output, self.output)


@dataclass(frozen=True, repr=False)
class FoldedMap(_OutputPart):
    """`adapted = heads @ W + mlps @ W + [1/sigma, mu/sigma] @ W + output @ W (+ output) + bias`, absent terms left out.

    heads: (layer, head, head_dim, dim), mlps: (layer, width, dim), embedding: (width, dim) where it varies, output:
    (dim, dim), each None if nothing of that kind is scaled. scalars: (2, dim): the two scalars of an image are the same
    for all its units, so their rows are summed. adds_output: whether the model's own embedding is added unchanged.
    bias: (dim,).
    """

    bias: Float[Tensor, " dim"]
    adds_output: bool
    heads: Float[Tensor, "layer head head_dim dim"] | None = None
    mlps: Float[Tensor, "layer width dim"] | None = None
    scalars: Float[Tensor, "2 dim"] | None = None
    output: Float[Tensor, "dim dim"] | None = None
    embedding: Float[Tensor, "width dim"] | None = None

    def __repr__(self) -> str:
        names = ("heads", "mlps", "scalars", "output", "embedding")
        there = [name for name in names if getattr(self, name) is not None]
        return f"FoldedMap({', '.join([*there, f'dim={self.bias.shape[0]:,}'])})"

    @property
    def needs_units(self) -> bool:
        """Whether coordinates of units are read; otherwise the plain embedding is enough and nothing is traced."""
        return not (self.heads is None and self.mlps is None and self.scalars is None)

    def __call__(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalized: O(image x coordinate x dim), in the dtype of the map.

        One product per kind of coordinate: joining them in one buffer first saves 2 ms of a forward pass of 8 s
        (ViT-B/32, batch 32), and doubles the memory of the coordinates.
        """
        y = coordinates.to(dtype=self.bias.dtype)
        total = self.of_output(y.output)
        if self.heads is not None:
            total = torch.addmm(total, y.heads.flatten(1), self.heads.flatten(0, 2))
        if self.mlps is not None:
            total = torch.addmm(total, y.mlps.flatten(1), self.mlps.flatten(0, 1))
        if self.scalars is not None:
            total = torch.addmm(total, y.scalars(), self.scalars)
        if self.embedding is not None and y.embedding is not None:
            total = torch.addmm(total, y.embedding, self.embedding)
        return total

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FoldedMap:
        """The same map on a different device or in a different dtype."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "adds_output"}
        moved: dict[str, Any] = {k: None if v is None else v.to(device, dtype) for k, v in tensors.items()}
        return FoldedMap(adds_output=self.adds_output, **moved)


def fold(
    maps: UnitMaps,
    scaling: Scaling,
    lambdas: Float[Tensor, " lambda"],
    weight: Float[Tensor, "dim dim"] | None = None,
    bias: Float[Tensor, " dim"] | None = None,
) -> FoldedMap | FactoredMap:
    """The map of a scaling with its lambdas, as `Scaling.join` orders them, in float64.

    weight and bias: a linear map applied after the scaling (`linear`). With `rest="keep"` only the difference from the
    model's own embedding is folded, `output + sum (lambda - 1) a phi`. Costs O(coordinate x component x dim) per unit,
    and the memory of the maps. If coordinates are contributions (attention pooling), a folded map would be
    unit x dim^2 numbers, so the components are kept factored instead. Source: arXiv 2411.00246, equation 3, summed over
    units.
    """
    folding = _Folding(maps, scaling)
    for unit, part in scaling.split(lambdas.double()).items():
        folding.add(next(scaled for scaled in scaling.units if scaled.label == unit), part)
    return folding.result(weight, bias)


class _Folding:
    """The sums that make up a folded map, added unit by unit."""

    def __init__(self, maps: UnitMaps, scaling: Scaling) -> None:
        self._maps, self._scaling = maps, scaling
        self._keeps = scaling.rest == "keep"
        like = maps.embedding.double()
        self._bias = scaling.rest_mean.to(like) if scaling.rest == "mean" else like.new_zeros(maps.dim)
        self._scalars = like.new_zeros(2, maps.dim)
        self._heads: Tensor | None = None
        self._mlps: Tensor | None = None
        self._output: Tensor | None = None
        self._embedding: Tensor | None = None
        self._factors: list[tuple[str, Tensor | None, Tensor]] = []

    def add(self, scaled: ScaledUnit, lambdas: Tensor) -> None:
        scale = lambdas - 1.0 if self._keeps else lambdas
        mean = scaled.mean.to(self._scalars)
        if self._keeps and self._scaling.mean == "drop":
            self._bias = self._bias - mean
        if not self._keeps and self._scaling.mean == "keep":
            self._bias = self._bias + mean
        if scaled.label == OUTPUT:
            identity = torch.eye(self._maps.dim, dtype=torch.float64, device=mean.device)
            self._output = _scaled(identity, scaled, scale)
            self._bias = self._bias + _scaled(-mean, scaled, scale)
            return
        if self._maps.layout == "contributions":
            components = None if scaled.components is None else scaled.components.to(mean)
            self._factors.append((scaled.label, components, scale.to(mean)))
            self._bias = self._bias + _scaled(-mean, scaled, scale)
            return
        unit = self._maps.units.get(scaled.label)
        rows = _scaled(self._maps.weight(unit).double(), scaled, scale)
        self._bias = self._bias + _scaled(self._maps.bias(unit).double() - mean, scaled, scale)
        if unit.kind == "head":
            if self._heads is None:
                self._heads = torch.zeros_like(self._maps.heads[:, :, :-2], dtype=torch.float64)
            self._heads[unit.layer, unit.head] = rows[:-2]
            self._scalars += rows[-2:]
        elif unit.kind == "mlp":
            if self._mlps is None:
                self._mlps = torch.zeros_like(self._maps.mlps[:, :-1], dtype=torch.float64)
            self._mlps[unit.layer] = rows[:-1]
            self._scalars[1] += rows[-1]
        elif self._maps.layout == "mean":
            self._embedding = rows[:-1]
            self._scalars[1] += rows[-1]
        else:
            self._scalars += rows

    def result(self, weight: Tensor | None, bias: Tensor | None) -> FoldedMap | FactoredMap:
        output, adds_output, total = self._output, self._keeps, self._bias
        if adds_output and (output is not None or weight is not None):
            identity = torch.eye(self._maps.dim, dtype=torch.float64, device=total.device)
            output, adds_output = identity if output is None else output + identity, False
        after = None if weight is None else weight.to(total)
        if self._maps.layout == "contributions":
            if after is not None:
                output, total = None if output is None else output @ after, total @ after
            total = total if bias is None else total + bias.to(total)
            return FactoredMap(total, adds_output, tuple(self._factors), output, after)
        scales_units = any(scaled.label != OUTPUT for scaled in self._scaling.units)
        blocks = [self._heads, self._mlps, self._scalars if scales_units else None, output, self._embedding]
        if after is not None:
            blocks = [None if block is None else block @ after for block in blocks]
            total = total @ after
        if bias is not None:
            total = total + bias.to(total)
        return FoldedMap(total, adds_output, *blocks)


def _scaled(rows: Tensor, scaled: ScaledUnit, scale: Tensor) -> Tensor:
    """Rows of a map, (row, dim) or (dim,), times `Phi^T diag(scale) Phi`, or times the one scale of a whole unit."""
    if scaled.components is None:
        return scale[0] * rows
    components = scaled.components.to(rows)
    return (rows @ components.T * scale) @ components


@dataclass(frozen=True, repr=False)
class FactoredMap(_OutputPart):
    """`adapted = sum_u (x_u Phi_u^T * scale_u) Phi_u @ after + output @ W (+ output) + bias`, absent terms left out.

    x_u: (image, dim), a unit's contribution. factors: label, components (component, dim), scale (component,); without
    components the one scale multiplies the whole contribution. output and after: (dim, dim). bias: (dim,).
    """

    bias: Float[Tensor, " dim"]
    adds_output: bool
    factors: tuple[tuple[str, Tensor | None, Tensor], ...] = ()
    output: Float[Tensor, "dim dim"] | None = None
    after: Float[Tensor, "dim dim"] | None = None

    def __repr__(self) -> str:
        return f"FactoredMap({plural(len(self.factors), 'unit')}, dim={self.bias.shape[0]:,})"

    @property
    def needs_units(self) -> bool:
        """Whether coordinates of units are read; otherwise the plain embedding is enough and nothing is traced."""
        return bool(self.factors)

    def __call__(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalized: O(image x component x dim), in the dtype of the map."""
        y = coordinates.to(dtype=self.bias.dtype)
        units = y.units
        total = torch.zeros_like(y.output)
        for label, components, scale in self.factors:
            x = y.of(units.get(label))
            total = total + scale * x if components is None else total.addmm_(x @ components.T * scale, components)
        return self.of_output(y.output) + (total if self.after is None else total @ self.after)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FactoredMap:
        """The same map on a different device or in a different dtype."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, dtype)

        factors = tuple(
            (label, moved(components), scale.to(device, dtype)) for label, components, scale in self.factors
        )
        return FactoredMap(
            self.bias.to(device, dtype), self.adds_output, factors, moved(self.output), moved(self.after)
        )


@dataclass(frozen=True, eq=False, repr=False)
class Adapted(HasLambdas):
    """What was learned, on a tower with these maps: the mathematics of an adapter, without its model and its files.

    scaling: what the lambdas multiply, components in the output space, float64. learned: `lambdas` joined over units,
    or `map` (dim, dim) and `bias` (dim,). classifier: for adapted embeddings; base_classifier: for those before
    adapting.
    """

    maps: UnitMaps
    scaling: Scaling
    learned: Mapping[str, Tensor]
    classifier: Classifier
    base_classifier: Classifier

    def __repr__(self) -> str:
        learned = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.learned.items())
        return f"Adapted({self.scaling!r}, {learned or 'nothing learned'})"

    @cached_property
    def exact_map(self) -> FoldedMap | FactoredMap:
        """Everything as one linear map of coordinates, float64."""
        lambdas = self.learned.get("lambdas", torch.zeros(0)).to(self.maps.embedding.device)
        return fold(self.maps, self.scaling, lambdas, self.learned.get("map"), self.learned.get("bias"))

    def map_like(self, tensor: Tensor) -> FoldedMap | FactoredMap:
        """The map in the dtype and on the device of a tensor, cached until a different one is needed."""
        kept: FoldedMap | FactoredMap | None = self.__dict__.get("_map")
        if kept is None or kept.bias.dtype != tensor.dtype or kept.bias.device != tensor.device:
            kept = self.__dict__["_map"] = self.exact_map.to(tensor.device, tensor.dtype)
        return kept

    def embed(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalized. One matrix product. `BadInputError` if the tower is a different one."""
        expected = self.maps.value_shapes
        got = {name: tuple(tensor.shape[1:]) for name, tensor in coordinates.tensors().items()}
        other = [name for name in {**expected, **got} if got.get(name) != expected.get(name)]
        if other:
            listed = ", ".join(f"{name} {expected.get(name)} (got {got.get(name)})" for name in other)
            raise BadInputError(f"the coordinates are those of a different tower: expected {listed} per image")
        return self.map_like(coordinates.output)(coordinates)
