"""Accuracy with units ablated: curves over heads that are added one by one, sets of units, and sets by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.units import Unit, Units

__all__ = [
    "LAYER_KINDS",
    "AblationMode",
    "ClassProducts",
    "LayerSet",
    "accuracy_curves",
    "check_ablation",
    "kept_accuracies",
    "layer_sets",
    "replacements",
    "unit_mask",
    "unit_means",
]

AblationMode = Literal["zero", "mean"]

# bytes of products held at a time
_BYTES = 2**26

LAYER_KINDS = {
    "all": "every unit",
    "heads": "all heads, and nothing else",
    "mlps": "all MLPs and the embedding, and nothing else",
    "heads of layer": "the heads of one layer, and nothing else",
    "heads up to layer": "the heads of this and earlier layers, and nothing else",
    "heads from layer": "the heads of this and later layers, and nothing else",
    "up to layer": "all units of this and earlier layers",
    "from layer": "all units of this and later layers",
    "without heads": "everything but this layer's heads",
    "without mlp": "everything but this layer's MLP",
    "without layer": "everything but this layer's heads and MLP",
}
"""What is kept, by kind. The embedding counts as part of the first layer, the MLP of attention pooling of the last."""


def accuracy_curves(
    products: ClassProducts,
    orders: Sequence[Sequence[int]],
    replaced: Float[Tensor, "unit class"],
    *,
    keep_mlps: bool = False,
) -> Float[Tensor, "order head"]:
    """Accuracy with the first 1, 2, ... heads of each order, in [0, 1].

    orders: positions among the heads (in unit order), each a permutation. replaced: see `replacements`. keep_mlps:
    whether MLPs and embedding are kept; the paper ablates them. One running sum per order: O(image x head x class) for
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
    """Accuracy, in [0, 1], with only the marked units kept, for many sets at once.

    O(image x class x unit x setting).
    """
    correct = torch.zeros(len(kept), dtype=torch.float64)
    for values, labels in products.blocks():
        sums = torch.einsum("su,iuc->sic", kept.double(), values - replaced) + replaced.sum(dim=0)
        correct += (sums.argmax(dim=-1) == labels).sum(dim=-1)
    return correct / max(len(products), 1)


def check_ablation(mode: str) -> str:
    """`BadInputError` for anything but "zero" and "mean"."""
    if mode not in get_args(AblationMode):
        raise BadInputError(f"ablation is 'zero' or 'mean', got {mode!r}")
    return mode


def replacements(
    products: ClassProducts, ablation: str, means: Mapping[str, Tensor], vectors: Float[Tensor, "class dim"]
) -> Float[Tensor, "unit class"]:
    """What replaces an ablated unit, as products with the class vectors.

    "zero": nothing, so that the unit's share of the constants goes too; "mean": `means[label]`, (dim,).
    """
    if check_ablation(ablation) == "zero":
        return torch.zeros_like(products.constants)
    return torch.stack([means[unit.label].to(products.constants) for unit in products.units]) @ vectors.double().T


def unit_means(coordinates: Coordinates, maps: UnitMaps) -> Mapping[str, Tensor]:
    """The mean contribution, (dim,) float64, of every unit over some images. One matrix product per unit."""
    return {
        unit.label: coordinates.of(unit).double().mean(dim=0) @ maps.weight(unit).double() + maps.bias(unit).double()
        for unit in maps.units
    }


@dataclass(frozen=True)
class ClassProducts:
    """The products of unit contributions with class vectors for some images, block by block, in float64.

    units: in unit order. weights: one (coordinate, class) matrix per unit, its map times the class vectors; constants:
    (unit, class), its constants times the class vectors.
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
        """Products of all units. Costs coordinate x dim x class per unit before the first image."""
        units, to = tuple(maps.units), vectors.double().T
        # towers that pool by attention have one map for all units: it is multiplied, and kept, once
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

    def blocks(self) -> Iterator[tuple[Float[Tensor, "image unit class"], Int[Tensor, " image"]]]:
        """(products, labels) of a few images at a time. O(image x coordinate x class) over all of them."""
        size = max(_BYTES // (8 * self.constants.numel()), 1)
        for start in range(0, len(self), size):
            part = self.coordinates[start : start + size]
            products = torch.empty(len(part), *self.constants.shape, dtype=torch.float64)
            for i, (unit, weight) in enumerate(zip(self.units, self.weights, strict=True)):
                products[:, i] = part.of(unit).double() @ weight
            yield products + self.constants, self.labels[start : start + size]


@dataclass(frozen=True)
class LayerSet:
    """A set of units that are kept: a kind of `LAYER_KINDS`, and the layer if the kind refers to one."""

    kind: str
    layer: int | None
    units: tuple[Unit, ...]


def layer_sets(units: Units) -> tuple[LayerSet, ...]:
    """All sets that are evaluated: three for the whole model, eight per layer.

    Source: arXiv 2411.00246 section 5 (heads, MLPs, heads of a layer, heads up to a layer); the others are ours.
    """
    last = units.n_layers - 1

    def place(unit: Unit) -> int:
        if unit.layer is not None:
            return unit.layer
        return 0 if unit.kind == "embedding" else last

    kinds: dict[str, Callable[[Unit, int], bool]] = {
        "heads of layer": lambda unit, layer: unit.kind == "head" and unit.layer == layer,
        "heads up to layer": lambda unit, layer: unit.kind == "head" and place(unit) <= layer,
        "heads from layer": lambda unit, layer: unit.kind == "head" and place(unit) >= layer,
        "up to layer": lambda unit, layer: place(unit) <= layer,
        "from layer": lambda unit, layer: place(unit) >= layer,
        "without heads": lambda unit, layer: not (unit.kind == "head" and unit.layer == layer),
        "without mlp": lambda unit, layer: not (unit.kind == "mlp" and unit.layer == layer),
        "without layer": lambda unit, layer: unit.layer != layer,
    }
    whole = (
        LayerSet("all", None, tuple(units)),
        LayerSet("heads", None, units.of_kind("head")),
        LayerSet("mlps", None, units.of_kind("embedding", "mlp")),
    )
    return whole + tuple(
        LayerSet(kind, layer, tuple(unit for unit in units if keeps(unit, layer)))
        for kind, keeps in kinds.items()
        for layer in range(units.n_layers)
    )


def unit_mask(sets: tuple[LayerSet, ...], units: Units) -> Bool[Tensor, "setting unit"]:
    """Which units each set keeps, in unit order."""
    return torch.tensor([[unit in one.units for unit in units] for one in sets])
