"""timm's `VisionTransformer` and `Eva`: ViT, DeiT, DINO, DINOv2 and DINOv3, SigLIP, EVA and EVA-02, CLIP towers.

Names are `timm:NAME`, `timm:local-dir:PATH` and `timm:hf-hub:ORG/NAME`; timm has no text towers. The two classes differ
in their blocks. Rotary positions, norms of queries and keys, and EVA-02's norm between the heads' values and their
output projection do not matter here: heads are read at the projection's input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models.accounting import check_weights, refused_by, timm_keys
from residualign.models.hub import cache_alone_without_network
from residualign.models.pooling import (
    CLASS_TOKEN,
    AttentionPooling,
    MeanPooling,
    PackedProjection,
    Pooling,
    pooling_constants,
)
from residualign.models.preprocess import TransformPreprocess
from residualign.models.tower import Block, Tower, layer_scale
from residualign.models.trust import check_keywords, own_config
from residualign.models.vision_model import VisionModel
from residualign.models.weights import neutral_tensors

__all__ = ["load", "tower"]

_NAMES = {
    "embedding.class": "cls_token",
    "embedding.patch": "patch_embed.proj",
    "embedding.patch_norm": "patch_embed.norm?",
    "embedding.patch_backbone": "patch_embed.backbone?",
    "embedding.position": "pos_embed",
    "embedding.registers": "reg_token",
    # learned frequencies, where there are any
    "embedding.rope": "rope?",
    "norm_pre": "norm_pre",
    # before the pooling or after it: the other one is the identity
    "norm_final": "norm|fc_norm",
    "pool.probe": "attn_pool.latent",
    "pool.query": "attn_pool.q",
    "pool.[key,value]": "attn_pool.kv",
    "pool.out": "attn_pool.proj",
    "pool.norm": "attn_pool.norm",
    "pool.mlp": "attn_pool.mlp",
    "pool.mlp.in": "attn_pool.mlp.fc1",
    "pool.mlp.out": "attn_pool.mlp.fc2",
}
_BLOCK_NAMES = {
    "norm_attention": "norm1",
    "[query,key,value]": "attn.qkv",
    # `Eva`: three projections, or one of all three whose biases are of queries and values alone
    "query": "attn.q_proj?",
    "key": "attn.k_proj?",
    "value": "attn.v_proj?",
    "query.bias": "attn.q_bias?",
    "value.bias": "attn.v_bias?",
    "out": "attn.proj",
    "attention": "attn",
    "scale_attention": "ls1.gamma|gamma_1?",
    "norm_mlp": "norm2",
    "mlp": "mlp",
    "scale_mlp": "ls2.gamma|gamma_2?",
}
_VIT_MLP_NAMES = {"mlp.in": "mlp.fc1?", "mlp.out": "mlp.fc2"}
_EVA_MLP_NAMES = {"mlp.gate": "mlp.fc1_g?", "mlp.in": "mlp.fc1_x|mlp.fc1", "mlp.out": "mlp.fc2"}
_EVA_GLU_NAMES = {"mlp.[gate,in]": "mlp.fc1", "mlp.out": "mlp.fc2"}


def load(name: str) -> VisionModel:
    """The model behind a name with prefix `timm:`, without its class head; float32, in evaluation mode, frozen."""
    try:
        import timm
    except ImportError as error:
        raise BadInputError(f"model {name!r} needs timm: pip install 'residualign[timm]'") from error
    spec = name.removeprefix("timm:")
    try:
        with cache_alone_without_network(spec), timm_keys() as keys:
            check_keywords(own_config(spec, "config.json").get("model_args"), _keywords(), "model_args of config.json")
            model = timm.create_model(spec, pretrained=True, num_classes=0)
    except Exception as error:
        # the library raises whatever its config, its downloads and torch raise
        raise refused_by("timm", name, error) from error
    check_weights(name, model, keys["Missing"], keys["Unexpected"])
    model = model.float().eval().requires_grad_(False)
    settings = timm.data.resolve_model_data_config(model)
    preprocess = TransformPreprocess(timm.data.create_transform(**settings, is_training=False), settings)
    return VisionModel(name, spec, model, tower(model, name), preprocess)


def _keywords() -> set[str]:
    """Keywords that a checkpoint may give its architecture: those of the transformers that timm builds."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    return {name for kind in (VisionTransformer, Eva) for name in inspect.signature(kind).parameters}


