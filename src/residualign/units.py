"""Which residual units a tower has, in which order, under which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from residualign.errors import BadInputError

__all__ = ["Unit", "UnitKind", "Units"]

UnitKind = Literal["embedding", "head", "mlp"]

_LABEL = re.compile(r"L(0|[1-9][0-9]*)\.(?:H(0|[1-9][0-9]*)|mlp)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Unit:
    """One term of the sum that a vision transformer's output is.

    `layer` and `head` count from 0; the embedding has neither, an MLP has no head. The MLP of an attention pooling,
    which comes after all layers, has no layer.

    >>> Unit("head", layer=3, head=7).label, Unit("mlp", layer=3).label, Unit("embedding").label, Unit("mlp").label
    ('L3.H7', 'L3.mlp', 'embedding', 'pool.mlp')
    """

    kind: UnitKind
    layer: int | None = None
    head: int | None = None

    @property
    def label(self) -> str:
        """`"embedding"`, `"L3.mlp"`, `"pool.mlp"` or `"L3.H7"`."""
        if self.kind == "embedding":
            return "embedding"
        if self.kind == "mlp":
            return "pool.mlp" if self.layer is None else f"L{self.layer}.mlp"
        return f"L{self.layer}.H{self.head}"

    @classmethod
    def parse(cls, label: str) -> Unit:
        """The unit with this label: the inverse of `label`. `BadInputError` for any other text.

        >>> Unit.parse("L3.H7").kind, Unit.parse("L3.mlp").layer, Unit.parse("pool.mlp").kind
        ('head', 3, 'mlp')
        """
        if label in ("embedding", "pool.mlp"):
            return cls("embedding" if label == "embedding" else "mlp")
        found = _LABEL.fullmatch(label) if isinstance(label, str) else None
        if found is None:
            raise BadInputError(
                f"{label!r} is not the label of a unit; labels are 'embedding', 'L0.mlp', 'L0.H0' and so on"
            )
        layer, head = found.groups()
        return cls("mlp", int(layer)) if head is None else cls("head", int(layer), int(head))


class Units(Sequence[Unit]):
    """The units of one tower in their fixed order: embedding, MLPs by layer, the pooling's MLP, heads layer by layer.

    Behaves like a tuple of `Unit`; `index` takes a unit or its label.

    >>> [unit.label for unit in Units(n_layers=2, n_heads=2)]
    ['embedding', 'L0.mlp', 'L1.mlp', 'L0.H0', 'L0.H1', 'L1.H0', 'L1.H1']
    """

    def __init__(self, n_layers: int, n_heads: int, pool_mlp: bool = False) -> None:
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.pool_mlp = pool_mlp
        self._units = (
            Unit("embedding"),
            *(Unit("mlp", layer) for layer in range(n_layers)),
            *((Unit("mlp"),) if pool_mlp else ()),
            *(Unit("head", layer, head) for layer in range(n_layers) for head in range(n_heads)),
        )
        self._index = {unit.label: i for i, unit in enumerate(self._units)}

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in unit order."""
        return tuple(self._index)

    @property
    def n_groups(self) -> int:
        """The 2L+1 groups over which constants are shared out: the pooling's MLP is none of them."""
        return 2 * self.n_layers + 1

    def of_kind(self, *kinds: UnitKind) -> tuple[Unit, ...]:
        """The units of these kinds, in unit order."""
        return tuple(unit for unit in self._units if unit.kind in kinds)

    def get(self, unit: Unit | str) -> Unit:
        """The unit with this label; `BadInputError` where the tower has none."""
        found: Unit = self._units[self.index(unit)]
        return found

    def index(self, value: Unit | str, start: int = 0, stop: int | None = None) -> int:
        """Position of a unit or label; `BadInputError` naming the label where the tower has none."""
        label = value.label if isinstance(value, Unit) else value
        try:
            return self._index[label]
        except (KeyError, TypeError):
            raise BadInputError(
                f"no unit {label!r} in a tower of {self.n_layers} layers and {self.n_heads} heads; "
                "labels are 'embedding', 'L0.mlp', 'L0.H0' and so on"
            ) from None

    def __contains__(self, value: object) -> bool:
        label = value.label if isinstance(value, Unit) else value
        return label in self._index

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Unit, ...]: ...
    def __getitem__(self, index: int | slice) -> Unit | tuple[Unit, ...]:
        return self._units[index]

    def __len__(self) -> int:
        return len(self._units)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and self.labels == other.labels

    def __hash__(self) -> int:
        return hash(self.labels)

    def __repr__(self) -> str:
        pool = ", pool_mlp=True" if self.pool_mlp else ""
        return f"Units(n_layers={self.n_layers}, n_heads={self.n_heads}{pool})"
