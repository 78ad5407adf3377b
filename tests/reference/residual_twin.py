"""Residual units the slow way, written from the papers: a forward pass by hand, one image, one unit at a time.

Nothing of the package is used. Attention is written out with softmax, the final LayerNorm's terms are shared out in
loops: -mu/sigma and beta over the 2L+1 groups (embedding, attention layers, MLPs), a layer's share over its heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def contributions(hf_model: Any, pixels: Tensor, rule: str = "shared") -> dict[str, Tensor]:
    """Contribution (image, dim) by label of a transformers CLIP, ViT, DINO or BLIP, in the model's dtype."""
    if "dino" in hf_model.config.model_type:
        return _dino(hf_model, pixels, rule)
    if hf_model.config.model_type == "blip":
        return _blip(hf_model, pixels, rule)
    is_clip = hasattr(hf_model, "vision_model")
    tower = hf_model.vision_model if is_clip else hf_model
    projection = hf_model.visual_projection.weight.T if is_clip else None
    layers = tower.encoder.layers if is_clip else tower.layers
    norm = tower.post_layernorm if is_clip else tower.layernorm
    n_heads = tower.config.num_attention_heads
    rows: list[dict[str, Tensor]] = []
    for image in pixels:
        stream = tower.embeddings(image[None])[0]
        if is_clip:
            stream = tower.pre_layrnorm(stream)
        terms: dict[str, Tensor] = {"embedding": stream[0]}
        for i, layer in enumerate(layers):
            attention = layer.self_attn if is_clip else layer.attention
            before = layer.layer_norm1 if is_clip else layer.layernorm_before
            after = layer.layer_norm2 if is_clip else layer.layernorm_after
            out = attention.out_proj if is_clip else attention.o_proj
            total, heads = _attention(attention, out, before(stream), n_heads)
            for h, head in enumerate(heads):
                terms[f"L{i}.H{h}"] = head[0]
            stream = stream + total
            mlp = layer.mlp(after(stream))
            terms[f"L{i}.mlp"] = mlp[0]
            stream = stream + mlp
        rows.append(after_norm(terms, stream[0], norm, projection, len(layers), n_heads, rule))
    return {label: torch.stack([row[label] for row in rows]) for label in rows[0]}


def _dino(hf_model: Any, pixels: Tensor, rule: str) -> dict[str, Tensor]:
    """DINOv2 and DINOv3: each sum into the stream is multiplied by a layer scale; DINOv3 turns queries and keys."""
    is_v3 = hf_model.config.model_type == "dinov3_vit"
    layers = hf_model.model.layer if is_v3 else hf_model.encoder.layer
    norm = hf_model.norm if is_v3 else hf_model.layernorm
    n_heads = hf_model.config.num_attention_heads
    rows = []
    for image in pixels:
        stream = hf_model.embeddings(image[None])[0]
        turn = None
        if is_v3:
            side = image.shape[-1] // hf_model.config.patch_size
            turn = _rotary(side, stream.shape[-1] // n_heads, hf_model.config.rope_theta)
        terms: dict[str, Tensor] = {"embedding": stream[0]}
        for i, layer in enumerate(layers):
            scale = layer.layer_scale1.lambda1
            total, heads = _attention(layer.attention, layer.attention.o_proj, layer.norm1(stream), n_heads, turn)
            for h, head in enumerate(heads):
                terms[f"L{i}.H{h}"] = head[0] * scale
            stream = stream + total * scale
            mlp = layer.mlp(layer.norm2(stream)) * layer.layer_scale2.lambda1
            terms[f"L{i}.mlp"] = mlp[0]
            stream = stream + mlp
        rows.append(after_norm(terms, stream[0], norm, None, len(layers), n_heads, rule))
    return {label: torch.stack([row[label] for row in rows]) for label in rows[0]}


def _blip(hf_model: Any, pixels: Tensor, rule: str) -> dict[str, Tensor]:
    """BLIP for retrieval: queries, keys and values come from one matrix, and the projection has a bias."""
    tower, out = hf_model.vision_model, hf_model.vision_proj
    n_heads, layers = tower.config.num_attention_heads, tower.encoder.layers
    rows = []
    for image in pixels:
        stream = tower.embeddings(image[None])[0]
        terms: dict[str, Tensor] = {"embedding": stream[0]}
        for i, layer in enumerate(layers):
            attention = layer.self_attn
            q, k, v = attention.qkv(layer.layer_norm1(stream)).chunk(3, dim=-1)
            total, heads = heads_of(q, k, v, attention.projection, n_heads)
            for h, head in enumerate(heads):
                terms[f"L{i}.H{h}"] = head[0]
            stream = stream + total
            mlp = layer.mlp(layer.layer_norm2(stream))
            terms[f"L{i}.mlp"] = mlp[0]
            stream = stream + mlp
        rows.append(
            after_norm(terms, stream[0], tower.post_layernorm, out.weight.T, len(layers), n_heads, rule, out.bias)
        )
    return {label: torch.stack([row[label] for row in rows]) for label in rows[0]}


def _rotary(side: int, d: int, theta: float) -> Tensor:
    """(patch, d / 2) angles: a patch center's row, then its column, in [-1, 1], at d / 4 frequencies.

    Centers and frequencies are rounded to float32 as the library rounds them, also in a tower of float64.
    """
    frequencies = (1 / theta ** torch.arange(0, 1, 4 / d)).double()
    angles = []
    for row in range(side):
        for column in range(side):
            center = [2 * (i + 0.5) / side - 1 for i in (row, column)]
            angles.append(torch.cat([torch.tensor(2 * torch.pi * c).double() * frequencies for c in center]))
    return torch.stack(angles)


def _turned(x: Tensor, angles: Tensor | None) -> Tensor:
    """Coordinates i and i + d/2 of each patch rotated by its angle; the tokens before the patches are left alone."""
    if angles is None:
        return x
    before, patches = x[: len(x) - len(angles)], x[len(x) - len(angles) :]
    a, b = patches.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([before, torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)])


def _attention(
    attention: Any, out: Any, x: Tensor, n_heads: int, turn: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    return heads_of(attention.q_proj(x), attention.k_proj(x), attention.v_proj(x), out, n_heads, turn)


def heads_of(
    q: Tensor, k: Tensor, v: Tensor, out: Any, n_heads: int, turn: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """What the attention adds to the stream, (token, width), and each head's share of it."""
    d = q.shape[-1] // n_heads
    heads = []
    for h in range(n_heads):
        part = slice(h * d, (h + 1) * d)
        weights = torch.softmax(_turned(q[:, part], turn) @ _turned(k[:, part], turn).T / d**0.5, dim=-1)
        heads.append(weights @ v[:, part] @ out.weight[:, part].T + out.bias / n_heads)
    return sum(heads), heads  # type: ignore[return-value]


def after_norm(
    terms: dict[str, Tensor],
    x: Tensor,
    norm: Any,
    projection: Tensor | None,
    n_layers: int,
    n_heads: int,
    rule: str,
    bias: Tensor | None = None,
) -> dict[str, Tensor]:
    """Each term's share of the embedding, given the stream x that is their sum."""
    mu, sigma = x.mean(), ((x - x.mean()).square().mean() + norm.eps).sqrt()
    result = {}
    for label, term in terms.items():
        share = 2 * n_layers + 1
        if "H" in label:
            share *= n_heads
        mean = mu / share if rule == "shared" else term.mean()
        value = (term - mean) / sigma * norm.weight + norm.bias / share
        value = value if projection is None else value @ projection
        result[label] = value if bias is None else value + bias / share
    return result