def tower(model: Any, name: str) -> Tower:
    """Where the parts of a timm model are, without its class head.

    `BadInputError` for a different architecture, and for a part that is not supported, which it names.
    """
    _refuse_other_towers(model, name)
    norm = _final_norm(model)
    pooling = _pooling(model)

    return Tower(
        module=model,
        forward=model,
        blocks=tuple(Block(block.attn.proj, block.mlp, *_scales(block)) for block in model.blocks),
        entry=model.blocks[0],
        n_heads=model.blocks[0].attn.num_heads,
        final_norm=norm,
        projection=None,
        image_size=int(model.patch_embed.img_size[0]),
        tensors=neutral_tensors(model, _NAMES, model.blocks, _BLOCK_NAMES | _mlp_names(model)),
        constants={
            "activation": _activation(model.blocks[0].mlp.act),
            "eps": repr(norm.eps),
            **_rotary(model),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        tokens=partial(_tokens, model),
        n_prefix=model.num_prefix_tokens,
    )


def _final_norm(model: Any) -> nn.LayerNorm:
    norm: nn.LayerNorm = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
    return norm


def _tokens(model: Any, pixels: Tensor) -> Tensor:
    # the features are after a norm that comes before the pooling
    features: Tensor = model.forward_features(pixels)
    norm = _final_norm(model)
    return features if norm is model.norm else norm(features)


def _asked(pool: Any) -> Tensor:
    vector: Tensor = pool.q(pool.latent)[0, 0] * pool.scale
    return vector


def _refuse_other_towers(model: Any, name: str) -> None:
    kind = type(model).__name__
    if kind not in _UNSUPPORTED_BLOCKS:
        raise BadInputError(f"model {name!r} is a timm {kind}; supported are {' and '.join(_UNSUPPORTED_BLOCKS)}")
    for part, there in {**_unsupported_pooling(model), **_UNSUPPORTED_BLOCKS[kind](model)}.items():
        if there:
            raise BadInputError(
                f"model {name!r} has {part}; supported is a pre-norm ViT that pools its class token, the mean of its "
                "patches, or by one attention query"
            )


def _unsupported_pooling(model: Any) -> dict[str, bool]:
    norms = (model.norm, model.fc_norm)
    parts = {
        f"pooling {model.global_pool!r}": model.global_pool not in ("token", "avg", "map"),
        "no final LayerNorm, or two": sum(isinstance(norm, nn.LayerNorm) for norm in norms) != 1,
    }
    if model.attn_pool is not None:
        parts["an attention pooling of another kind"] = not _is_plain(model.attn_pool)
        parts["a norm after its attention pooling"] = isinstance(model.fc_norm, nn.LayerNorm)
    return parts


def _is_plain(pool: Any) -> bool:
    """Whether one latent query attends, without positions or norms of queries and keys, and is projected."""
    from timm.layers import AttentionPoolLatent

    if type(pool) is not AttentionPoolLatent or pool.latent_len != 1 or pool.pos_embed is not None:
        return False
    norms = (pool.q_norm, pool.k_norm)
    return all(isinstance(norm, nn.Identity) for norm in norms) and isinstance(pool.proj, nn.Linear)


def _unsupported_vit_blocks(model: Any) -> dict[str, bool]:
    from timm.layers import Attention
    from timm.models.vision_transformer import Block as TimmBlock

    return {
        "blocks of another kind": any(type(block) is not TimmBlock for block in model.blocks),
        "attention of another kind": any(type(getattr(b, "attn", None)) is not Attention for b in model.blocks),
    }


def _unsupported_eva_blocks(model: Any) -> dict[str, bool]:
    from timm.models.eva import EvaBlock, EvaBlockPostNorm

    return {
        "norms after its attention and MLP (post-norm blocks)": any(type(b) is EvaBlockPostNorm for b in model.blocks),
        "blocks of another kind": any(type(b) not in (EvaBlock, EvaBlockPostNorm) for b in model.blocks),
    }


_UNSUPPORTED_BLOCKS: dict[str, Callable[[Any], dict[str, bool]]] = {
    "VisionTransformer": _unsupported_vit_blocks,
    "Eva": _unsupported_eva_blocks,
}


def _scales(block: Any) -> tuple[Tensor | None, Tensor | None]:
    """The block's layer scales of attention and MLP."""
    if hasattr(block, "ls1"):
        return layer_scale(block.ls1), layer_scale(block.ls2)
    return block.gamma_1, block.gamma_2


def _mlp_names(model: Any) -> dict[str, str]:
    from timm.layers import GluMlp

    if type(model).__name__ != "Eva":
        return _VIT_MLP_NAMES
    # `GluMlp` holds gate and input in one matrix, the gate first
    return _EVA_GLU_NAMES if isinstance(model.blocks[0].mlp, GluMlp) else _EVA_MLP_NAMES


# DINOv3's settings: only those that differ are among a tower's constants, so that DINOv3 has the fingerprint that it
# has in transformers
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
    """The settings of the rotary positions, which are computed, not stored; nothing for a tower without them."""
    rope = getattr(model, "rope", None)
    if rope is None:
        return {}
    found = {part: getattr(rope, part, usual) for part, usual in _ROTARY.items()}
    found |= {"kind": type(rope).__name__, "rotate_half": bool(getattr(model.blocks[0].attn, "rotate_half", False))}
    settings = {f"rope_{part}": repr(value) for part, value in found.items() if value != _ROTARY[part]}
    if getattr(rope, "temperature", None) is not None:
        settings["rope_theta"] = repr(float(rope.temperature))
    return settings


def _activation(module: nn.Module) -> str:
    """transformers' name if it has one, so that a checkpoint has one fingerprint in both libraries."""
    kind = type(module).__name__
    if getattr(module, "approximate", "none") == "tanh":
        kind = "GELUTanh"
    names = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
    return names.get(kind, kind)


def _pooling(model: Any) -> Pooling:
    prefix = model.num_prefix_tokens
    if model.attn_pool is not None:
        # `VisionTransformer` says whether its query sees class token and registers; that of `Eva` sees all tokens
        return _attention_pooling(model.attn_pool, 0 if getattr(model, "pool_include_prefix", True) else prefix)
    if model.global_pool == "avg":
        first = 0 if getattr(model, "pool_include_prefix", False) else prefix
        return MeanPooling(first=first, norm_first=isinstance(model.norm, nn.LayerNorm))
    return CLASS_TOKEN


def _attention_pooling(pool: Any, first: int) -> AttentionPooling:
    """timm's `AttentionPoolLatent`: SigLIP's pooling among others."""
    size = pool.kv.out_features // 2

    return AttentionPooling(
        n_heads=pool.num_heads,
        query=partial(_asked, pool),
        key=PackedProjection(pool.kv.weight, pool.kv.bias, 0, size),
        value=PackedProjection(pool.kv.weight, pool.kv.bias, size, 2 * size),
        out=pool.proj,
        mlp=pool.mlp,
        first=first,
    )
