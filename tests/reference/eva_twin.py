"""Residual units of timm's Eva the slow way: a forward pass by hand, one image, one head at a time.

Nothing of the package is used, and of timm only the modules that hold weights: tokens, rotary positions, the softmax
and the norm between the values and their projection are written out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.reference.residual_twin import after_norm


def contributions(eva: Any, pixels: Tensor, rule: str = "shared", projection: Any = None) -> dict[str, Tensor]:
    """Contribution (image, dim) by label; `projection` is the linear map behind the final norm, if any."""
    norm = eva.fc_norm if isinstance(eva.norm, torch.nn.Identity) else eva.norm
    n_heads = eva.blocks[0].attn.num_heads
    matrix, bias = (None, None) if projection is None else (projection.weight.T, projection.bias)
    rows = []
    for image in pixels:
        tokens, stream = follow(eva, image)
        terms = {label: term[0] for label, term in tokens.items()}
        rows.append(after_norm(terms, stream[0], norm, matrix, len(eva.blocks), n_heads, rule, bias))
    return {label: torch.stack([row[label] for row in rows]) for label in rows[0]}


def follow(eva: Any, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Every unit's (token, width) of one image, and the last stream, which they sum to."""
    stream, grid = _tokens(eva, image)
    terms: dict[str, Tensor] = {"embedding": stream}
    for i, block in enumerate(eva.blocks):
        one = torch.ones_like(stream[0])
        scale, mlp_scale = (one if gamma is None else gamma for gamma in (block.gamma_1, block.gamma_2))
        heads = _heads(block.attn, block.norm1(stream), eva.rope, grid)
        for h, head in enumerate(heads):
            terms[f"L{i}.H{h}"] = head * scale
        stream = stream + sum(heads) * scale
        mlp = block.mlp(block.norm2(stream)) * mlp_scale
        terms[f"L{i}.mlp"] = mlp
        stream = stream + mlp
    return terms, stream


def _tokens(eva: Any, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Class token, registers, patches, with positions where the tower has them; and the grid of patches."""
    patches = eva.patch_embed.proj(image[None])[0]
    grid = (patches.shape[1], patches.shape[2])
    before = [eva.cls_token[0]] if eva.reg_token is None else [eva.cls_token[0], eva.reg_token[0]]
    tokens = patches.flatten(1).T
    if eva.pos_embed is not None and eva.no_embed_class:
        tokens = tokens + eva.pos_embed[0]
    tokens = torch.cat([*before, tokens])
    if eva.pos_embed is not None and not eva.no_embed_class:
        tokens = tokens + eva.pos_embed[0]
    return eva.norm_pre(tokens), grid


def _heads(attention: Any, x: Tensor, rope: Any, grid: tuple[int, int]) -> list[Tensor]:
    """What each head adds to the stream, (token, width), before layer scale; the projection's bias in equal shares."""
    n_heads, d = attention.num_heads, attention.proj.in_features // attention.num_heads
    if attention.qkv is None:
        q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    else:
        q, k, v = attention.qkv(x).chunk(3, dim=-1)
        if attention.q_bias is not None:
            q, v = q + attention.q_bias, v + attention.v_bias
    values = []
    for h in range(n_heads):
        part = slice(h * d, (h + 1) * d)
        turned = []
        for rows, norm in ((q[:, part], attention.q_norm), (k[:, part], attention.k_norm)):
            rows = norm(rows)
            turned.append(rows if rope is None else _turned(rows, rope, grid, attention.rotate_half))
        values.append(torch.softmax(turned[0] @ turned[1].T / d**0.5, dim=-1) @ v[:, part])
    together = attention.norm(torch.cat(values, dim=-1))
    weight, bias = attention.proj.weight, attention.proj.bias
    parts = [slice(h * d, (h + 1) * d) for h in range(n_heads)]
    return [together[:, part] @ weight[:, part].T + bias / n_heads for part in parts]


def _turned(x: Tensor, rope: Any, grid: tuple[int, int], halves: bool) -> Tensor:
    """Pairs of a patch's coordinates rotated by its angles: neighbors, or i and i + d/2; other tokens left alone."""
    sin, cos = _rotations(rope, grid, x.shape[-1])
    before, patches = x[: len(x) - len(sin)], x[len(x) - len(sin) :]
    a, b = patches.chunk(2, dim=-1) if halves else (patches[:, ::2], patches[:, 1::2])
    first, second = a * cos - b * sin, b * cos + a * sin
    together = torch.cat([first, second], dim=-1) if halves else torch.stack([first, second], dim=-1).flatten(1)
    return torch.cat([before, together])


def _rotations(rope: Any, grid: tuple[int, int], d: int) -> tuple[Tensor, Tensor]:
    """Sine and cosine, (patch, d / 2) each: a row's angles, then a column's, at d / 4 frequencies.

    EVA-02 counts patches, on the grid of its pretraining; DINOv3 measures their centers in [-1, 1]. The library holds
    EVA-02's sines, and DINOv3's periods, as float32, also in a tower of float64.
    """
    periods = rope.temperature ** (torch.arange(d // 4) / (d // 4))
    angles = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            both = []
            for i, n, axis in ((row, grid[0], 0), (column, grid[1], 1)):
                if type(rope).__name__ == "RotaryEmbeddingDinoV3":
                    both.append(2 * torch.pi * (2 * (i + 0.5) / n - 1) / periods.double())
                else:
                    at = i if rope.ref_feat_shape is None else i / n * rope.ref_feat_shape[axis]
                    both.append(torch.tensor(float(at)) * (1 / periods))
            angles.append(torch.cat(both))
    table = torch.stack(angles)
    return table.sin().double(), table.cos().double()
