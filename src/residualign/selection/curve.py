"""What a study of selections holds: scores, curves, layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from residualign.errors import BadInputError
from residualign.selection.scores import score_title

__all__ = [
    "BUDGETS",
    "Budget",
    "CurveSummary",
    "HeadScores",
    "LayerAccuracy",
    "SelectionCurve",
    "budgets",
    "parse_budget",
    "summarise",
]


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


BUDGETS = ("1", "1%", "5%", "10%", "25%", "50%", "75%", "100%")


"""The paper's, and all heads."""


_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<share>\s*%)?")


@dataclass(frozen=True)
class Budget:
    """A budget as it was written, and the heads it comes to."""

    name: str
    n_heads: int


def parse_budget(budget: int | str, n_heads: int) -> Budget:
    """A count ("1", 12) or a share of the heads ("5%"); `BadInputError` for anything else.

    A share is rounded down, and is at least two heads, so that every share says more than the budget of one head; none
    is more than there are. Source: arXiv 2411.00246 section 5; the rounding is the published code's.
    """
    found = _BUDGET.fullmatch(str(budget).strip())
    if found is None:
        raise BadInputError(f"a budget is a number of heads, like 12, or a share of them, like 5%; got {budget!r}")
    number = float(found["number"])
    if found["share"] is not None:
        if not 0 < number <= 100:
            raise BadInputError(f"a budget is a share of the heads in (0, 100] %, got {budget!r}")
        # a share that comes to a whole number must not lose a head to rounding
        return Budget(str(budget), min(max(int(number * n_heads / 100 + 1e-9), 2), n_heads))
    if not (number == int(number) and 1 <= number <= n_heads):
        raise BadInputError(f"a budget is between 1 and the {n_heads} heads of the model, got {budget!r}")
    return Budget(str(budget), int(number))


def budgets(n_heads: int) -> tuple[Budget, ...]:
    """The paper's budgets for a model of so many heads.

    >>> [budget.n_heads for budget in budgets(144)]
    [1, 2, 7, 14, 36, 72, 108, 144]
    """
    return tuple(parse_budget(name, n_heads) for name in BUDGETS)
