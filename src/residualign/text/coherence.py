"""Whether texts that were chosen together say alike things, beside as many drawn at random."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.text.dictionary import TextDictionary

__all__ = ["Coherence", "mean_cosine"]

_DRAWS = 1000


class Coherence:
    """Coherence of chosen texts: their mean pairwise cosine, in standard deviations above random draws.

    The draws are as many different texts of the same dictionary, 1,000 times, from `seed`: zero is what chance gives,
    three is rare. Methods that refit choose texts that add to one another, so values below zero are no sign of failure;
    compare units with one another. None for fewer than two texts, and where all draws are alike.
    """

    def __init__(self, dictionary: TextDictionary, seed: int = 0) -> None:
        self._atoms = dictionary.atoms
        self._seed = seed
        self._drawn: dict[int, tuple[float, float]] = {}

    def __call__(self, indices: tuple[int, ...]) -> float | None:
        """Of the texts with these indices. O(draws x text x dim) for a number of texts not yet met, else O(text)."""
        n = len(indices)
        if n < 2:
            return None
        if n not in self._drawn:
            self._drawn[n] = self._draw(n)
        mean, deviation = self._drawn[n]
        own = float(mean_cosine(self._atoms[list(indices)]))
        return (own - mean) / deviation if deviation > 1e-12 else None

    def _draw(self, n: int) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(self._seed)
        draws = (torch.randperm(len(self._atoms), generator=generator)[:n] for _ in range(_DRAWS))
        values = torch.stack([mean_cosine(self._atoms[draw]) for draw in draws])
        return float(values.mean()), float(values.std())


def mean_cosine(atoms: Float[Tensor, "text dim"]) -> Float[Tensor, ""]:
    """Mean cosine over all pairs of unit rows; at least two."""
    n = len(atoms)
    # |sum of rows|^2 holds every pair twice and every row with itself once
    return (atoms.sum(dim=0).square().sum() - atoms.square().sum()) / (n * (n - 1))
