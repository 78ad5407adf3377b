"""What was learned, on the units of one tower: the mathematics of an adapter, without its model and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.adapter.fold import FactoredMap, FoldedMap, fold
from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.fitting.coefficients import Scaling

__all__ = ["Adapted"]


@dataclass(frozen=True, eq=False, repr=False)
class Adapted:
    """An adapter on a tower with these maps.

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

    @property
    def lambdas(self) -> Mapping[str, Tensor]:
        """Lambdas of every scaled unit under its label, (component,)."""
        return self.scaling.split(self.learned["lambdas"]) if "lambdas" in self.learned else {}

    @cached_property
    def exact_map(self) -> FoldedMap | FactoredMap:
        """Everything as one linear map of coordinates, float64."""
        lambdas = self.learned.get("lambdas", torch.zeros(0)).to(self.maps.embedding.device)
        return fold(self.maps, self.scaling, lambdas, self.learned.get("map"), self.learned.get("bias"))

    def map_like(self, tensor: Tensor) -> FoldedMap | FactoredMap:
        """The map in the dtype and on the device of a tensor, kept until a different one is asked for."""
        kept: FoldedMap | FactoredMap | None = self.__dict__.get("_map")
        if kept is None or kept.bias.dtype != tensor.dtype or kept.bias.device != tensor.device:
            kept = self.__dict__["_map"] = self.exact_map.to(tensor.device, tensor.dtype)
        return kept

    def embed(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalized. One matrix product. `BadInputError` for those of another tower."""
        expected = self.maps.value_shapes
        got = {name: tuple(tensor.shape[1:]) for name, tensor in coordinates.tensors().items()}
        other = [name for name in {**expected, **got} if got.get(name) != expected.get(name)]
        if other:
            listed = ", ".join(f"{name} {expected.get(name)} (got {got.get(name)})" for name in other)
            raise BadInputError(f"the coordinates are those of a different tower: expected {listed} per image")
        return self.map_like(coordinates.output)(coordinates)
