"""What a solver hands back, and how it keeps the best validated point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from residualign.fitting.objective import Parameters, Score

__all__ = ["Best", "Record", "Solution"]

Record = dict[str, Any]


@dataclass(frozen=True)
class Solution:
    """The best validated point of a run.

    epochs: passes over the training images, line searches and every candidate included. chosen: the settings validation
    chose. history: one record a validation.
    """

    parameters: Parameters
    score: Score
    epochs: int
    learning_rate: float | None
    chosen: Record
    history: tuple[Record, ...]


@dataclass
class Best:
    """The best validated point so far and how long ago it was found."""

    score: Score
    parameters: Parameters
    waited: int = 0

    def see(self, score: Score, parameters: Mapping[str, Tensor]) -> None:
        """Take note of one validation; a copy of the parameters is kept where it is the best."""
        self.waited += 1
        if score > self.score:
            self.score, self.waited = score, 0
            self.parameters = {name: value.detach().clone() for name, value in parameters.items()}
