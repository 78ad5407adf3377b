"""How far two choices of heads are the same."""

from __future__ import annotations

from collections.abc import Collection
from math import comb

__all__ = ["expected_jaccard", "jaccard"]


def jaccard(first: Collection[str], second: Collection[str]) -> float:
    """Share of the heads chosen by either that both chose, in [0, 1]; 1 where neither chose any.

    >>> jaccard({"L0.H0", "L0.H1"}, {"L0.H1", "L0.H2"})
    0.3333333333333333
    """
    either = set(first) | set(second)
    return len(set(first) & set(second)) / len(either) if either else 1.0


def expected_jaccard(n_heads: int, count: int) -> float:
    """The mean Jaccard overlap of two random choices of `count` from `n_heads`: what chance alone gives.

    The number they share is hypergeometric; O(count).

    >>> expected_jaccard(4, 4), expected_jaccard(2, 1)
    (1.0, 0.5)
    """
    ways = comb(n_heads, count)
    return sum(
        comb(count, both) * comb(n_heads - count, count - both) / ways * (both / (2 * count - both))
        for both in range(max(0, 2 * count - n_heads), count + 1)
        if both
    )
