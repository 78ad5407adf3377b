"""Residual units of towers that pool means or by attention, the slow way: a forward pass by hand, one image at a time.

Nothing of the package is used. Every unit is followed as (token, width), every token is normed with its own mean and
deviation, each unit carrying its share of what belongs to none, and only then are tokens pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@dataclass
class Layer:
    norm_attention: Any
    qkv: Sequence[tuple[Tensor, Tensor]]
    out: Any
    norm_mlp: Any
    mlp: Any
    scale_attention: Tensor | None = None
    scale_mlp: Tensor | None = None


@dataclass
class Pool:
    """One query attends: its vector after projection and scaling, by head, and the other projections."""

    query: Tensor
    n_heads: int
    key: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]
    out: Any
    norm_mlp: Any = None
    mlp: Any = None
    norm_after: Any = None
    projection: Tensor | None = None


def siglip_layers(vision: Any) -> list[Layer]:
    layers = []
    for layer in vision.encoder.layers:
        a = layer.self_attn
        qkv = [(part.weight, part.bias) for part in (a.q_proj, a.k_proj, a.v_proj)]
        layers.append(Layer(layer.layer_norm1, qkv, a.out_proj, layer.layer_norm2, layer.mlp))
    return layers


def timm_layers(model: Any) -> list[Layer]:
    layers = []
    for block in model.blocks:
        qkv = list(zip(block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3), strict=True))
        scales = [getattr(scale, "gamma", None) for scale in (block.ls1, block.ls2)]
        layers.append(Layer(block.norm1, qkv, block.attn.proj, block.norm2, block.mlp, *scales))
    return layers


def open_clip_layers(visual: Any) -> list[Layer]:
    layers = []
    for block in visual.transformer.resblocks:
        qkv = list(zip(block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True))
        layers.append(Layer(block.ln_1, qkv, block.attn.out_proj, block.ln_2, block.mlp))
    return layers


def follow(stream: Tensor, layers: list[Layer], n_heads: int) -> tuple[dict[str, Tensor], Tensor]:
    """Every unit's (token, width) of one image, and the last stream, which they sum to."""
    terms = {"embedding": stream}
    for i, layer in enumerate(layers):
        x = layer.norm_attention(stream)
        q, k, v = (F.linear(x, weight, bias) for weight, bias in layer.qkv)
        d = q.shape[-1] // n_heads
        scale = 1.0 if layer.scale_attention is None else layer.scale_attention
        total = torch.zeros_like(stream)
        for h in range(n_heads):
            part = slice(h * d, (h + 1) * d)
            weights = torch.softmax(q[:, part] @ k[:, part].T / d**0.5, dim=-1)
            head = (weights @ v[:, part] @ layer.out.weight[:, part].T + layer.out.bias / n_heads) * scale
            terms[f"L{i}.H{h}"] = head
            total = total + head
        stream = stream + total
        mlp = layer.mlp(layer.norm_mlp(stream)) * (1.0 if layer.scale_mlp is None else layer.scale_mlp)
        terms[f"L{i}.mlp"] = mlp
        stream = stream + mlp
    return terms, stream


def share_of(label: str, n_layers: int, n_heads: int) -> float:
    if label == "pool.mlp":
        return 0.0
    return 1 / (2 * n_layers + 1) / (n_heads if "H" in label else 1)


def normed(terms: dict[str, Tensor], x: Tensor, norm: Any, shares: dict[str, float], rule: str) -> dict[str, Tensor]:
    """LayerNorm of the last axis with the statistics of the sum x, each unit with its share of mean and bias."""
    mu = x.mean(dim=-1, keepdim=True)
    sigma = ((x - mu).square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    result = {}
    for label, term in terms.items():
        mean = mu * shares[label] if rule == "shared" else term.mean(dim=-1, keepdim=True)
        result[label] = (term - mean) / sigma * norm.weight + norm.bias * shares[label]
    return result


def mean_pooled(
    terms: dict[str, Tensor], x: Tensor, norm: Any, first: int, norm_first: bool, n_heads: int, rule: str
) -> dict[str, Tensor]:
    n_layers = sum(label.endswith(".mlp") for label in terms)
    shares = {label: share_of(label, n_layers, n_heads) for label in terms}
    if norm_first:
        return {label: term[first:].mean(dim=0) for label, term in normed(terms, x, norm, shares, rule).items()}
    pooled = {label: term[first:].mean(dim=0) for label, term in terms.items()}
    return normed(pooled, x[first:].mean(dim=0), norm, shares, rule)


def attention_pooled(
    terms: dict[str, Tensor], x: Tensor, norm: Any, pool: Pool, n_heads: int, rule: str
) -> dict[str, Tensor]:
    n_layers = sum(label.endswith(".mlp") for label in terms)
    shares = {label: share_of(label, n_layers, n_heads) for label in terms}
    tokens = norm(x)
    keys = F.linear(tokens, *pool.key)
    d = keys.shape[-1] // pool.n_heads
    pooled = {}
    for label, term in normed(terms, x, norm, shares, rule).items():
        values = term @ pool.value[0].T + pool.value[1] * shares[label]
        heads = []
        for p in range(pool.n_heads):
            part = slice(p * d, (p + 1) * d)
            weights = torch.softmax(keys[:, part] @ pool.query[part], dim=0)
            heads.append(weights @ values[:, part])
        pooled[label] = torch.cat(heads) @ pool.out.weight.T + pool.out.bias * shares[label]
    if pool.mlp is not None:
        pooled["pool.mlp"] = pool.mlp(pool.norm_mlp(sum(pooled.values())))
        shares["pool.mlp"] = 0.0
    if pool.norm_after is not None:
        pooled = normed(pooled, sum(pooled.values()), pool.norm_after, shares, rule)  # type: ignore[arg-type]
    if pool.projection is not None:
        pooled = {label: term @ pool.projection for label, term in pooled.items()}
    return pooled
