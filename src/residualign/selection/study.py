"""Everything the paper asks of selections, for one store: curves of every score, and layers left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Bool
from torch import Tensor

from residualign.errors import BadInputError
from residualign.selection.ablation import ClassProducts, accuracy_curves, check_ablation, kept_accuracies, replacements
from residualign.selection.curve import (
    Budget,
    CurveSummary,
    HeadScores,
    LayerAccuracy,
    SelectionCurve,
    budgets,
    summarise,
)
from residualign.selection.scores import SCORES, get_score, head_scores, ranked
from residualign.selection.select import SelectionSubject
from residualign.units import Unit, Units

__all__ = [
    "LAYER_KINDS",
    "N_RANDOM",
    "LayerSet",
    "Overlap",
    "SelectionStudy",
    "expected_jaccard",
    "jaccard",
    "layer_sets",
    "overlaps",
    "study_selection",
    "unit_mask",
]

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


LAYER_KINDS = {
    "all": "every unit",
    "heads": "all heads, and nothing else",
    "mlps": "all MLPs and the embedding, and nothing else",
    "heads of layer": "the heads of one layer, and nothing else",
    "heads up to layer": "the heads of this and earlier layers, and nothing else",
    "heads from layer": "the heads of this and later layers, and nothing else",
    "up to layer": "all units of this and earlier layers",
    "from layer": "all units of this and later layers",
    "without heads": "everything but this layer's heads",
    "without mlp": "everything but this layer's MLP",
    "without layer": "everything but this layer's heads and MLP",
}


"""What is kept, by kind. The embedding counts to the first layer, the MLP of an attention pooling to the last."""


@dataclass(frozen=True)
class LayerSet:
    """One set of units that are kept: a kind of `LAYER_KINDS`, and the layer where the kind speaks of one."""

    kind: str
    layer: int | None
    units: tuple[Unit, ...]


def layer_sets(units: Units) -> tuple[LayerSet, ...]:
    """All sets that are looked at: three without a layer, eight a layer.

    Source: arXiv 2411.00246 section 5 (heads, MLPs, heads of a layer, heads up to a layer); the others are ours.
    """
    last = units.n_layers - 1

    def place(unit: Unit) -> int:
        if unit.layer is not None:
            return unit.layer
        return 0 if unit.kind == "embedding" else last

    kinds: dict[str, Callable[[Unit, int], bool]] = {
        "heads of layer": lambda unit, layer: unit.kind == "head" and unit.layer == layer,
        "heads up to layer": lambda unit, layer: unit.kind == "head" and place(unit) <= layer,
        "heads from layer": lambda unit, layer: unit.kind == "head" and place(unit) >= layer,
        "up to layer": lambda unit, layer: place(unit) <= layer,
        "from layer": lambda unit, layer: place(unit) >= layer,
        "without heads": lambda unit, layer: not (unit.kind == "head" and unit.layer == layer),
        "without mlp": lambda unit, layer: not (unit.kind == "mlp" and unit.layer == layer),
        "without layer": lambda unit, layer: unit.layer != layer,
    }
    whole = (
        LayerSet("all", None, tuple(units)),
        LayerSet("heads", None, units.of_kind("head")),
        LayerSet("mlps", None, units.of_kind("embedding", "mlp")),
    )
    layered = tuple(
        LayerSet(kind, layer, tuple(unit for unit in units if keeps(unit, layer)))
        for kind, keeps in kinds.items()
        for layer in range(units.n_layers)
    )
    return whole + layered


def unit_mask(sets: tuple[LayerSet, ...], units: Units) -> Bool[Tensor, "setting unit"]:
    """Which units each set keeps, in unit order."""
    return torch.tensor([[unit in one.units for unit in units] for one in sets])
