"""A head's contribution to the class token's embedding by token, of a transformers CLIP, with loops; float64."""

from __future__ import annotations

import math

import torch


def head_parts(model, pixels, layer, head):
    """(image, token, dim) parts and (image, dim) constants; `model` is a CLIPVisionModelWithProjection."""
    vision, config = model.vision_model, model.config
    n_heads, width, n_layers = config.num_attention_heads, config.hidden_size, config.num_hidden_layers
    size = width // n_heads
    states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
    block = vision.encoder.layers[layer]
    attention = block.self_attn
    projection = model.visual_projection.weight.T
    parts, constants = [], []
    for n in range(len(pixels)):
        x = block.layer_norm1(states[layer][n])
        final = states[-1][n, 0]
        mean = final.mean()
        sigma = math.sqrt(float(((final - mean) ** 2).mean()) + vision.post_layernorm.eps)
        own = slice(head * size, (head + 1) * size)
        query = (attention.q_proj.weight @ x[0] + attention.q_proj.bias)[own]
        logits, values = [], []
        for token in x:
            key = (attention.k_proj.weight @ token + attention.k_proj.bias)[own]
            values.append((attention.v_proj.weight @ token + attention.v_proj.bias)[own])
            logits.append(float(query @ key) / math.sqrt(size))
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        out = attention.out_proj.weight[:, own]
        gamma, beta = vision.post_layernorm.weight, vision.post_layernorm.bias
        rows = []
        for weight, value in zip(exponentials, values, strict=True):
            written = out @ value * (weight / sum(exponentials))
            rows.append((written * gamma / sigma) @ projection)
        parts.append(torch.stack(rows))
        groups = 2 * n_layers + 1
        shared = (beta - mean * gamma / sigma) @ projection / groups / n_heads
        constants.append((attention.out_proj.bias * gamma / sigma) @ projection / n_heads + shared)
    return torch.stack(parts), torch.stack(constants)
