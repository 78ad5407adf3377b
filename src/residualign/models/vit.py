"""transformers ViT, DeiT saved as a ViT, DINOv2 (with and without registers) and DINOv3 ViT: vision only.

The embedding is the normed class token. Registers are tokens that are never pooled; rotary positions do not change the
class token; a gated MLP is one module.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["dino_tower", "tower"]

_ATTENTION_NAMES = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.o_proj",
}

_NAMES = {
    "embedding.class": "embeddings.cls_token",
    "embedding.patch": "embeddings.patch_embeddings.projection",
    "embedding.position": "embeddings.position_embeddings",
    "norm_final": "layernorm",
}
_BLOCK_NAMES = _ATTENTION_NAMES | {
    "norm_attention": "layernorm_before",
    "norm_mlp": "layernorm_after",
    "mlp.in": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}

# where a line has two paths, the first is DINOv2's and the second DINOv3's
_DINO_NAMES = {
    "embedding.class": "embeddings.cls_token",
    "embedding.patch": "embeddings.patch_embeddings.projection|embeddings.patch_embeddings",
    "embedding.position": "embeddings.position_embeddings?",
    "embedding.registers": "embeddings.register_tokens?",
    "norm_final": "layernorm|norm",
}
_DINO_BLOCK_NAMES = _ATTENTION_NAMES | {
    "norm_attention": "norm1",
    "scale_attention": "layer_scale1.lambda1",
    "norm_mlp": "norm2",
    "mlp.gate": "mlp.gate_proj?",
    "mlp.in": "mlp.fc1|mlp.up_proj",
    "mlp.out": "mlp.fc2|mlp.down_proj",
    "scale_mlp": "layer_scale2.lambda1",
}


def tower(model: Any) -> Tower:
    """Where the parts of a transformers `ViTModel` are, without its tanh pooler and class head."""
    config = model.config
    return Tower(
        module=model,
        forward=partial(_class_token, model),
        blocks=tuple(Block(layer.attention.o_proj, layer.mlp) for layer in model.layers),
        entry=model.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=model.layernorm,
        projection=None,
        image_size=config.image_size if isinstance(config.image_size, int) else config.image_size[0],
        tensors=neutral_tensors(model, _NAMES, model.layers, _BLOCK_NAMES),
        constants={"activation": config.hidden_act, "eps": repr(config.layer_norm_eps)},
        tokens=partial(_tokens, model),
    )


def dino_tower(model: Any, image_size: int) -> Tower:
    """Where the parts of a `Dinov2Model`, `Dinov2WithRegistersModel` or `DINOv3ViTModel` are.

    image_size: of preprocessed images. The config has the size used in training (518 for DINOv2); positions are
    interpolated to any other size.
    """
    config = model.config
    is_v3 = config.model_type == "dinov3_vit"
    layers = (model.model if is_v3 else model.encoder).layer
    # the gate of DINOv2's giant model is SiLU, whatever activation the config says
    activation = "silu" if getattr(config, "use_swiglu_ffn", False) else str(config.hidden_act)
    constants = {"activation": activation, "eps": repr(config.layer_norm_eps)}
    if is_v3:
        constants["rope_theta"] = repr(float(config.rope_theta))
    return Tower(
        module=model,
        forward=partial(_class_token, model),
        blocks=tuple(
            Block(layer.attention.o_proj, layer.mlp, layer.layer_scale1.lambda1, layer.layer_scale2.lambda1)
            for layer in layers
        ),
        entry=layers[0],
        n_heads=config.num_attention_heads,
        final_norm=model.norm if is_v3 else model.layernorm,
        projection=None,
        image_size=image_size,
        tensors=neutral_tensors(model, _DINO_NAMES, layers, _DINO_BLOCK_NAMES),
        constants=constants,
        tokens=partial(_tokens, model),
        n_prefix=1 + getattr(config, "num_register_tokens", 0),
    )


def _tokens(model: Any, pixels: Tensor) -> Tensor:
    hidden: Tensor = model(pixel_values=pixels).last_hidden_state
    return hidden


def _class_token(model: Any, pixels: Tensor) -> Tensor:
    return _tokens(model, pixels)[:, 0]
