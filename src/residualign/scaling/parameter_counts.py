"""How many numbers each method learns on a tower of given sizes, before an image was seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from residualign.fitting.methods import METHODS, build_scaling, start_parameters
from residualign.spectrum.spectrum import Spectra, Spectrum
from residualign.units import Units

__all__ = ["most_parameters"]


def most_parameters(
    n_layers: int,
    n_heads: int,
    width: int,
    dim: int,
    *,
    attention_pooled: bool = False,
    methods: Sequence[str] = tuple(METHODS),
) -> dict[str, int]:
    """The learned numbers of each method where every unit has as many components as its map allows.

    `coarse`, `spectral-output` and `linear` learn exactly as many wherever the images span the space; `residual` and
    `residual-heads` at most: directions without variance are dropped, and `residual-heads` keeps the components of 0.9
    of the variance. `joint` counts its scales alone and learns dim numbers for each class besides.

    A head spans head_dim + 2 directions, an MLP width + 1, neither more than dim. attention_pooled: of a tower whose
    tokens are pooled by attention heads keep at most head_dim, MLPs dim, and the pooling has an MLP of its own.
    Counted by the functions that `fit` uses, on views of a single zero.

    >>> counts = most_parameters(n_layers=12, n_heads=12, width=768, dim=512)
    >>> counts["coarse"], counts["spectral-output"], counts["residual-heads"]
    (144, 512, 9504)
    """
    head_dim = width // n_heads
    head = min(head_dim if attention_pooled else head_dim + 2, dim)
    mlp = min(width + 1, dim)
    spectra = _spectra(Units(n_layers, n_heads, attention_pooled), {"embedding": 0, "head": head, "mlp": mlp}, dim)
    counts = {}
    for name in methods:
        # at threshold 1 no component is cut
        scaling = build_scaling(METHODS[name], spectra, threshold=1.0)
        parameters = start_parameters(METHODS[name], scaling, n_classes=0, dim=dim)
        counts[name] = sum(tensor.numel() for tensor in parameters.values())
    return counts


def _spectra(units: Units, n_components: dict[str, int], dim: int) -> Spectra:
    """Spectra of these sizes that hold no numbers."""
    spectrums = tuple(_spectrum(n_components[unit.kind], dim) for unit in units)
    return Spectra(units, spectrums, output=_spectrum(dim, dim), source="sizes alone")


def _spectrum(n_components: int, dim: int) -> Spectrum:
    # shapes are all that counts; the meta device would have them too, but takes seconds to start
    zero = torch.zeros(())
    return Spectrum(zero.expand(dim), zero.expand(n_components, dim), zero.expand(n_components), 1.0, 1)
