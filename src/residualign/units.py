"""Residual units: which ones a model has, their order and their labels."""

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
    """One term of the sum that the output of a vision transformer is: an attention head, an MLP, or the embedding.

    Attributes
    ----------
    kind : {"embedding", "head", "mlp"}
        What the unit is. The embedding is the residual stream before the first block.
    layer : int or None
        Layer, from 0. None for the embedding, and for the MLP of an attention pooling, which comes after all layers.
    head : int or None
        Head within its layer, from 0; None for other kinds.

    Examples
    --------
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
        """Make the unit that a label names: the inverse of `label`.

        Parameters
        ----------
        label : str
            `"embedding"`, `"L3.mlp"`, `"pool.mlp"` or `"L3.H7"`.

        Returns
        -------
        Unit
            Whether a model has it is not checked; see `Units.get`.

        Raises
        ------
        BadInputError
            For any other text.

        Examples
        --------
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
    """All units of one model in their fixed order, as a sequence of `Unit`.

    The embedding first, then the MLPs by layer, the MLP of an attention pooling if there is one, and the heads layer
    by layer.

    Parameters
    ----------
    n_layers : int
        Number of transformer blocks.
    n_heads : int
        Attention heads per block.
    pool_mlp : bool
        Whether the model pools by attention with an MLP, which is one more unit.

    Examples
    --------
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
        """Number of groups over which constants are shared out: 2L+1, as the pooling's MLP gets no share."""
        return 2 * self.n_layers + 1

    def of_kind(self, *kinds: UnitKind) -> tuple[Unit, ...]:
        """Units of the given kinds (`"embedding"`, `"head"`, `"mlp"`), in unit order."""
        return tuple(unit for unit in self._units if unit.kind in kinds)

    def get(self, unit: Unit | str) -> Unit:
        """Look up a unit by its label.

        Parameters
        ----------
        unit : Unit or str
            A label such as `"L3.H7"`; a unit is returned as it is, once it is known to be there.

        Returns
        -------
        Unit

        Raises
        ------
        BadInputError
            Where the model has no such unit.
        """
        found: Unit = self._units[self.index(unit)]
        return found

    def index(self, value: Unit | str, start: int = 0, stop: int | None = None) -> int:
        """Position of a unit, or of the unit with this label, in the fixed order.

        Parameters
        ----------
        value : Unit or str
            A unit or its label.
        start, stop : int, optional
            Ignored; part of the signature of sequences.

        Returns
        -------
        int

        Raises
        ------
        BadInputError
            Where the model has no such unit.
        """
        label = value.label if isinstance(value, Unit) else value
        try:
            return self._index[label]
        except (KeyError, TypeError):
            raise BadInputError(
                f"no unit {label!r} in a tower of {self.n_layers} layers with {self.n_heads} heads each; its units "
                f"are {self._described()}"
            ) from None

    def _described(self) -> str:
        """The labels, without writing out each of them."""
        last = self.n_layers - 1
        named = ["'embedding'", f"'L0.mlp' to 'L{last}.mlp'", f"'L0.H0' to 'L{last}.H{self.n_heads - 1}'"]
        return ", ".join([*named, "'pool.mlp'"] if self.pool_mlp else named)

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
