"""timm's `VisionTransformer`: ViT, DeiT, DINO, DINOv2, SigLIP, CLIP towers without projection."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models.parts import layer_scale
from residualign.models.timm_parts import patch_tensors
from residualign.models.timm_pooling import final_norm, pool_tensors, refused_pooling
from residualign.models.timm_tower import timm_tower
from residualign.models.tower import Block, Tower

__all__ = ["tower"]


def tower(model: Any, name: str) -> Tower:
    """Where the parts of a timm model without class head are; `BadInputError` names the part of one built otherwise."""
    _refuse_other_towers(model, name)
    blocks = list(model.blocks)
    return timm_tower(
        model,
        [Block(block.attn.proj, block.mlp, layer_scale(block.ls1), layer_scale(block.ls2)) for block in blocks],
        _tensors(model, blocks, final_norm(model)),
    )


def _refuse_other_towers(model: Any, name: str) -> None:
    from timm.layers import Attention
    from timm.models.vision_transformer import Block as TimmBlock

    parts = {
        **refused_pooling(model),
        "blocks of another kind": any(type(block) is not TimmBlock for block in model.blocks),
        "attention of another kind": any(type(getattr(b, "attn", None)) is not Attention for b in model.blocks),
    }
    for part, there in parts.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}; supported is a pre-norm ViT that pools its class token, the mean of its "
                "patches, or by one attention query"
            )


def _tensors(model: Any, blocks: list[Any], norm: nn.LayerNorm) -> dict[str, Tensor]:
    tensors = patch_tensors(model.patch_embed)
    if model.cls_token is not None:
        tensors["embedding.class"] = model.cls_token.flatten()
    if model.pos_embed is not None:
        tensors["embedding.position"] = model.pos_embed.flatten(0, 1)
    if model.reg_token is not None:
        tensors["embedding.registers"] = model.reg_token.flatten(0, 1)
    modules: dict[str, nn.Module] = {
        "norm_pre": model.norm_pre,
        "norm_final": norm,
    }
    if model.attn_pool is not None:
        tensors |= pool_tensors(model.attn_pool)
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


_MLP = {"fc1": "in", "fc2": "out"}
