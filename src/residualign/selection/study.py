"""Everything the paper asks of selections, for one store: curves of every score, and layers left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from residualign.errors import BadInputError
from residualign.selection.ablation import accuracy_curves, check_ablation, kept_accuracies, replacements
from residualign.selection.budgets import Budget, budgets
from residualign.selection.curve import CurveSummary, HeadScores, LayerAccuracy, SelectionCurve, summarise
from residualign.selection.layers import layer_sets, unit_mask
from residualign.selection.overlap import expected_jaccard, jaccard
from residualign.selection.products import ClassProducts
from residualign.selection.scores import SCORES, get_score, head_scores, ranked
from residualign.selection.select import SelectionSubject

__all__ = ["N_RANDOM", "Overlap", "SelectionStudy", "overlaps", "study_selection"]

N_RANDOM = 10
"""Seeds of the random score, as published."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SelectionStudy:
    """Selections of one store. name: of its data. accuracy: with every unit. split, n_images: where accuracy is from.

    scores: one a score, and one a seed of the random one. keep_mlps: whether MLPs and embedding stay in the curves.
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
        """One curve a score and ablation."""
        return summarise(self.curves)


@dataclass(frozen=True)
class Overlap:
    """How far two choices of as many heads are the same. first, second: (data, score) of the two.

    expected: the overlap of two random choices of that size.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    n_heads: int
    jaccard: float
    expected: float


def study_selection(
    subject: SelectionSubject,
    *,
    name: str,
    scores: Sequence[str] = SCORES,
    ablations: Sequence[str] = ("mean", "zero"),
    split: str = "test",
    keep_mlps: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelectionStudy:
    """Score on validation images, measure on those of `split`. seed: the first of the random score's ten.

    Costs one pass over the products for every ablation; memory that of one block. `BadInputError` for an empty split.
    """
    wanted = tuple(dict.fromkeys(map(get_score, scores)))
    modes = tuple(dict.fromkeys(map(check_ablation, ablations)))
    part, maps, vectors = subject.store.split(split), subject.store.maps, subject.classifier.vectors
    if not len(part):
        raise BadInputError(f"accuracy under ablation needs {split} images, the store has none")
    runs = [(one, s) for one in wanted for s in (range(seed, seed + N_RANDOM) if one == "R" else (None,))]
    steps, done = len(runs) + 2 * len(modes), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    labels = tuple(unit.label for unit in maps.units.of_kind("head"))
    found, orders = [], []
    for one, of_run in runs:
        values = head_scores(one, subject.coordinates, subject.products, maps, subject.classifier, of_run or 0)
        found.append(HeadScores(one, of_run, labels, tuple(values.tolist())))
        orders.append(ranked(values))
        step()
    products = ClassProducts.of(part.coordinates(), part.labels, maps, vectors)
    sets = layer_sets(maps.units)
    mask = unit_mask(sets, maps.units)
    curves: list[SelectionCurve] = []
    layers: list[LayerAccuracy] = []
    for mode in modes:
        replaced = replacements(products, mode, subject.means, vectors)
        accuracy = accuracy_curves(products, orders, replaced, keep_mlps=keep_mlps)
        curves += [
            SelectionCurve(one, of_run, mode, tuple(labels[i] for i in order), tuple(row))
            for (one, of_run), order, row in zip(runs, orders, accuracy.tolist(), strict=True)
        ]
        step()
        kept = kept_accuracies(products, mask, replaced).tolist()
        layers += [
            LayerAccuracy(one.kind, one.layer, mode, len(one.units), value)
            for one, value in zip(sets, kept, strict=True)
        ]
        step()
    return SelectionStudy(
        name=name,
        split=split,
        n_images=len(part),
        n_scored=len(subject.products),
        n_classes=len(subject.classifier.class_names),
        classifier=subject.classifier.kind,
        accuracy=next(one.accuracy for one in layers if one.kind == "all"),
        keep_mlps=keep_mlps,
        budgets=budgets(len(labels)),
        scores=tuple(found),
        curves=tuple(curves),
        layers=tuple(layers),
    )


def overlaps(studies: Sequence[SelectionStudy]) -> tuple[Overlap, ...]:
    """The overlap of chosen heads at every budget below all heads, of models with the same heads.

    Of one store: all pairs of scores; of two: each score with itself. Random scores are left out: chance is `expected`.
    `BadInputError` where models have other heads.
    """
    chosen = [(study.name, one.score, one.ranked) for study in studies for one in study.scores if one.score != "R"]
    if len({study.scores[0].labels for study in studies}) > 1:
        raise BadInputError("heads can be compared between stores of one model alone; these have other heads")
    n = studies[0].n_heads
    return tuple(
        Overlap(
            (name, score),
            (other_name, other_score),
            count,
            jaccard(order[:count], other_order[:count]),
            expected_jaccard(n, count),
        )
        # in a small model several budgets come to as many heads
        for count in dict.fromkeys(budget.n_heads for budget in studies[0].budgets)
        if count < n
        for i, (name, score, order) in enumerate(chosen)
        for other_name, other_score, other_order in chosen[i + 1 :]
        if name == other_name or score == other_score
    )
