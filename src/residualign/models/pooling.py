"""How a tower turns its tokens into one vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from residualign.models.protocols import Projection

__all__ = [
    "CLASS_TOKEN",
    "AttentionPooling",
    "MeanPooling",
    "PackedProjection",
    "Pooling",
    "TokenPooling",
    "pooling_constants",
]


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
    """Rows [start, stop) of a packed weight and bias as a projection; follows them to other devices and dtypes."""

    packed_weight: Tensor
    packed_bias: Tensor | None
    start: int
    stop: int

    @property
    def weight(self) -> Tensor:
        return self.packed_weight[self.start : self.stop]

    @property
    def bias(self) -> Tensor | None:
        return None if self.packed_bias is None else self.packed_bias[self.start : self.stop]

    @property
    def out_features(self) -> int:
        return self.stop - self.start
