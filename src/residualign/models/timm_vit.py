"""timm's `VisionTransformer`: ViT, DeiT, DINO, DINOv2, SigLIP, CLIP towers without projection."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models.parts import layer_scale
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


def tower(model: Any, name: str) -> Tower:
    """Where the parts of a timm model without class head are; `BadInputError` names the part of one built otherwise."""
    _refuse_other_towers(model, name)
    blocks = list(model.blocks)
    norm, pooling = _final_norm(model), _pooling(model)

    def forward(pixels: Tensor) -> Tensor:
        output: Tensor = model(pixels)
        return output

    def tokens(pixels: Tensor) -> Tensor:
        # a single norm: before the pooling it is in here, after the pooling it is not
        features: Tensor = model.forward_features(pixels)
        return features if norm is model.norm else norm(features)

    return Tower(
        module=model,
        forward=forward,
        blocks=tuple(
            Block(block.attn.proj, block.mlp, layer_scale(block.ls1), layer_scale(block.ls2)) for block in blocks
        ),
        entry=blocks[0],
        n_heads=blocks[0].attn.num_heads,
        final_norm=norm,
        projection=None,
        image_size=int(model.patch_embed.img_size[0]),
        tensors=_tensors(model, blocks, norm),
        constants={
            "activation": activation_name(blocks[0].mlp.act),
            "eps": repr(norm.eps),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        tokens=tokens,
        n_prefix=model.num_prefix_tokens,
    )


def activation_name(module: nn.Module) -> str:
    """The name transformers' configs have for it, so that a checkpoint has one fingerprint in both libraries."""
    kind = type(module).__name__
    approximate = getattr(module, "approximate", "none") == "tanh"
    return {
        "GELU": "gelu_pytorch_tanh" if approximate else "gelu",
        "GELUTanh": "gelu_pytorch_tanh",
        "QuickGELU": "quick_gelu",
    }.get(kind, kind)


def _final_norm(model: Any) -> nn.LayerNorm:
    """Before the pooling or after it."""
    norm: nn.LayerNorm = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
    return norm


def _pooling(model: Any) -> Pooling:
    first = 0 if model.pool_include_prefix else model.num_prefix_tokens
    if model.attn_pool is not None:
        return attention_pooling(model.attn_pool, first)
    if model.global_pool == "avg":
        return MeanPooling(first=first, norm_first=isinstance(model.norm, nn.LayerNorm))
    return CLASS_TOKEN


def attention_pooling(pool: Any, first: int) -> AttentionPooling:
    """timm's `AttentionPoolLatent`: SigLIP's pooling among others."""
    size = pool.kv.out_features // 2

    def query() -> Tensor:
        asked: Tensor = pool.q(pool.latent)[0, 0] * pool.scale
        return asked

    return AttentionPooling(
        n_heads=pool.num_heads,
        query=query,
        key=PackedProjection(pool.kv.weight, pool.kv.bias, 0, size),
        value=PackedProjection(pool.kv.weight, pool.kv.bias, size, 2 * size),
        out=pool.proj,
        mlp=pool.mlp,
        first=first,
    )


def _refuse_other_towers(model: Any, name: str) -> None:
    from timm.layers import Attention
    from timm.models.vision_transformer import Block as TimmBlock

    kind = type(model).__name__
    if kind != "VisionTransformer":
        raise BadInputError(f"model {name!r} is a timm {kind}; supported is VisionTransformer")
    norms = (model.norm, model.fc_norm)
    parts = {
        f"pooling {model.global_pool!r}": model.global_pool not in ("token", "avg", "map"),
        "blocks of another kind": any(type(block) is not TimmBlock for block in model.blocks),
        "attention of another kind": any(type(getattr(b, "attn", None)) is not Attention for b in model.blocks),
        "no final LayerNorm, or two": sum(isinstance(norm, nn.LayerNorm) for norm in norms) != 1,
    }
    if model.attn_pool is not None:
        parts["an attention pooling of another kind"] = not _is_plain(model.attn_pool)
        parts["a norm after its attention pooling"] = isinstance(model.fc_norm, nn.LayerNorm)
    for part, there in parts.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}; supported is a pre-norm ViT that pools its class token, the mean of its "
                "patches, or by one attention query"
            )


def _is_plain(pool: Any) -> bool:
    """Whether one latent query attends, without positions or norms of queries and keys, and is projected."""
    from timm.layers import AttentionPoolLatent

    if type(pool) is not AttentionPoolLatent or pool.latent_len != 1 or pool.pos_embed is not None:
        return False
    norms = (pool.q_norm, pool.k_norm)
    return all(isinstance(norm, nn.Identity) for norm in norms) and isinstance(pool.proj, nn.Linear)


def _tensors(model: Any, blocks: list[Any], norm: nn.LayerNorm) -> dict[str, Tensor]:
    tensors = {} if model.cls_token is None else {"embedding.class": model.cls_token.flatten()}
    if model.pos_embed is not None:
        tensors["embedding.position"] = model.pos_embed.flatten(0, 1)
    if model.reg_token is not None:
        tensors["embedding.registers"] = model.reg_token.flatten(0, 1)
    modules: dict[str, nn.Module] = {
        "embedding.patch": model.patch_embed.proj,
        "embedding.patch_norm": model.patch_embed.norm,
        "norm_pre": model.norm_pre,
        "norm_final": norm,
    }
    if model.attn_pool is not None:
        tensors |= _pool_tensors(model.attn_pool)
    for i, block in enumerate(blocks):
        for part, packed in block.attn.qkv.named_parameters():
            for kind, tensor in zip(("query", "key", "value"), packed.chunk(3), strict=True):
                tensors[f"block.{i}.{kind}.{part}"] = tensor
        for kind, scale in (("attention", layer_scale(block.ls1)), ("mlp", layer_scale(block.ls2))):
            if scale is not None:
                tensors[f"block.{i}.scale_{kind}"] = scale
        modules |= {
            f"block.{i}.norm_attention": block.norm1,
            f"block.{i}.out": block.attn.proj,
            f"block.{i}.norm_mlp": block.norm2,
        }
        modules |= {
            f"block.{i}.attention.{part}": module
            for part, module in block.attn.named_children()
            if part not in ("qkv", "proj")
        }
        modules |= {f"block.{i}.mlp.{_MLP.get(part, part)}": module for part, module in block.mlp.named_children()}
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors


def _pool_tensors(pool: Any) -> dict[str, Tensor]:
    tensors = {"pool.probe": pool.latent.flatten()}
    for part, packed in pool.kv.named_parameters():
        for kind, tensor in zip(("key", "value"), packed.chunk(2), strict=True):
            tensors[f"pool.{kind}.{part}"] = tensor
    modules = {"pool.query": pool.q, "pool.out": pool.proj, "pool.norm": pool.norm}
    if pool.mlp is not None:
        modules |= {f"pool.mlp.{_MLP.get(part, part)}": module for part, module in pool.mlp.named_children()}
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors


_MLP = {"fc1": "in", "fc2": "out"}
