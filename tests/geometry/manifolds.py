"""Points on manifolds whose dimension is known."""

import math

import torch


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def sphere(n, d, seed=0):
    """Uniform on the d-sphere in d + 1 dimensions."""
    return torch.nn.functional.normalize(normal(n, d + 1, seed), dim=1)


def cube(n, d, seed=0):
    return torch.rand(n, d, generator=generator(seed), dtype=torch.float64)


def swiss_roll(n, seed=0):
    """A rolled-up rectangle: two dimensions in three, uniform along the roll."""
    u = cube(n, 2, seed)
    # arc length of r = t is about t^2 / 2, so that the root of a uniform number is uniform along the roll
    t = math.pi * torch.sqrt(2.25 + u[:, 0] * (20.25 - 2.25))
    return torch.stack([t * t.cos(), 20 * u[:, 1], t * t.sin()], dim=1)


def linear(n, rank, dim, seed=0):
    """Gaussian in a random subspace."""
    return normal(n, rank, seed) @ normal(rank, dim, seed + 1)


def rotation(dim, seed=0):
    return torch.linalg.qr(normal(dim, dim, seed)).Q
