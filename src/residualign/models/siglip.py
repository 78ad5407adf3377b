"""transformers SigLIP, and SigLIP 2 at fixed resolution: one attention query pools all tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError
from residualign.models.clip import BLOCK_NAMES
from residualign.models.pooling import AttentionPooling, Projection, packed_thirds, pooling_constants
from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["tower"]

_NAMES = {
    "embedding.patch": "embeddings.patch_embedding",
    "embedding.position": "embeddings.position_embedding.weight",
    "norm_final": "post_layernorm",
    "pool.probe": "head.probe",
    "pool.[query,key,value].weight": "head.attention.in_proj_weight",
    "pool.[query,key,value].bias": "head.attention.in_proj_bias",
    "pool.out": "head.attention.out_proj",
    "pool.norm": "head.layernorm",
    "pool.mlp.in": "head.mlp.fc1",
    "pool.mlp.out": "head.mlp.fc2",
}


def tower(vision: Any, name: str) -> Tower:
    """Where the parts of a `SiglipVisionModel` are. `BadInputError` for one without its pooling head."""
    config = vision.config
    if not getattr(vision, "use_head", True):
        raise BadInputError(f"model {name!r} is a SigLIP without its pooling head; expected one with it")
    pool = vision.head
    attention = pool.attention
    query, key, value = packed_thirds(attention)

    pooling = AttentionPooling(
        attention.num_heads, partial(_asked, pool, query), key, value, attention.out_proj, mlp=pool.mlp
    )
    return Tower(
        module=vision,
        forward=partial(_embedding, vision),
        blocks=tuple(Block(layer.self_attn.out_proj, layer.mlp) for layer in vision.encoder.layers),
        entry=vision.encoder.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=vision.post_layernorm,
        projection=None,
        image_size=config.image_size,
        tensors=neutral_tensors(vision, _NAMES, vision.encoder.layers, BLOCK_NAMES),
        constants={
            "activation": config.hidden_act,
            "eps": repr(config.layer_norm_eps),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        n_prefix=0,
    )


def _embedding(vision: Any, pixels: Tensor) -> Tensor:
    pooled: Tensor = vision(pixel_values=pixels).pooler_output
    return pooled


def _asked(pool: Any, query: Projection) -> Tensor:
    vector: Tensor = F.linear(pool.probe[0, 0], query.weight, query.bias) / pool.attention.head_dim**0.5
    return vector
