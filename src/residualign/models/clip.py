"""transformers CLIP: the full `CLIPModel`, and the vision tower alone with or without its projection."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["BLOCK_NAMES", "tower"]

_NAMES = {
    "embedding.class": "embeddings.class_embedding",
    "embedding.patch.weight": "embeddings.patch_embedding.weight",
    "embedding.position": "embeddings.position_embedding.weight",
    "norm_pre": "pre_layrnorm",
    "norm_final": "post_layernorm",
}

BLOCK_NAMES = {
    "norm_attention": "layer_norm1",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "norm_mlp": "layer_norm2",
    "mlp.in": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}
"""Where the weights of a block are, in CLIP and in SigLIP."""


def tower(model: Any) -> Tower:
    """Where the parts of the vision tower of a CLIP model are; it pools the class token.

    model: a `CLIPModel`, `CLIPVisionModelWithProjection` or `CLIPVisionModel`.
    """
    vision: Any = getattr(model, "vision_model", model)
    projection: nn.Linear | None = getattr(model, "visual_projection", None)
    config = vision.config

    return Tower(
        module=vision,
        forward=partial(_embedding, vision, projection),
        blocks=tuple(Block(layer.self_attn.out_proj, layer.mlp) for layer in vision.encoder.layers),
        entry=vision.encoder.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=vision.post_layernorm,
        projection=projection,
        image_size=config.image_size,
        tensors=neutral_tensors(vision, _NAMES, vision.encoder.layers, BLOCK_NAMES)
        | neutral_tensors(model, {"projection": "visual_projection?"}),
        constants={"activation": config.hidden_act, "eps": repr(config.layer_norm_eps)},
    )


def _embedding(vision: Any, projection: nn.Linear | None, pixels: Tensor) -> Tensor:
    pooled: Tensor = vision(pixel_values=pixels).pooler_output
    return pooled if projection is None else projection(pooled)
