"""Attention that calls its output projection as a function: hooks on the projection would never fire.

torch's `nn.MultiheadAttention` is such a one. While the context is open, the given instances compute the same by way of
the projection's own forward; the class, and every other instance, is left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

__all__ = ["explicit_attention"]


@contextlib.contextmanager
def explicit_attention(modules: Sequence[nn.MultiheadAttention]) -> Iterator[None]:
    """Exchange the forward of these instances for an equivalent one; put back what was there, also after an error.

    The same numbers up to rounding (torch's fused kernel adds in another order). Contexts nest.
    """
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = partial(_self_attention, module)  # type: ignore[method-assign]
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward  # type: ignore[method-assign]


def _self_attention(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Self-attention of an image tower: no mask, no weights asked for, no extra keys."""
    unasked = all(option is None or option is False for option in options.values())
    plain = query is key and key is value and not need_weights and attn_mask is None and unasked
    if not plain or module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        raise RuntimeError("only plain self-attention can be traced: no mask, no weights, no other keys or values")
    x = query if module.batch_first else query.transpose(0, 1)
    n, length, width = x.shape
    packed = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = packed.view(n, length, 3, module.num_heads, module.head_dim).permute(2, 0, 3, 1, 4)
    dropout = module.dropout if module.training else 0.0
    values = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    out: Tensor = module.out_proj(values.transpose(1, 2).reshape(n, length, width))
    return (out if module.batch_first else out.transpose(0, 1)), None
