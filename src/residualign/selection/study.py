"""The paper's study of selections for one store: curves of every score, and layers ablated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from residualign.classification.classifier import Classifier, store_classifier
from residualign.errors import BadInputError, refuse_bare_text
from residualign.selection.ablation import (
    ClassProducts,
    accuracy_curves,
    check_ablation,
    kept_accuracies,
    layer_sets,
    replacements,
    unit_mask,
    unit_means,
)
from residualign.selection.result import HeadScores, LayerAccuracy, SelectionCurve, SelectionStudy
from residualign.selection.scores import SCORES, budgets, get_score, head_scores, ranked
from residualign.spectrum import Spectra
from residualign.store import Store

__all__ = ["N_RANDOM", "SCORED_ON", "SelectionSubject", "selection_subject", "study_selection"]

N_RANDOM = 10
"""Number of seeds of the random score, as published."""

SCORED_ON = "val"
"""The split on which heads are scored, as published: training images make the class means, test images evaluate."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SelectionSubject:
    """What selecting heads reads from a store: validation images, classifier, and the means that replace ablated units.

    means: (dim,) by unit label, of `spectra`, or of the training images; source says which. n_train: training images.
    """

    store: Store
    classifier: Classifier
    means: Mapping[str, Tensor]
    products: ClassProducts
    n_train: int
    source: str
    spectra: Spectra | None


def selection_subject(
    store: Store, spectra: Spectra | None = None, classifier: Classifier | str | None = None
) -> SelectionSubject:
    """Read what selecting heads needs. `BadInputError` if the training or validation split is empty.

    classifier: see `store_classifier`. spectra: whose means replace ablated units; None takes those of the training
    images.
    """
    for name in ("train", SCORED_ON):
        if not len(store.split(name)):
            raise BadInputError(f"selecting heads needs {name} images, the store has none")
    train, val = store.split("train"), store.split(SCORED_ON)
    of_train, of_val = train.coordinates(), val.coordinates()
    chosen = store_classifier(
        store, classifier, (of_train.output, train.labels), (of_val.output, val.labels), torch.float64
    )
    if spectra is None:
        means, source = unit_means(of_train, store.maps), "training split"
    else:
        means = {label: spectrum.mean.double() for label, spectrum in spectra.items()}
        source = spectra.source
    products = ClassProducts.of(of_val, val.labels, store.maps, chosen.vectors)
    return SelectionSubject(store, chosen, means, products, len(train), source, spectra)


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
    """Score heads on validation images and measure accuracy on `split`. seed: the first of the random score's ten.

    Costs one pass over the products per ablation, in the memory of one block. `BadInputError` for an empty split.
    """
    refuse_bare_text("scores", scores)
    refuse_bare_text("ablations", ablations)
    wanted = tuple(dict.fromkeys(map(get_score, scores)))
    modes = tuple(dict.fromkeys(map(check_ablation, ablations)))
    part, maps, vectors = subject.store.split(split), subject.store.maps, subject.classifier.vectors
    if not len(part):
        raise BadInputError(f"accuracy under ablation needs {split} images, the store has none")
    runs = [(one, s) for one in wanted for s in (range(seed, seed + N_RANDOM) if one == "R" else (None,))]
    steps, done = len(runs) + 2 * len(modes), count(1)

    def step() -> None:
        if progress is not None:
            progress(next(done), steps)

    labels = tuple(unit.label for unit in maps.units.of_kind("head"))
    found, orders = [], []
    for one, of_run in runs:
        values = head_scores(one, subject.products, maps, subject.classifier, of_run or 0)
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
        kept = zip(sets, kept_accuracies(products, mask, replaced).tolist(), strict=True)
        layers += [LayerAccuracy(one.kind, one.layer, mode, len(one.units), value) for one, value in kept]
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
