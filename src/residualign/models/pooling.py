"""How a tower turns its tokens into one vector, and the linear maps on that way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

__all__ = [
    "CLASS_TOKEN",
    "AttentionPooling",
    "MeanPooling",
    "PackedProjection",
    "Pooling",
    "Projection",
    "TokenPooling",
    "packed_thirds",
    "pooling_constants",
]


@runtime_checkable
class Projection(Protocol):
    """The linear map from the residual stream to the output space, with the attributes of `nn.Linear`."""

    @property
    def weight(self) -> Tensor:
        """(dim, width)."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """(dim,), or None."""
        ...

    @property
    def out_features(self) -> int:
        """dim."""
        ...


@dataclass(frozen=True)
class TokenPooling:
    """One token, the class token in most towers, is taken before or after the final norm."""

    index: int = 0


@dataclass(frozen=True)
class MeanPooling:
    """The mean over all tokens from `first` on; class token and registers come before.

    norm_first: whether the final norm is applied to every token before the mean, instead of once to the mean.
    """

    first: int
    norm_first: bool


@dataclass(frozen=True)
class AttentionPooling:
    """A learned query attends to all tokens, each normed by the tower's final norm.

    n_heads: the pooling's own heads. query: returns the query (pool_head x pool_head_dim,) after its projection, times
    the softmax scale; a function, because the tower may be moved. key, value, out: the other projections. mlp: its
    output is added to the pooled vector. norm: applied to the pooled vector before the tower's projection, or None.
    first: the first token that is attended to.
    """

    n_heads: int
    query: Callable[[], Tensor]
    key: Projection
    value: Projection
    out: Projection
    mlp: nn.Module | None = None
    norm: nn.LayerNorm | None = None
    first: int = 0


Pooling = TokenPooling | MeanPooling | AttentionPooling

CLASS_TOKEN = TokenPooling()
"""The first token: what most towers pool."""


def pooling_constants(pooling: Pooling) -> dict[str, str]:
    """What decides the output of a pooling besides its weights, for the fingerprint; empty for a class token."""
    if isinstance(pooling, TokenPooling):
        return {"pooled_token": str(pooling.index)} if pooling.index else {}
    if isinstance(pooling, MeanPooling):
        return {"pooling": f"mean from token {pooling.first}, norm {'before' if pooling.norm_first else 'after'}"}
    return {"pooling": f"attention from token {pooling.first}, heads {pooling.n_heads}"}


@dataclass(frozen=True)
class PackedProjection:
    """Rows [start, stop) of a packed weight and bias as a projection; follows them to other devices and dtypes.

    is_packed: False if `weight_rows` has only the rows of this projection, as `nn.MultiheadAttention` has if key sizes
    differ.
    """

    weight_rows: Tensor
    bias_rows: Tensor | None
    start: int
    stop: int
    is_packed: bool = True

    @property
    def weight(self) -> Tensor:
        return self.weight_rows[self.start : self.stop] if self.is_packed else self.weight_rows

    @property
    def bias(self) -> Tensor | None:
        return None if self.bias_rows is None else self.bias_rows[self.start : self.stop]

    @property
    def out_features(self) -> int:
        return self.stop - self.start


def packed_thirds(attention: nn.MultiheadAttention) -> list[PackedProjection]:
    """The projections of queries, keys and values."""
    weights = [attention.in_proj_weight] * 3
    is_packed = attention.in_proj_weight is not None
    if not is_packed:
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    width, bias = attention.embed_dim, attention.in_proj_bias
    return [
        PackedProjection(weight, bias, part * width, (part + 1) * width, is_packed)
        for part, weight in enumerate(weights)
    ]
