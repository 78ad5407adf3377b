"""Spectra of random orthonormal components, and towers of them."""

import torch

from residualign.spectrum import Spectra, Spectrum
from residualign.units import Units

DIM = 13


def generator(seed):
    return torch.Generator().manual_seed(seed)


def make_spectrum(n_components, seed, *, dim=DIM, decay=0.7, hidden=0.0):
    """hidden: variance of the unit that lies in none of the components."""
    g = generator(seed)
    components = torch.linalg.qr(torch.randn(dim, max(n_components, 1), generator=g, dtype=torch.float64)).Q.T
    steps = torch.rand(n_components, generator=g, dtype=torch.float64) * 0.2 + decay
    variance = 3.0 * steps.cumprod(0)
    mean = torch.randn(dim, generator=g, dtype=torch.float64)
    return Spectrum(mean, components[:n_components], variance, float(variance.sum()) + hidden, 83)


def make_spectra(seed, *, layers=2, heads=3, dim=DIM, fingerprint="f00d", pool_mlp=False, counts=(2, 3, 5, 7, 11)):
    units = Units(layers, heads, pool_mlp)
    made = [make_spectrum(counts[(seed + i) % len(counts)], 100 * seed + i, dim=dim) for i in range(len(units) + 1)]
    return Spectra(units, tuple(made[:-1]), made[-1], f"noise {seed}", fingerprint)
