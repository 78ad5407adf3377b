"""transformers DINOv2, DINOv2 with registers, and DINOv3 ViT: vision only; the embedding is the normed class token.

Registers are tokens that are never pooled; rotary positions do not change the class token; a gated MLP is one module.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["tower"]

# where a line has two paths, the first is DINOv2's and the second DINOv3's
_NAMES = {
    "embedding.class": "embeddings.cls_token",
    "embedding.patch": "embeddings.patch_embeddings.projection|embeddings.patch_embeddings",
    "embedding.position": "embeddings.position_embeddings?",
    "embedding.registers": "embeddings.register_tokens?",
    "norm_final": "layernorm|norm",
}
_BLOCK_NAMES = {
    "norm_attention": "norm1",
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.o_proj",
    "scale_attention": "layer_scale1.lambda1",
    "norm_mlp": "norm2",
    "mlp.gate": "mlp.gate_proj?",
    "mlp.in": "mlp.fc1|mlp.up_proj",
    "mlp.out": "mlp.fc2|mlp.down_proj",
    "scale_mlp": "layer_scale2.lambda1",
}


def tower(model: Any, image_size: int) -> Tower:
    """Where the parts of a `Dinov2Model`, `Dinov2WithRegistersModel` or `DINOv3ViTModel` are.

    image_size: of preprocessed images. The config has the size used in training (518 for DINOv2); positions are
    interpolated to any other size.
    """
    config = model.config
    is_v3 = config.model_type == "dinov3_vit"
    layers = (model.model if is_v3 else model.encoder).layer
    norm = model.norm if is_v3 else model.layernorm

    def forward(pixels: Tensor) -> Tensor:
        pooled: Tensor = model(pixel_values=pixels).pooler_output
        return pooled

    def tokens(pixels: Tensor) -> Tensor:
        hidden: Tensor = model(pixel_values=pixels).last_hidden_state
        return hidden

    constants = {"activation": _activation(config), "eps": repr(config.layer_norm_eps)}
    if is_v3:
        constants["rope_theta"] = repr(float(config.rope_theta))
    return Tower(
        module=model,
        forward=forward,
        blocks=tuple(
            Block(layer.attention.o_proj, layer.mlp, layer.layer_scale1.lambda1, layer.layer_scale2.lambda1)
            for layer in layers
        ),
        entry=layers[0],
        n_heads=config.num_attention_heads,
        final_norm=norm,
        projection=None,
        image_size=image_size,
        tensors=neutral_tensors(model, _NAMES, layers, _BLOCK_NAMES),
        constants=constants,
        tokens=tokens,
        n_prefix=1 + getattr(config, "num_register_tokens", 0),
    )


def _activation(config: Any) -> str:
    # the gate of DINOv2's giant model is SiLU, whatever activation the config says
    return "silu" if getattr(config, "use_swiglu_ffn", False) else str(config.hidden_act)
