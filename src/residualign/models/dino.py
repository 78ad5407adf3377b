"""transformers DINOv2, DINOv2 with registers, and DINOv3 ViT: vision only; the embedding is the normed class token.

Registers are tokens that are never pooled; rotary positions leave the class token alone; a gated MLP is one module.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from residualign.models.tower import Block, Tower

__all__ = ["tower"]


def tower(model: Any, image_size: int) -> Tower:
    """Where the parts of a `Dinov2Model`, `Dinov2WithRegistersModel` or `DINOv3ViTModel` are.

    image_size: what the preprocessing yields; the one in the config is that of training (518 for DINOv2), and positions
    are interpolated to any other.
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
        tensors=_tensors(model, layers, norm),
        constants=constants,
        tokens=tokens,
        n_prefix=1 + getattr(config, "num_register_tokens", 0),
    )


def _activation(config: Any) -> str:
    # the gate of DINOv2's giant model is SiLU whatever the config's activation says
    return "silu" if getattr(config, "use_swiglu_ffn", False) else str(config.hidden_act)


def _tensors(model: Any, layers: Any, norm: nn.Module) -> dict[str, Tensor]:
    embeddings = model.embeddings
    patches = embeddings.patch_embeddings
    tensors = {"embedding.class": embeddings.cls_token.flatten()}
    modules: dict[str, nn.Module] = {
        "embedding.patch": getattr(patches, "projection", patches),
        "norm_final": norm,
    }
    if hasattr(embeddings, "position_embeddings"):
        tensors["embedding.position"] = embeddings.position_embeddings.flatten(0, 1)
    if hasattr(embeddings, "register_tokens"):
        tensors["embedding.registers"] = embeddings.register_tokens.flatten(0, 1)
    for i, layer in enumerate(layers):
        attention = layer.attention
        modules |= {
            f"block.{i}.norm_attention": layer.norm1,
            f"block.{i}.query": attention.q_proj,
            f"block.{i}.key": attention.k_proj,
            f"block.{i}.value": attention.v_proj,
            f"block.{i}.out": attention.o_proj,
            f"block.{i}.norm_mlp": layer.norm2,
        }
        modules |= {
            f"block.{i}.mlp.{_MLP_PARTS[name]}": part for name, part in layer.mlp.named_children() if name in _MLP_PARTS
        }
        tensors[f"block.{i}.scale_attention"] = layer.layer_scale1.lambda1
        tensors[f"block.{i}.scale_mlp"] = layer.layer_scale2.lambda1
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors


_MLP_PARTS = {"fc1": "in", "up_proj": "in", "gate_proj": "gate", "fc2": "out", "down_proj": "out"}
