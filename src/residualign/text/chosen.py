"""The texts that a method chose for some data, in the order in which it chose them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Chosen"]


@dataclass(frozen=True)
class Chosen:
    """What `somp`, `omp` and `text_span` return.

    indices: rows of the dictionary, texts: what they say. weights: as the method states. explained_variance_ratio:
    after each step, the share of the data's variance in the span of the texts chosen so far, in [0, 1], never falling.

    Fewer texts than asked for were chosen where nothing was left to explain, or no text was independent of those chosen
    before; none for data that never varies.
    """

    indices: tuple[int, ...]
    texts: tuple[str, ...]
    weights: tuple[float, ...]
    explained_variance_ratio: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.indices)
