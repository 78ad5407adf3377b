"""timm's `VisionTransformer`: ViT, DeiT, DINO, DINOv2, SigLIP, CLIP towers without projection."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models.parts import layer_scale
from residualign.models.pooling import pooling_constants
from residualign.models.timm_parts import activation_name, patch_tensors
from residualign.models.timm_pooling import final_norm, normed_tokens, pool_tensors, pooling_of, refused_pooling
from residualign.models.tower import Block, Tower

__all__ = ["tower"]


def tower(model: Any, name: str) -> Tower:
    """Where the parts of a timm model without class head are; `BadInputError` names the part of one built otherwise."""
    _refuse_other_towers(model, name)
    blocks = list(model.blocks)
    norm, pooling = final_norm(model), pooling_of(model)

    def forward(pixels: Tensor) -> Tensor:
        output: Tensor = model(pixels)
        return output

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
        tokens=partial(normed_tokens, model, norm),
        n_prefix=model.num_prefix_tokens,
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
