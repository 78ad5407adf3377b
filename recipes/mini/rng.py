"""Random numbers of one batch: a function of (seed, batch index) only, so any batch can be reproduced."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Rng:
    """Draws tensors on the CPU from one generator.

    The same `(seed, index)` gives the same draws, whatever was drawn for other batches. A splitmix step separates
    neighboring pairs, which adding seed and index would not.
    """

    def __init__(self, seed: int, index: int) -> None:
        mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
        mixed = ((mixed ^ (mixed >> 31)) * 0x94D049BB133111EB) % 2**63
        self.generator = torch.Generator().manual_seed(mixed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Float tensor of `shape`, uniform in [low, high)."""
        return torch.rand(*shape, generator=self.generator) * (high - low) + low

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """Float tensor of `shape`, mean 0."""
        return torch.randn(*shape, generator=self.generator) * std

    def integers(self, n: int, high: int) -> Tensor:
        """(n,) integers in [0, high)."""
        return torch.randint(high, (n,), generator=self.generator)

    def choice(self, n: int, weights: Sequence[float]) -> Tensor:
        """(n,) indices, index k with probability proportional to `weights[k]`."""
        probabilities = torch.tensor(weights, dtype=torch.float32)
        return torch.multinomial(probabilities, n, replacement=True, generator=self.generator)

    def chance(self, n: int, probability: float) -> Tensor:
        """(n,) booleans, True with `probability`."""
        return torch.rand(n, generator=self.generator) < probability

    def permutations(self, n: int, high: int, k: int) -> Tensor:
        """(n, k) distinct integers of [0, high) in each row."""
        return torch.rand(n, high, generator=self.generator).argsort(1)[:, :k]
