"""timm's `Eva`: EVA and EVA-02, their CLIP towers, and DINOv3 as timm has it.

Rotary positions, norms of queries and keys, and EVA-02's norm between the heads' values and their output projection
change nothing: heads are read at the projection's input.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models.timm_parts import patch_tensors
from residualign.models.timm_pooling import final_norm, pool_tensors, refused_pooling
from residualign.models.timm_tower import timm_tower
from residualign.models.tower import Block, Tower

__all__ = ["tower"]


def tower(model: Any, name: str) -> Tower:
    """Where the parts of an `Eva` without class head are; `BadInputError` names the part of one built otherwise."""
    _refuse_other_towers(model, name)
    blocks = list(model.blocks)
    return timm_tower(
        model,
        [Block(block.attn.proj, block.mlp, block.gamma_1, block.gamma_2) for block in blocks],
        _tensors(model, blocks, final_norm(model)),
        _rotary(model),
    )


def _refuse_other_towers(model: Any, name: str) -> None:
    from timm.models.eva import EvaBlock, EvaBlockPostNorm

    parts = {
        **refused_pooling(model),
        "norms after its attention and MLP (post-norm blocks)": any(type(b) is EvaBlockPostNorm for b in model.blocks),
        "blocks of another kind": any(type(b) not in (EvaBlock, EvaBlockPostNorm) for b in model.blocks),
    }
    for part, there in parts.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}; supported is a pre-norm ViT that pools its class token, the "
                "mean of its patches, or by one attention query"
            )


# DINOv3's: what a tower has otherwise is named in its constants, so that DINOv3 has those that transformers gives it
_ROTARY = {
    "kind": "RotaryEmbeddingDinoV3",
    "rotate_half": True,
    "grid_offset": 0.0,
    "grid_indexing": "ij",
    "ref_feat_shape": None,
    "min_period": None,
    "max_period": None,
}


def _rotary(model: Any) -> dict[str, str]:
    """The settings of the rotary positions; none for a tower without. They are computed, not stored."""
    rope = model.rope
    if rope is None:
        return {}
    found = {part: getattr(rope, part, usual) for part, usual in _ROTARY.items()}
    found |= {"kind": type(rope).__name__, "rotate_half": bool(getattr(model.blocks[0].attn, "rotate_half", False))}
    settings = {f"rope_{part}": repr(value) for part, value in found.items() if value != _ROTARY[part]}
    if getattr(rope, "temperature", None) is not None:
        settings["rope_theta"] = repr(float(rope.temperature))
    return settings


def _tensors(model: Any, blocks: list[Any], norm: nn.LayerNorm) -> dict[str, Tensor]:
    tensors = patch_tensors(model.patch_embed)
    if model.cls_token is not None:
        tensors["embedding.class"] = model.cls_token.flatten()
    if model.attn_pool is not None:
        tensors |= pool_tensors(model.attn_pool)
    if model.pos_embed is not None:
        tensors["embedding.position"] = model.pos_embed.flatten(0, 1)
    if model.reg_token is not None:
        tensors["embedding.registers"] = model.reg_token.flatten(0, 1)
    modules: dict[str, nn.Module] = {"norm_pre": model.norm_pre, "norm_final": norm}
    if model.rope is not None:
        # learned frequencies, where there are any
        modules["embedding.rope"] = model.rope
    for i, block in enumerate(blocks):
        tensors |= {f"block.{i}.{part}": tensor for part, tensor in _query_key_value(block.attn).items()}
        tensors |= {f"block.{i}.mlp.{part}": tensor for part, tensor in _gated_in_one(block.mlp).items()}
        for kind, scale in (("attention", block.gamma_1), ("mlp", block.gamma_2)):
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
            if part not in ("qkv", "q_proj", "k_proj", "v_proj", "proj")
        }
        modules |= {
            f"block.{i}.mlp.{_MLP.get(part, part)}": module
            for part, module in block.mlp.named_children()
            if not (part == "fc1" and _is_gated_in_one(block.mlp))
        }
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors


_MLP = {"fc1": "in", "fc1_x": "in", "fc1_g": "gate", "fc2": "out"}


def _query_key_value(attention: Any) -> dict[str, Tensor]:
    """Three projections or one of all three; its biases may be of queries and values alone."""
    if attention.qkv is None:
        modules = {"query": attention.q_proj, "key": attention.k_proj, "value": attention.v_proj}
        return {f"{name}.{part}": value for name, proj in modules.items() for part, value in proj.named_parameters()}
    tensors = {
        f"{name}.{part}": tensor
        for part, packed in attention.qkv.named_parameters()
        for name, tensor in zip(("query", "key", "value"), packed.chunk(3), strict=True)
    }
    biases = {"query.bias": getattr(attention, "q_bias", None), "value.bias": getattr(attention, "v_bias", None)}
    return tensors | {name: bias for name, bias in biases.items() if bias is not None}


def _is_gated_in_one(mlp: Any) -> bool:
    from timm.layers import GluMlp

    return isinstance(mlp, GluMlp)


def _gated_in_one(mlp: Any) -> dict[str, Tensor]:
    """Gate and input of a gated MLP that holds both in one matrix, the gate first."""
    if not _is_gated_in_one(mlp):
        return {}
    return {
        f"{name}.{part}": tensor
        for part, packed in mlp.fc1.named_parameters()
        for name, tensor in zip(("gate", "in"), packed.chunk(2), strict=True)
    }
