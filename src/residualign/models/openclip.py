"""open_clip's own `VisionTransformer` towers: OpenAI, LAION, DataComp, MetaCLIP and DFN checkpoints.

Blocks with torch's `nn.MultiheadAttention` and with open_clip's own `Attention`; with and without layer scale.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError
from residualign.models.pooling import (
    CLASS_TOKEN,
    AttentionPooling,
    MeanPooling,
    PackedProjection,
    Pooling,
    pooling_constants,
)
from residualign.models.protocols import Projection, layer_scale
from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["explicit_attention", "tower"]

_NAMES = {
    "embedding.class": "class_embedding",
    "embedding.patch.weight": "conv1.weight",
    "embedding.position": "positional_embedding",
    "norm_pre": "ln_pre",
    "norm_final": "ln_post",
    "pool": "attn_pool",
    "projection.weight": "proj.T",
}
_BLOCK_NAMES = {
    "norm_attention": "ln_1",
    "[query,key,value].weight": "attn.in_proj_weight",
    "[query,key,value].bias": "attn.in_proj_bias",
    "out": "attn.out_proj",
    # norms of queries and keys, and scales of heads, in open_clip's own attention
    "attention": "attn",
    "scale_attention": "ls_1.gamma?",
    "norm_mlp": "ln_2",
    "mlp.in": "mlp.c_fc",
    "mlp.norm": "mlp.ln?",
    "mlp.out": "mlp.c_proj",
    "scale_mlp": "ls_2.gamma?",
}


@dataclass(frozen=True)
class _Rows:
    """A separate weight with its rows of a packed bias, as `nn.MultiheadAttention` has them if key sizes differ."""

    weight: Tensor
    packed_bias: Tensor | None
    start: int

    @property
    def bias(self) -> Tensor | None:
        return None if self.packed_bias is None else self.packed_bias[self.start : self.start + self.out_features]

    @property
    def out_features(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class _Transposed:
    """A view of a (width, dim) parameter as a projection; follows it to other devices and dtypes."""

    parameter: Tensor

    @property
    def weight(self) -> Tensor:
        return self.parameter.T

    @property
    def bias(self) -> None:
        return None

    @property
    def out_features(self) -> int:
        return int(self.parameter.shape[1])


def tower(model: Any, name: str) -> Tower:
    """Where the parts of `model.visual` are; `BadInputError` names a part that is not supported."""
    visual = model.visual
    _refuse_other_towers(visual, name)
    blocks = list(visual.transformer.resblocks)
    attentions = [block.attn for block in blocks]
    projection = None if visual.proj is None else _Transposed(visual.proj)
    pooling = _pooling(visual)

    def forward(pixels: Tensor) -> Tensor:
        output = visual(pixels)
        pooled: Tensor = output[0] if isinstance(output, tuple) else output
        return pooled

    functional = [attention for attention in attentions if isinstance(attention, nn.MultiheadAttention)]
    return Tower(
        module=visual,
        forward=forward,
        blocks=tuple(
            Block(block.attn.out_proj, block.mlp, layer_scale(block.ls_1), layer_scale(block.ls_2)) for block in blocks
        ),
        entry=blocks[0],
        n_heads=attentions[0].num_heads,
        final_norm=visual.ln_post if visual.attn_pool is None else visual.attn_pool.ln_k,
        projection=projection,
        image_size=int(visual.image_size[0]),
        tensors=neutral_tensors(visual, _NAMES, blocks, _BLOCK_NAMES),
        constants={
            "activation": _activation(blocks[0].mlp.gelu),
            "eps": repr(visual.ln_post.eps),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        exchange=partial(explicit_attention, functional),
    )


def _refuse_other_towers(visual: Any, name: str) -> None:
    kind = type(visual).__name__
    if kind != "VisionTransformer":
        raise BadInputError(f"model {name!r} has a vision tower of type {kind}; supported is VisionTransformer")
    averages_queries = visual.attn_pool is not None and visual.pool_type != "tok"
    parts = {
        f"attentional pooling of type {getattr(visual, 'attn_pool_type', '')!r}": bool(
            getattr(visual, "attn_pool_type", "")
        ),
        # after an attentional pooling, `pool_type` chooses among the queries
        f"pooling {visual.pool_type!r}": visual.pool_type not in ("tok", "avg") or averages_queries,
        "a norm after its attention (ln_attn)": any(
            not isinstance(getattr(block, "ln_attn", nn.Identity()), nn.Identity)
            for block in visual.transformer.resblocks
        ),
    }
    for part, there in parts.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}, which is not supported; expected a tower that pools its class token, "
                "the mean of its patches, or by one attention query"
            )


def _pooling(visual: Any) -> Pooling:
    if visual.attn_pool is not None:
        return _attention_pooling(visual)
    if visual.pool_type == "avg":
        # the class token comes before the patches
        return MeanPooling(first=1, norm_first=not visual.final_ln_after_pool)
    return CLASS_TOKEN


def _attention_pooling(visual: Any) -> AttentionPooling:
    """CoCa's pooling: what the first query reads, normed and projected. The other queries are for captions."""
    pool, attention = visual.attn_pool, visual.attn_pool.attn
    width = attention.embed_dim
    query: Projection
    key: Projection
    value: Projection
    if attention.in_proj_weight is None:
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        query, key, value = (_Rows(weight, attention.in_proj_bias, part * width) for part, weight in enumerate(weights))
    else:
        query, key, value = (
            PackedProjection(attention.in_proj_weight, attention.in_proj_bias, part * width, (part + 1) * width)
            for part in range(3)
        )

    def asked() -> Tensor:
        vector: Tensor = F.linear(pool.ln_q(pool.query[0]), query.weight, query.bias) / attention.head_dim**0.5
        return vector

    return AttentionPooling(
        n_heads=attention.num_heads, query=asked, key=key, value=value, out=attention.out_proj, norm=visual.ln_post
    )


def _activation(module: nn.Module) -> str:
    # as in transformers' configs, so that a checkpoint has one fingerprint in both libraries
    names = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    return names.get(type(module).__name__, type(module).__name__)


@contextlib.contextmanager
def explicit_attention(modules: Sequence[nn.MultiheadAttention]) -> Iterator[None]:
    """Replace the forward of these instances by an equivalent one, and put it back afterwards, also after an error.

    torch's `nn.MultiheadAttention` calls its output projection as a function, so hooks on the projection never fire.
    Inside the context these instances call the projection's own forward; the class, and every other instance, is left
    alone. The same numbers up to rounding: torch's fused kernel adds in a different order. Contexts nest.
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
    """Self-attention as image towers use it: without a mask, attention weights or extra keys."""
    unasked = all(option is None or option is False for option in options.values())
    plain = query is key and key is value and not need_weights and attn_mask is None and unasked
    if not plain or module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        raise RuntimeError(
            "only plain self-attention can be traced: without a mask, attention weights or other keys and values"
        )
    x = query if module.batch_first else query.transpose(0, 1)
    n, length, width = x.shape
    packed = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = packed.view(n, length, 3, module.num_heads, module.head_dim).permute(2, 0, 3, 1, 4)
    dropout = module.dropout if module.training else 0.0
    values = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    out: Tensor = module.out_proj(values.transpose(1, 2).reshape(n, length, width))
    return (out if module.batch_first else out.transpose(0, 1)), None
