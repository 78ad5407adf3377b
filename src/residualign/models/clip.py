"""transformers CLIP: the full `CLIPModel`, and the vision tower alone with or without its projection."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionModel

from residualign.models.tower import Block, Tower

__all__ = ["tower"]


def tower(model: Any) -> Tower:
    """Where the parts of a CLIP vision tower are: of `CLIPModel`, `CLIPVisionModelWithProjection` or `CLIPVisionModel`.

    The pooled token is the class token.
    """
    vision: Any = model if isinstance(model, CLIPVisionModel) else model.vision_model
    projection: nn.Linear | None = getattr(model, "visual_projection", None)
    config = vision.config

    def forward(pixels: Tensor) -> Tensor:
        pooled: Tensor = vision(pixel_values=pixels).pooler_output
        return pooled if projection is None else projection(pooled)

    return Tower(
        module=vision,
        forward=forward,
        blocks=tuple(Block(layer.self_attn.out_proj, layer.mlp) for layer in vision.encoder.layers),
        entry=vision.encoder.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=vision.post_layernorm,
        projection=projection,
        image_size=config.image_size,
        tensors=_tensors(vision, projection),
        constants={"activation": config.hidden_act, "eps": repr(config.layer_norm_eps)},
    )


def _tensors(vision: Any, projection: nn.Linear | None) -> dict[str, Tensor]:
    embeddings = vision.embeddings
    tensors = {
        "embedding.class": embeddings.class_embedding,
        "embedding.patch.weight": embeddings.patch_embedding.weight,
        "embedding.position": embeddings.position_embedding.weight,
    }
    modules: dict[str, nn.Module] = {"norm_pre": vision.pre_layrnorm, "norm_final": vision.post_layernorm}
    if projection is not None:
        modules["projection"] = projection
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
