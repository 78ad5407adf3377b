"""A head's pooled value as a sum over tokens.

The pooled value is `z = sum_q w_q sum_t a_qt v_t`: the weights w_q of the pooled tokens (1 / sigma included) are
numbers of the image, so the part of token t is `(sum_q w_q a_qt) v_t`. A norm before the output projection has
statistics of its own, s_q over all heads of a query; given them, `z = sum_q w_q [gamma (x_q - mean x_q) / s_q + beta]`
is linear too: w_q takes in 1 / s_q, every part loses its own mean over all heads, and beta belongs to no token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.location.attention import SeenAttention

__all__ = ["HeadParts", "head_parts"]


@dataclass(frozen=True)
class HeadParts:
    """tokens: the part of each token in a head's pooled value; constant: what belongs to none. They sum to it."""

    tokens: Float[Tensor, "image pool_head token head_dim"]
    constant: Float[Tensor, "image pool_head head_dim"]


def head_parts(seen: SeenAttention, query_weights: Float[Tensor, "image pool_head query"], head: int) -> HeadParts:
    """One head of a layer: O(image x pool_head x query x token), and the same over all heads behind a norm."""
    n_heads, head_dim = seen.values.shape[1], seen.values.shape[-1]
    norm = seen.norm
    within = query_weights if norm is None else query_weights * norm.inverse_std[:, None]
    values = seen.values[:, head]
    tokens = torch.einsum("npq,nqt->npt", within, seen.weights[:, head])[..., None] * values[:, None]
    if norm is None:
        return HeadParts(tokens, torch.zeros_like(tokens[:, :, 0]))
    own = slice(head * head_dim, (head + 1) * head_dim)
    # the mean over all heads of what each token gave to the pooled queries
    means = torch.einsum("npq,nhqt,nht->npt", within, seen.weights, seen.values.mean(dim=-1)) / n_heads
    constant = torch.zeros_like(tokens[:, :, 0])
    if norm.bias is not None:
        constant = constant + query_weights.sum(dim=-1, keepdim=True) * norm.bias[own]
    return HeadParts((tokens - means[..., None]) * norm.weight[own], constant)
