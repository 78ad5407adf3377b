"""transformers ViT, and DeiT checkpoints saved as one: vision only; the embedding is the normed class token."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["tower"]

_NAMES = {
    "embedding.class": "embeddings.cls_token",
    "embedding.patch": "embeddings.patch_embeddings.projection",
    "embedding.position": "embeddings.position_embeddings",
    "norm_final": "layernorm",
}
_BLOCK_NAMES = {
    "norm_attention": "layernorm_before",
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.o_proj",
    "norm_mlp": "layernorm_after",
    "mlp.in": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}


def tower(model: Any) -> Tower:
    """Where the parts of a transformers `ViTModel` are. Neither the tanh pooler nor a class head belongs to it."""
    config = model.config

    def tokens(pixels: Tensor) -> Tensor:
        hidden: Tensor = model(pixel_values=pixels).last_hidden_state
        return hidden

    def forward(pixels: Tensor) -> Tensor:
        return tokens(pixels)[:, 0]

    return Tower(
        module=model,
        forward=forward,
        blocks=tuple(Block(layer.attention.o_proj, layer.mlp) for layer in model.layers),
        entry=model.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=model.layernorm,
        projection=None,
        image_size=config.image_size if isinstance(config.image_size, int) else config.image_size[0],
        tensors=neutral_tensors(model, _NAMES, model.layers, _BLOCK_NAMES),
        constants={"activation": config.hidden_act, "eps": repr(config.layer_norm_eps)},
        tokens=tokens,
    )
