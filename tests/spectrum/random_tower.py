"""Random maps and coordinates with another prime for every axis, so that a swapped axis cannot pass."""

from __future__ import annotations

import torch

from residualign.decomposition.coordinates import Coordinates, UnitMaps

LAYERS, HEADS, HEAD_DIM, WIDTH, DIM = 2, 3, 5, 7, 13


def make_maps(seed=0, *, layers=LAYERS, heads=HEADS, head_dim=HEAD_DIM, width=WIDTH, dim=DIM):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64) / dim**0.5

    group = normal(dim)
    return UnitMaps(
        heads=normal(layers, heads, head_dim + 2, dim),
        mlps=normal(layers, width + 1, dim),
        embedding=normal(2, dim),
        head_bias=group / heads,
        group_bias=group,
    )


def make_coordinates(n, seed=1, *, layers=LAYERS, heads=HEADS, head_dim=HEAD_DIM, width=WIDTH, dim=DIM, offset=0.0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64) + offset

    return Coordinates(
        heads=normal(n, layers, heads, head_dim),
        mlps=normal(n, layers, width),
        inverse_std=normal(n),
        mean_over_std=normal(n),
        output=normal(n, dim),
    )
