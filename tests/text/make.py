"""Random dictionaries and data of a few directions, with another prime for every axis."""

from __future__ import annotations

import torch

from residualign.text.dictionary import from_vectors

ATOMS, DIM, IMAGES, RANK = 47, 19, 61, 11


def make_dictionary(seed=0, atoms=ATOMS, dim=DIM, offset=0.4):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(atoms, dim, generator=generator, dtype=torch.float64) + offset
    return from_vectors("noise", [f"text {i}" for i in range(atoms)], vectors)


def orthonormal_dictionary(seed=0, dim=DIM):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    return from_vectors("orthonormal", [f"text {i}" for i in range(dim)], vectors)


def make_rows(seed=1, images=IMAGES, rank=RANK, dim=DIM, offset=0.7):
    """Rows of `rank` directions that are not those of the axes, far from zero."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(rank, dim, generator=generator, dtype=torch.float64)
    scale = 1 / torch.arange(1, rank + 1, dtype=torch.float64)
    return torch.randn(images, rank, generator=generator, dtype=torch.float64) * scale @ directions + offset
