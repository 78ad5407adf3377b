"""Attention weights and values of chosen layers, read off a plain forward pass, whichever kernel computes them.

A head's value at a token is a weighted sum of values over all tokens, `z_q = sum_t a_qt v_t`. Both factors are seen
where a block calls `scaled_dot_product_attention`, or multiplies a softmax with values (BLIP and other eager
attentions): a `TorchFunctionMode` sees every torch function while it is open. Nothing of torch or of the tower is
changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from torch.overrides import TorchFunctionMode

from residualign.decomposition.maps import working_dtype
from residualign.errors import BadInputError
from residualign.models.pooling import TokenPooling
from residualign.models.tower import Tower

__all__ = ["SeenAttention", "SubNorm", "attention_weights", "watch_attention"]


@dataclass(frozen=True)
class SubNorm:
    """A LayerNorm between the heads' values and their output projection (EVA-02), given its statistics a linear map.

    inverse_std: (image, query), of the pooled queries. weight and bias: (head x head_dim,).
    """

    inverse_std: Float[Tensor, "image query"]
    weight: Float[Tensor, " value"]
    bias: Float[Tensor, " value"] | None


@dataclass(frozen=True)
class SeenAttention:
    """What one layer's attention did for the pooled tokens, in the tower's working dtype.

    weights: of the pooled queries over all tokens, rows sum to one. values: before the weighting.
    """

    weights: Float[Tensor, "image head query token"]
    values: Float[Tensor, "image head token head_dim"]
    norm: SubNorm | None


@contextmanager
def watch_attention(tower: Tower, layers: Iterable[int]) -> Iterator[dict[int, SeenAttention]]:
    """While it is open, a forward pass of the tower fills the mapping with the attention of these layers.

    Open it inside a `Trace`, whose exchanged attentions it needs (open_clip). Hooks and mode are gone when the body
    ends or raises. Memory: image x head x pooled query x token numbers per layer. `BadInputError` naming the layer,
    from the forward pass, for an attention that is neither kind of call.
    """
    wanted, seen = frozenset(layers), dict[int, SeenAttention]()
    mode = _Mode(tower, seen)
    handles = [
        block.out_proj.register_forward_pre_hook(mode.layer_ends(layer, layer in wanted))
        for layer, block in enumerate(tower.blocks)
    ]
    try:
        with mode:
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def attention_weights(
    query: Float[Tensor, "image head query size"],
    key: Float[Tensor, "image head token size"],
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Float[Tensor, "image head query token"]:
    """softmax(q k^T scale + mask), as torch documents it; a boolean mask says which tokens take part.

    scale: 1 / sqrt(size) where None.
    """
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.to(logits)
    return logits.softmax(dim=-1)


_SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)
_FACTORS = (torch.mul, Tensor.mul, Tensor.__mul__)
# what may stand between a softmax and its product with the values without changing it
_PASSES = (F.dropout, torch.dropout, Tensor.to, Tensor.type_as, Tensor.contiguous)


class _Mode(TorchFunctionMode):
    """Keeps the last attention, and the norm after it, until the block's output projection asks for its input."""

    def __init__(self, tower: Tower, seen: dict[int, SeenAttention]) -> None:
        super().__init__()
        self._tower, self._seen = tower, seen
        self._dtype = working_dtype(tower.dtype)
        self._forget()

    def _forget(self) -> None:
        self._attention: tuple[Tensor, Tensor] | None = None
        self._output: Tensor | None = None
        self._norm: SubNorm | None = None
        self._softmax: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._attended(self._of_kernel(*args, **kwargs), result)
        elif func in _SOFTMAXES:
            self._softmax = result
        elif self._softmax is not None and args and args[0] is self._softmax:
            if func in _PASSES:
                self._softmax = result
            elif func in _PRODUCTS:
                self._attended((self._pooled_rows(args[0]).to(self._dtype), args[1]), result)
        elif func in _FACTORS and self._attention is not None and args[0] is self._output:
            self._scale_heads(args[1], result)
        elif func is F.layer_norm and self._attention is not None:
            self._norm = self._sub_norm(*args, **kwargs)
        return result

    def _attended(self, attention: tuple[Tensor, Tensor], output: Tensor) -> None:
        self._attention, self._output, self._norm = attention, output, None

    def _scale_heads(self, factor: Any, output: Tensor) -> None:
        """One number per head (open_clip's `scale_heads`) goes to the values; anything else shows in their sum."""
        if isinstance(factor, Tensor) and tuple(factor.shape) == (self._tower.n_heads, 1, 1):
            assert self._attention is not None
            weights, values = self._attention
            self._attended((weights, values * factor), output)

    def layer_ends(self, layer: int, wanted: bool) -> Any:
        """The hook of a layer's output projection."""

        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if wanted:
                self._keep(layer)
            self._forget()

        return hook

    def _keep(self, layer: int) -> None:
        n_heads = self._tower.n_heads
        if self._attention is None or any(one.ndim != 4 or one.shape[1] != n_heads for one in self._attention):
            raise BadInputError(
                f"the attention of layer {layer} calls neither scaled_dot_product_attention nor a softmax times values "
                f"over {n_heads} heads, so its parts cannot be told apart"
            )
        weights, values = self._attention
        self._seen[layer] = SeenAttention(weights.detach(), values.detach().to(self._dtype), self._norm)

    def _pooled_rows(self, x: Tensor) -> Tensor:
        """Rows of the pooled queries of (..., query, size)."""
        pooling = self._tower.pooling
        if isinstance(pooling, TokenPooling):
            return x[..., pooling.index : pooling.index + 1, :]
        return x[..., pooling.first :, :]

    def _of_kernel(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> tuple[Tensor, Tensor]:
        if dropout_p:
            raise BadInputError(f"attention with dropout {dropout_p} has no parts that add up; put the model in eval()")
        if is_causal:
            shape = (query.shape[-2], key.shape[-2])
            attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.ndim > 1 and attn_mask.shape[-2] != 1:
            attn_mask = self._pooled_rows(attn_mask)
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = (x.repeat_interleave(repeats, dim=-3) for x in (key, value))
        rows = self._pooled_rows(query).to(self._dtype)
        # this mode is off in here: this softmax is not taken for the tower's
        return attention_weights(rows, key.to(self._dtype), attn_mask, scale), value

    def _sub_norm(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> SubNorm | None:
        rows = self._pooled_rows(input).to(self._dtype)
        if input.ndim != 3 or tuple(normalized_shape) != tuple(input.shape[-1:]):
            return None
        scale = torch.ones_like(rows[0, 0]) if weight is None else weight.detach().to(self._dtype)
        shift = None if bias is None else bias.detach().to(self._dtype)
        return SubNorm(torch.rsqrt(rows.var(dim=-1, correction=0) + eps), scale, shift)
