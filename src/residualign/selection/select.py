"""Choose heads by a score and leave the rest out: nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.classification.classifier import Classifier, store_classifier
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.selection.ablation import (
    AblationMode,
    ClassProducts,
    accuracy_curves,
    check_ablation,
    kept_accuracies,
    replacements,
    unit_means,
)
from residualign.selection.curve import HeadScores, parse_budget
from residualign.selection.scores import get_score, head_scores, ranked
from residualign.store import Store

if TYPE_CHECKING:
    from residualign.spectrum.spectrum import Spectra

__all__ = ["SCORED_ON", "Selection", "SelectionSubject", "best_selection", "select_heads", "selection_subject"]

SCORED_ON = "val"
"""The split on which heads are scored, as published: training images made the class means, test images judge."""


@dataclass(frozen=True)
class SelectionSubject:
    """A store read for selecting: validation images, classifier, and the means that stand for what is left out.

    means: (dim,) by unit label, over the spectrum's images. n_train: training images.
    """

    store: Store
    classifier: Classifier
    means: Mapping[str, Tensor]
    coordinates: Coordinates
    products: ClassProducts
    n_train: int
    source: str


@dataclass(frozen=True)
class Selection:
    """The best heads of a score, everything else ablated.

    heads: labels of the chosen heads, best first. kept: labels of every unit that stays, in unit order: the heads, and
    MLPs and embedding where keep_mlps. rest_mean: (dim,), the sum of the means of all others. budget: as it was asked
    for; None where validation chose. accuracy: shares in [0, 1] or None without test images: `zero_shot` with every
    unit and `adapted` with the kept ones on test, `val` of the kept ones. source: the images behind the means.
    """

    score: str
    heads: tuple[str, ...]
    kept: tuple[str, ...]
    ablation: AblationMode
    keep_mlps: bool
    budget: str | None
    seed: int
    scores: HeadScores
    classifier: Classifier
    rest_mean: Float[Tensor, " dim"]
    accuracy: Mapping[str, float | None]
    n_train: int
    n_val: int
    n_test: int
    source: str


def selection_subject(
    store: Store, spectra: Spectra | None = None, classifier: Classifier | str | None = None
) -> SelectionSubject:
    """Read what selecting needs of a store. `BadInputError` where the training or validation split is empty.

    classifier: see `store_classifier`. spectra: whose means stand for what is left out; None takes those of the
    training images.
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
    return SelectionSubject(store, chosen, means, of_val, products, len(train), source)


def select_heads(
    store: Store | SelectionSubject,
    spectra: Spectra | None = None,
    *,
    score: str = "S",
    budget: int | str | None = None,
    mode: str = "mean",
    keep_mlps: bool = False,
    classifier: Classifier | str | None = None,
    seed: int = 0,
) -> Selection:
    """The best heads of a score on the validation images; accuracy with them alone, once on the test split.

    score: see `head_scores`. budget: a number of heads, or a share ("5%"); None takes the number of best validation
    accuracy, the smallest of equal ones. mode: the rest is "zero" or its "mean" over the spectrum's images (None: the
    training images). keep_mlps: whether MLPs and the embedding stay; the paper leaves them out. seed: of the random
    score. Deterministic. Costs O(image x coordinate x (dim + class)). `BadInputError` for unusable input. Source: arXiv
    2411.00246 section 5.
    """
    subject = store if isinstance(store, SelectionSubject) else selection_subject(store, spectra, classifier)
    return _judged(subject, _chosen(subject, score, budget, mode, keep_mlps, seed))


def best_selection(
    subject: SelectionSubject,
    scores: Sequence[str],
    modes: Sequence[str],
    *,
    budget: int | str | None = None,
    keep_mlps: bool = False,
    seed: int = 0,
) -> Selection:
    """Of the selections by each score with each ablation, the best on validation images; of equal ones the smallest.

    The test split is looked at once, for the chosen one. Arguments and errors: see `select_heads`.
    """
    found = [_chosen(subject, score, budget, mode, keep_mlps, seed) for mode in modes for score in scores]
    best = max(found, key=lambda one: (one.accuracy["val"] or 0.0, -len(one.heads)))
    return _judged(subject, best)


def _chosen(
    subject: SelectionSubject, score: str, budget: int | str | None, mode: str, keep_mlps: bool, seed: int
) -> Selection:
    """The selection with its accuracy on validation images alone."""
    name, ablation = get_score(score), check_ablation(mode)
    units = subject.store.maps.units
    labels = tuple(unit.label for unit in units.of_kind("head"))
    wanted = None if budget is None else parse_budget(budget, len(labels))
    values = head_scores(name, subject.coordinates, subject.products, subject.store.maps, subject.classifier, seed)
    order = ranked(values)
    replaced = replacements(subject.products, ablation, subject.means, subject.classifier.vectors)
    (curve,) = accuracy_curves(subject.products, [order], replaced, keep_mlps=keep_mlps).tolist()
    count = max(range(len(curve)), key=lambda i: (curve[i], -i)) + 1 if wanted is None else wanted.n_heads
    heads = tuple(labels[i] for i in order[:count])
    stays = set(heads) | ({unit.label for unit in units if unit.kind != "head"} if keep_mlps else set())
    gone = [subject.means[label] for label in units.labels if label not in stays]
    return Selection(
        score=name,
        heads=heads,
        kept=tuple(label for label in units.labels if label in stays),
        ablation="zero" if ablation == "zero" else "mean",
        keep_mlps=keep_mlps,
        budget=None if budget is None else str(budget),
        seed=seed,
        scores=HeadScores(name, seed if name == "R" else None, labels, tuple(values.tolist())),
        classifier=subject.classifier,
        rest_mean=torch.stack(gone).sum(dim=0) if gone else torch.zeros(subject.store.maps.dim, dtype=torch.float64),
        accuracy={"zero_shot": None, "adapted": None, "val": curve[count - 1]},
        n_train=subject.n_train,
        n_val=len(subject.products),
        n_test=len(subject.store.split("test")),
        source=subject.source,
    )


def _judged(subject: SelectionSubject, selection: Selection) -> Selection:
    """The one look at the test split."""
    test, maps = subject.store.split("test"), subject.store.maps
    if not len(test):
        return selection
    products = ClassProducts.of(test.coordinates(), test.labels, maps, subject.classifier.vectors)
    replaced = replacements(products, selection.ablation, subject.means, subject.classifier.vectors)
    masks = torch.tensor([[True] * len(maps.units), [label in selection.kept for label in maps.units.labels]])
    before, after = kept_accuracies(products, masks, replaced).tolist()
    return replace(selection, accuracy={**selection.accuracy, "zero_shot": before, "adapted": after})
