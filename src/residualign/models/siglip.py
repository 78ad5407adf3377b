"""transformers SigLIP, and SigLIP 2 at fixed resolution: all tokens are pooled by one attention query."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError
from residualign.models.pooling import AttentionPooling, PackedProjection, pooling_constants
from residualign.models.tower import Block, Tower

__all__ = ["tower"]


def tower(vision: Any, name: str) -> Tower:
    """Where the parts of a `SiglipVisionModel` are. `BadInputError` for one without its pooling head."""
    config = vision.config
    if not getattr(vision, "use_head", True):
        raise BadInputError(f"model {name!r} is a SigLIP without its pooling head; expected one with it")
    pool = vision.head
    attention, width = pool.attention, config.hidden_size
    query, key, value = (
        PackedProjection(attention.in_proj_weight, attention.in_proj_bias, part * width, (part + 1) * width)
        for part in range(3)
    )

    def asked() -> Tensor:
        vector: Tensor = F.linear(pool.probe[0, 0], query.weight, query.bias) / attention.head_dim**0.5
        return vector

    def forward(pixels: Tensor) -> Tensor:
        pooled: Tensor = vision(pixel_values=pixels).pooler_output
        return pooled

    pooling = AttentionPooling(attention.num_heads, asked, key, value, attention.out_proj, mlp=pool.mlp)
    return Tower(
        module=vision,
        forward=forward,
        blocks=tuple(Block(layer.self_attn.out_proj, layer.mlp) for layer in vision.encoder.layers),
        entry=vision.encoder.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=vision.post_layernorm,
        projection=None,
        image_size=config.image_size,
        tensors=_tensors(vision, (query, key, value)),
        constants={
            "activation": config.hidden_act,
            "eps": repr(config.layer_norm_eps),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        n_prefix=0,
    )


def _tensors(vision: Any, packed: tuple[PackedProjection, ...]) -> dict[str, Tensor]:
    embeddings, pool = vision.embeddings, vision.head
    tensors = {
        "embedding.position": embeddings.position_embedding.weight,
        "pool.probe": pool.probe.flatten(),
    }
    for name, part in zip(("query", "key", "value"), packed, strict=True):
        tensors[f"pool.{name}.weight"] = part.weight
        if part.bias is not None:
            tensors[f"pool.{name}.bias"] = part.bias
    modules: dict[str, nn.Module] = {
        "embedding.patch": embeddings.patch_embedding,
        "norm_final": vision.post_layernorm,
        "pool.out": pool.attention.out_proj,
        "pool.norm": pool.layernorm,
        "pool.mlp.in": pool.mlp.fc1,
        "pool.mlp.out": pool.mlp.fc2,
    }
    for i, layer in enumerate(vision.encoder.layers):
        attention = layer.self_attn
        modules |= {
            f"block.{i}.norm_attention": layer.layer_norm1,
            f"block.{i}.query": attention.q_proj,
            f"block.{i}.key": attention.k_proj,
            f"block.{i}.value": attention.v_proj,
            f"block.{i}.out": attention.out_proj,
            f"block.{i}.norm_mlp": layer.layer_norm2,
            f"block.{i}.mlp.in": layer.mlp.fc1,
            f"block.{i}.mlp.out": layer.mlp.fc2,
        }
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors
