"""Results of a study of selections: scores of heads, accuracy as heads are added, layers ablated, overlaps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

from residualign._files import plain
from residualign._messages import percent, plural
from residualign._result import Result, Table, one_line
from residualign.errors import BadInputError
from residualign.selection.ablation import LAYER_KINDS
from residualign.selection.scores import Budget, score_title

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = [
    "ENOUGH",
    "CurveSummary",
    "HeadScores",
    "LayerAccuracy",
    "Overlap",
    "SelectionCurve",
    "SelectionStudy",
    "expected_jaccard",
    "jaccard",
    "overlaps",
    "summarize",
]

ENOUGH = 0.95
"""Share of the model's own accuracy for which the fewest heads are reported."""


@dataclass(frozen=True, repr=False)
class HeadScores:
    """One score for every head. labels and values: in unit order. seed: of the random score, else None."""

    score: str
    seed: int | None
    labels: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def ranked(self) -> tuple[str, ...]:
        """Labels from the best to the worst; ties: the earlier head first."""
        order = sorted(range(len(self.labels)), key=lambda i: -self.values[i])
        return tuple(self.labels[i] for i in order)

    def __repr__(self) -> str:
        return one_line(
            f"HeadScores({self.score}, {plural(len(self.labels), 'head')}, best first: {', '.join(self.ranked)})"
        )


@dataclass(frozen=True, repr=False)
class SelectionCurve:
    """Accuracy with the best 1, 2, ... heads of a score, in [0, 1], everything else ablated.

    order: labels of the heads as they are added. accuracy: one value per number of heads, the last with all of them.
    """

    score: str
    seed: int | None
    ablation: str
    order: tuple[str, ...]
    accuracy: tuple[float, ...]

    def at(self, n_heads: int) -> float:
        """Accuracy with that many heads."""
        return self.accuracy[n_heads - 1]

    def __repr__(self) -> str:
        n, rest = len(self.accuracy), "zero" if self.ablation == "zero" else f"at its {self.ablation}"
        every = "the only head" if n == 1 else f"all {n:,} heads"
        return one_line(f"SelectionCurve({self.score}, the rest {rest}: {percent(self.accuracy[-1])} with {every})")


@dataclass(frozen=True)
class CurveSummary:
    """The curve of a score; for the random score mean, minimum and maximum over its seeds.

    mean, low, high: one value per number of heads. n_seeds: 1 for a score that is not random.
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
        """The fewest heads that reach this accuracy; None if no number does."""
        return next((i + 1 for i, value in enumerate(self.mean) if value >= accuracy), None)


@dataclass(frozen=True)
class LayerAccuracy:
    """Accuracy with the units of a `LayerSet` kept and the others ablated."""

    kind: str
    layer: int | None
    ablation: str
    n_units: int
    accuracy: float


@dataclass(frozen=True, repr=False)
class SelectionStudy(Result):
    """Accuracy of every score's best heads, and with layers left out, on one store.

    Attributes
    ----------
    name : str
        The data.
    split : str
        The images that accuracy is measured on.
    n_images, n_scored, n_classes : int
        Images of that split, validation images that heads were scored on, and classes.
    classifier : str
        "text" or "means".
    accuracy : float
        Accuracy with every unit, in [0, 1].
    keep_mlps : bool
        Whether MLPs and embedding stay in the curves.
    budgets : tuple of Budget
        The paper's numbers of heads, for this model.
    scores : tuple of HeadScores
        One per score, and one per seed of the random score.
    curves : tuple of SelectionCurve
        One per score (and seed) and ablation.
    layers : tuple of LayerAccuracy
        One per set of units kept and ablation.
    """

    name: str
    split: str
    n_images: int
    n_scored: int
    n_classes: int
    classifier: str
    accuracy: float
    keep_mlps: bool
    budgets: tuple[Budget, ...]
    scores: tuple[HeadScores, ...]
    curves: tuple[SelectionCurve, ...]
    layers: tuple[LayerAccuracy, ...]

    @property
    def n_heads(self) -> int:
        """Heads of the model."""
        return len(self.scores[0].labels)

    @property
    def summaries(self) -> tuple[CurveSummary, ...]:
        """One curve per score and ablation."""
        return summarize(self.curves)

    def _summary(self) -> str:
        scores = ", ".join(dict.fromkeys(score_title(one.score) for one in self.scores))
        return f"{self.name!r}, {plural(self.n_heads, 'head')} by {scores}: {100 * self.accuracy:.1f} % with every unit"

    @property
    def tables(self) -> dict[str, Table]:
        """`select_budgets`, `select_curves`, `select_scores`, `select_layers`, and `select_overlap` between scores."""
        return {
            "select_budgets": [self._budgets(one) for one in self.summaries],
            "select_curves": [row for one in self.summaries for row in self._curve(one)],
            "select_scores": self._scores(),
            "select_layers": [self._layer(one) for one in self.layers],
            "select_overlap": [one.row for one in overlaps([self])],
        }

    @property
    def figures(self) -> dict[str, Figure]:
        """`select_curves` and `select_layers`."""
        from residualign.figures.select import select_figures

        return select_figures(self.tables, self.split, self.keep_mlps)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        content: dict[str, Any] = plain(
            {
                "data": self.name,
                "split": self.split,
                "n_images": self.n_images,
                "n_scored": self.n_scored,
                "classes": self.n_classes,
                "n_heads": self.n_heads,
                "classifier": self.classifier,
                "accuracy": self.accuracy,
                "enough": ENOUGH,
                "curves": [self._summary_json(one) for one in self.summaries],
                "scores": [
                    {"score": one.score, "seed": one.seed, "best": one.ranked[: self.budgets[3].n_heads]}
                    for one in self.scores
                    if one.score != "R"
                ],
                "layers": [self._layer(one) for one in self.layers],
            }
        )
        return content

    def _summary_json(self, one: CurveSummary) -> dict[str, Any]:
        enough = one.heads_for(ENOUGH * self.accuracy)
        return {
            "score": one.score,
            "ablation": one.ablation,
            "seeds": one.n_seeds,
            "budgets": [
                {
                    "budget": budget.name,
                    "n_heads": budget.n_heads,
                    "accuracy": one.at(budget.n_heads),
                    "low": one.low[budget.n_heads - 1],
                    "high": one.high[budget.n_heads - 1],
                }
                for budget in self.budgets
            ],
            "heads_for_enough": enough,
            "share_for_enough": None if enough is None else enough / self.n_heads,
            "accuracy": one.mean,
        }

    def _of(self, one: CurveSummary) -> dict[str, Any]:
        return {"data": self.name, "score": one.title, "ablation": one.ablation}

    def _budgets(self, one: CurveSummary) -> dict[str, Any]:
        accuracies = {budget.name: one.at(budget.n_heads) for budget in self.budgets}
        return self._of(one) | accuracies | {f"heads for {100 * ENOUGH:.0f}%": one.heads_for(ENOUGH * self.accuracy)}

    def _curve(self, one: CurveSummary) -> list[dict[str, Any]]:
        points = zip(range(1, self.n_heads + 1), one.mean, one.low, one.high, strict=True)
        names = ("n_heads", "accuracy", "low", "high")
        return [self._of(one) | dict(zip(names, point, strict=True)) for point in points]

    def _scores(self) -> list[dict[str, Any]]:
        return [
            {"data": self.name, "score": score_title(one.score), "seed": one.seed, "head": label, "value": value}
            for one in self.scores
            for label, value in zip(one.labels, one.values, strict=True)
        ]

    def _layer(self, one: LayerAccuracy) -> dict[str, Any]:
        return {
            "data": self.name,
            "kept": one.kind,
            "meaning": LAYER_KINDS[one.kind],
            "layer": one.layer,
            "ablation": one.ablation,
            "n_units": one.n_units,
            "accuracy": one.accuracy,
        }


@dataclass(frozen=True)
class Overlap:
    """Overlap of two choices of the same number of heads. first, second: (data, score) of the two.

    expected: the overlap of two random choices of that size.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    n_heads: int
    jaccard: float
    expected: float

    @property
    def row(self) -> dict[str, Any]:
        """As one row of a table."""
        return {
            "data": self.first[0],
            "score": score_title(self.first[1]),
            "other_data": self.second[0],
            "other_score": score_title(self.second[1]),
            "n_heads": self.n_heads,
            "jaccard": self.jaccard,
            "chance": self.expected,
        }


