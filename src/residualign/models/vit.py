"""transformers ViT, and DeiT checkpoints saved as one: vision only; the embedding is the normed class token."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from residualign.models.tower import Block, Tower

__all__ = ["tower"]


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
        tensors=_tensors(model),
        constants={"activation": config.hidden_act, "eps": repr(config.layer_norm_eps)},
        tokens=tokens,
    )


def _tensors(model: Any) -> dict[str, Tensor]:
    embeddings = model.embeddings
    tensors = {
        "embedding.class": embeddings.cls_token.flatten(),
        "embedding.position": embeddings.position_embeddings.flatten(0, 1),
    }
    modules: dict[str, nn.Module] = {
        "embedding.patch": embeddings.patch_embeddings.projection,
        "norm_final": model.layernorm,
    }
    for i, layer in enumerate(model.layers):
        attention = layer.attention
        modules |= {
            f"block.{i}.norm_attention": layer.layernorm_before,
            f"block.{i}.query": attention.q_proj,
            f"block.{i}.key": attention.k_proj,
            f"block.{i}.value": attention.v_proj,
            f"block.{i}.out": attention.o_proj,
            f"block.{i}.norm_mlp": layer.layernorm_after,
            f"block.{i}.mlp.in": layer.mlp.fc1,
            f"block.{i}.mlp.out": layer.mlp.fc2,
        }
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors
