"""An open_clip vision tower as transformers' CLIP: the same weights under the other library's names."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


def as_transformers(visual: Any, activation: str) -> CLIPVisionModelWithProjection:
    """Blocks of `nn.MultiheadAttention` without layer scale; the class token is pooled."""
    blocks = visual.transformer.resblocks
    config = CLIPVisionConfig(
        hidden_size=visual.class_embedding.numel(),
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        intermediate_size=blocks[0].mlp.c_fc.out_features,
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        projection_dim=visual.proj.shape[1],
        hidden_act=activation,
        layer_norm_eps=visual.ln_post.eps,
    )
    weights = {
        "vision_model.embeddings.class_embedding": visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        "vision_model.pre_layrnorm.weight": visual.ln_pre.weight,
        "vision_model.pre_layrnorm.bias": visual.ln_pre.bias,
        "vision_model.post_layernorm.weight": visual.ln_post.weight,
        "vision_model.post_layernorm.bias": visual.ln_post.bias,
        "visual_projection.weight": visual.proj.T,
    }
    width = config.hidden_size
    for i, block in enumerate(blocks):
        at = f"vision_model.encoder.layers.{i}."
        for k, name in enumerate(("q_proj", "k_proj", "v_proj")):
            weights[f"{at}self_attn.{name}.weight"] = block.attn.in_proj_weight[k * width : (k + 1) * width]
            weights[f"{at}self_attn.{name}.bias"] = block.attn.in_proj_bias[k * width : (k + 1) * width]
        parts = {
            "self_attn.out_proj": block.attn.out_proj,
            "layer_norm1": block.ln_1,
            "layer_norm2": block.ln_2,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
        }
        for name, part in parts.items():
            weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"] = part.weight, part.bias
    model = CLIPVisionModelWithProjection(config).to(visual.proj.dtype).eval()
    found = model.load_state_dict({name: value.contiguous() for name, value in weights.items()}, strict=False)
    assert not found.unexpected_keys
    assert all(name.endswith("position_ids") for name in found.missing_keys)
    return model
