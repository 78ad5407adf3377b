"""What a study of selections holds: scores, curves, layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from residualign.selection.scores import score_title

__all__ = ["CurveSummary", "HeadScores", "LayerAccuracy", "SelectionCurve", "summarise"]


@dataclass(frozen=True)
class HeadScores:
    """One score of every head. labels and values: in unit order. seed: of a random score, else None."""

    score: str
    seed: int | None
    labels: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def ranked(self) -> tuple[str, ...]:
        """Labels from the best to the worst; of equal scores the earlier head comes first."""
        order = sorted(range(len(self.labels)), key=lambda i: -self.values[i])
        return tuple(self.labels[i] for i in order)


@dataclass(frozen=True)
class SelectionCurve:
    """Accuracy with the best 1, 2, ... heads of a score, in [0, 1], everything else ablated.

    order: labels of the heads as they are added. accuracy: one a number of heads, the last with all of them.
    """

    score: str
    seed: int | None
    ablation: str
    order: tuple[str, ...]
    accuracy: tuple[float, ...]

    def at(self, n_heads: int) -> float:
        """Accuracy with that many heads."""
        return self.accuracy[n_heads - 1]


@dataclass(frozen=True)
class CurveSummary:
    """The curve of a score; of a random one the mean over its seeds, and the least and largest accuracy.

    mean, low, high: one a number of heads. n_seeds: 1 for a score that is not random.
    """

    score: str
    ablation: str
    n_seeds: int
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def title(self) -> str:
        """The paper's name of the score."""
        return score_title(self.score)

    def at(self, n_heads: int) -> float:
        """Mean accuracy with that many heads."""
        return self.mean[n_heads - 1]

    def heads_for(self, accuracy: float) -> int | None:
        """The fewest heads that reach this accuracy; None where none do."""
        return next((i + 1 for i, value in enumerate(self.mean) if value >= accuracy), None)


@dataclass(frozen=True)
class LayerAccuracy:
    """Accuracy with the units of a `LayerSet` kept and the others ablated."""

    kind: str
    layer: int | None
    ablation: str
    n_units: int
    accuracy: float


def summarise(curves: Sequence[SelectionCurve]) -> tuple[CurveSummary, ...]:
    """One summary a score and ablation, in the order in which they come first."""
    groups: dict[tuple[str, str], list[SelectionCurve]] = {}
    for curve in curves:
        groups.setdefault((curve.score, curve.ablation), []).append(curve)
    return tuple(
        CurveSummary(
            score,
            ablation,
            len(group),
            tuple(sum(values) / len(group) for values in zip(*(curve.accuracy for curve in group), strict=True)),
            tuple(map(min, zip(*(curve.accuracy for curve in group), strict=True))),
            tuple(map(max, zip(*(curve.accuracy for curve in group), strict=True))),
        )
        for (score, ablation), group in groups.items()
    )
