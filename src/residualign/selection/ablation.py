"""Accuracy with units left out: curves over heads that are added one by one, and any sets of units at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.units import Unit

__all__ = [
    "AblationMode",
    "ClassProducts",
    "accuracy_curves",
    "check_ablation",
    "kept_accuracies",
    "replacements",
    "unit_means",
]

AblationMode = Literal["zero", "mean"]


def check_ablation(mode: str) -> str:
    """`BadInputError` for anything but "zero" and "mean"."""
    if mode not in get_args(AblationMode):
        raise BadInputError(f"ablation is 'zero' or 'mean', got {mode!r}")
    return mode


def replacements(
    products: ClassProducts, ablation: str, means: Mapping[str, Tensor], vectors: Float[Tensor, "class dim"]
) -> Float[Tensor, "unit class"]:
    """What stands in a unit's place once it is left out, as products with the class vectors.

    "zero": nothing, so that a unit goes with its share of the constants; "mean": `means[label]`, (dim,).
    """
    if check_ablation(ablation) == "zero":
        return torch.zeros_like(products.constants)
    return torch.stack([means[unit.label].to(products.constants) for unit in products.units]) @ vectors.double().T


def accuracy_curves(
    products: ClassProducts,
    orders: Sequence[Sequence[int]],
    replaced: Float[Tensor, "unit class"],
    *,
    keep_mlps: bool = False,
) -> Float[Tensor, "order head"]:
    """Accuracy with the first 1, 2, ... heads of each order, in [0, 1].

    orders: positions among the heads (in unit order), each a permutation. replaced: see `replacements`. keep_mlps:
    whether MLPs and embedding stay; the paper leaves them out. One running sum an order: O(image x head x class) for
    all its heads.
    """
    positions = [i for i, unit in enumerate(products.units) if unit.kind == "head"]
    others = [i for i, unit in enumerate(products.units) if unit.kind != "head"]
    correct = torch.zeros(len(orders), len(positions), dtype=torch.float64)
    chosen = [torch.tensor([positions[i] for i in order]) for order in orders]
    for values, labels in products.blocks():
        changed = values - replaced
        base = replaced.sum(dim=0).expand(len(labels), -1)
        if keep_mlps:
            base = base + changed[:, others].sum(dim=1)
        for i, order in enumerate(chosen):
            running = changed[:, order].cumsum(dim=1) + base[:, None]
            correct[i] += (running.argmax(dim=-1) == labels[:, None]).sum(dim=0)
    return correct / max(len(products), 1)


def kept_accuracies(
    products: ClassProducts, kept: Bool[Tensor, "setting unit"], replaced: Float[Tensor, "unit class"]
) -> Float[Tensor, " setting"]:
    """Accuracy, in [0, 1], where only the units marked are kept, for many sets at once.

    O(image x class x unit x setting).
    """
    correct = torch.zeros(len(kept), dtype=torch.float64)
    for values, labels in products.blocks():
        sums = torch.einsum("su,iuc->sic", kept.double(), values - replaced) + replaced.sum(dim=0)
        correct += (sums.argmax(dim=-1) == labels).sum(dim=-1)
    return correct / max(len(products), 1)


_BYTES = 2**26


"""What one block of products may take."""


@dataclass(frozen=True)
class ClassProducts:
    """The products of the units of some images with class vectors, block by block, in float64.

    units: in unit order. weights: (coordinate, class) a unit, its map times the class vectors; constants:
    (unit, class), likewise of its constants.
    """

    coordinates: Coordinates
    labels: Int[Tensor, " image"]
    units: tuple[Unit, ...]
    weights: tuple[Tensor, ...]
    constants: Float[Tensor, "unit class"]

    @classmethod
    def of(
        cls,
        coordinates: Coordinates,
        labels: Int[Tensor, " image"],
        maps: UnitMaps,
        vectors: Float[Tensor, "class dim"],
    ) -> ClassProducts:
        """Of all units. Costs coordinate x dim x class a unit before the first image."""
        units, to = tuple(maps.units), vectors.double().T
        # towers that pool by attention have one map for all units: it is multiplied, and held, once
        known: dict[int, Tensor] = {}
        weights = []
        for unit in units:
            weight = maps.weight(unit)
            if weight.data_ptr() not in known:
                known[weight.data_ptr()] = weight.double() @ to
            weights.append(known[weight.data_ptr()])
        constants = torch.stack([maps.bias(unit).double() for unit in units]) @ to
        return cls(coordinates, labels, units, tuple(weights), constants)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """How many class vectors there are."""
        return self.constants.shape[1]

    def blocks(self) -> Iterator[tuple[Float[Tensor, "image unit class"], Int[Tensor, " image"]]]:
        """(products, labels) of a few images at a time. O(image x coordinate x class) over all of them."""
        size = max(_BYTES // (8 * len(self.units) * self.n_classes), 1)
        for start in range(0, len(self), size):
            part = self.coordinates[start : start + size]
            products = torch.empty(len(part), len(self.units), self.n_classes, dtype=torch.float64)
            for i, (unit, weight) in enumerate(zip(self.units, self.weights, strict=True)):
                products[:, i] = part.of(unit).double() @ weight
            yield products + self.constants, self.labels[start : start + size]


def unit_means(coordinates: Coordinates, maps: UnitMaps) -> Mapping[str, Tensor]:
    """The mean contribution, (dim,) float64, of every unit over some images. One product a unit."""
    return {
        unit.label: coordinates.of(unit).double().mean(dim=0) @ maps.weight(unit).double() + maps.bias(unit).double()
        for unit in maps.units
    }