def summarize(curves: Sequence[SelectionCurve]) -> tuple[CurveSummary, ...]:
    """One summary per score and ablation, in order of first appearance."""
    groups: dict[tuple[str, str], list[SelectionCurve]] = {}
    for curve in curves:
        groups.setdefault((curve.score, curve.ablation), []).append(curve)
    found = []
    for (score, ablation), group in groups.items():
        columns = list(zip(*(curve.accuracy for curve in group), strict=True))
        mean = tuple(sum(values) / len(group) for values in columns)
        low, high = tuple(map(min, columns)), tuple(map(max, columns))
        found.append(CurveSummary(score, ablation, len(group), mean, low, high))
    return tuple(found)


def overlaps(studies: Sequence[SelectionStudy]) -> tuple[Overlap, ...]:
    """The overlap of chosen heads at every budget below all heads, for models with the same heads.

    Within a store: all pairs of scores; between two: each score with itself. Random scores are left out: `expected` is
    the overlap by chance. `BadInputError` if the models' heads differ.
    """
    chosen = [(study.name, one.score, one.ranked) for study in studies for one in study.scores if one.score != "R"]
    if len({study.scores[0].labels for study in studies}) > 1:
        raise BadInputError("heads can be compared between stores of one model alone; these have other heads")
    n = studies[0].n_heads
    return tuple(
        Overlap((name, score), (other, by), count, jaccard(order[:count], others[:count]), expected_jaccard(n, count))
        # in a small model several budgets are the same number of heads
        for count in dict.fromkeys(budget.n_heads for budget in studies[0].budgets)
        if count < n
        for (name, score, order), (other, by, others) in combinations(chosen, 2)
        if name == other or score == by
    )


def jaccard(first: Collection[str], second: Collection[str]) -> float:
    """Jaccard index of two choices of heads, in [0, 1]; 1 if both are empty.

    >>> jaccard({"L0.H0", "L0.H1"}, {"L0.H1", "L0.H2"})
    0.3333333333333333
    """
    either = set(first) | set(second)
    return len(set(first) & set(second)) / len(either) if either else 1.0


def expected_jaccard(n_heads: int, count: int) -> float:
    """The expected Jaccard index of two random choices of `count` out of `n_heads`.

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
