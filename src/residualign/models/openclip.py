"""open_clip's own `VisionTransformer` towers: OpenAI, LAION, DataComp, MetaCLIP and DFN checkpoints.

Blocks with torch's `nn.MultiheadAttention` and with open_clip's own `Attention`; with and without layer scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError
from residualign.models.functional_attention import explicit_attention
from residualign.models.parts import Projection, layer_scale
from residualign.models.pooling import (
    CLASS_TOKEN,
    AttentionPooling,
    MeanPooling,
    PackedProjection,
    Pooling,
    pooling_constants,
)
from residualign.models.tower import Block, Tower

__all__ = ["tower"]


@dataclass(frozen=True)
class _Rows:
    """A weight of its own with its rows of a packed bias, as `nn.MultiheadAttention` has them for other key sizes."""

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
    """A (width, dim) parameter seen as the projection it is; follows it to other devices and dtypes."""

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
    """Where the parts of `model.visual` are; `BadInputError` names the part of one that is built otherwise."""
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
        tensors=_tensors(visual, blocks),
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
        # after an attentional pooling it chooses among the queries
        f"pooling {visual.pool_type!r}": visual.pool_type not in ("tok", "avg") or averages_queries,
        "a norm after its attention (ln_attn)": any(
            not isinstance(getattr(block, "ln_attn", nn.Identity()), nn.Identity)
            for block in visual.transformer.resblocks
        ),
    }
    for part, there in parts.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}, which is not supported; expected a pooled class token, mean "
                "or attention query"
            )


def _pooling(visual: Any) -> Pooling:
    if visual.attn_pool is not None:
        return _attention_pooling(visual)
    if visual.pool_type == "avg":
        # the class token comes before the patches
        return MeanPooling(first=1, norm_first=not visual.final_ln_after_pool)
    return CLASS_TOKEN


def _attention_pooling(visual: Any) -> AttentionPooling:
    """CoCa's pooling: the first query's answer, normed and projected. The other queries are for its captions."""
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
    # the names of transformers' configs, so that a checkpoint has one fingerprint in both libraries
    names = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    return names.get(type(module).__name__, type(module).__name__)


def _tensors(visual: Any, blocks: list[Any]) -> dict[str, Tensor]:
    tensors = {
        "embedding.class": visual.class_embedding,
        "embedding.patch.weight": visual.conv1.weight,
        "embedding.position": visual.positional_embedding,
    }
    if visual.proj is not None:
        tensors["projection.weight"] = visual.proj.T
    modules: dict[str, nn.Module] = {"norm_pre": visual.ln_pre, "norm_final": visual.ln_post}
    if visual.attn_pool is not None:
        tensors |= {f"pool.{part}": value for part, value in visual.attn_pool.named_parameters()}
    for i, block in enumerate(blocks):
        attention = block.attn
        for part in ("weight", "bias"):
            packed = getattr(attention, f"in_proj_{part}")
            if packed is not None:
                for name, tensor in zip(("query", "key", "value"), packed.chunk(3), strict=True):
                    tensors[f"block.{i}.{name}.{part}"] = tensor
        # what open_clip's own attention has besides: norms of queries and keys, scales of heads
        packed_in = {"in_proj_weight", "in_proj_bias"}
        for name, tensor in attention.named_parameters():
            if name not in packed_in and not name.startswith("out_proj."):
                tensors[f"block.{i}.attention.{name}"] = tensor
        modules |= {
            f"block.{i}.norm_attention": block.ln_1,
            f"block.{i}.out": attention.out_proj,
            f"block.{i}.norm_mlp": block.ln_2,
            f"block.{i}.mlp.in": block.mlp.c_fc,
            f"block.{i}.mlp.norm": getattr(block.mlp, "ln", nn.Identity()),
            f"block.{i}.mlp.out": block.mlp.c_proj,
        }
        for kind, scale in (("attention", layer_scale(block.ls_1)), ("mlp", layer_scale(block.ls_2))):
            if scale is not None:
                tensors[f"block.{i}.scale_{kind}"] = scale
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors
