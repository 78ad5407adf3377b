"""Which layers carry a task: parts of the tower left out layer by layer, or kept up to a layer or from one on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from residualign.units import Unit, Units

__all__ = ["LAYER_KINDS", "LayerSet", "layer_sets", "unit_mask"]

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
"""What is kept, by kind. The embedding counts to the first layer, the MLP of an attention pooling to the last."""


@dataclass(frozen=True)
class LayerSet:
    """One set of units that are kept: a kind of `LAYER_KINDS`, and the layer where the kind speaks of one."""

    kind: str
    layer: int | None
    units: tuple[Unit, ...]


def layer_sets(units: Units) -> tuple[LayerSet, ...]:
    """All sets that are looked at: three without a layer, eight a layer.

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
    layered = tuple(
        LayerSet(kind, layer, tuple(unit for unit in units if keeps(unit, layer)))
        for kind, keeps in kinds.items()
        for layer in range(units.n_layers)
    )
    return whole + layered


def unit_mask(sets: tuple[LayerSet, ...], units: Units) -> Bool[Tensor, "setting unit"]:
    """Which units each set keeps, in unit order."""
    return torch.tensor([[unit in one.units for unit in units] for one in sets])
