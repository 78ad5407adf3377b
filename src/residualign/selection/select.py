"""Choose heads by a score and ablate everything else: nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from residualign._files import plain
from residualign._messages import percent, plural
from residualign._result import Result, Table
from residualign.adapter.adapter import Adapter
from residualign.adapter.fit import adapter_from_fit
from residualign.classification.classifier import Classifier
from residualign.data.split import ImageData
from residualign.decomposition.coordinates import UnitMaps
from residualign.errors import BadInputError, refuse_bare_text
from residualign.extraction import Reading, stored
from residualign.fitting.coefficients import ScaledUnit, Scaling
from residualign.fitting.fit import Accuracy, Fitted
from residualign.fitting.methods import SELECT
from residualign.models.vision_model import VisionModel
from residualign.selection.ablation import (
    AblationMode,
    ClassProducts,
    accuracy_curves,
    check_ablation,
    kept_accuracies,
    replacements,
)
from residualign.selection.result import CurveSummary, HeadScores, SelectionStudy
from residualign.selection.scores import SCORES, get_score, head_scores, parse_budget, ranked, score_title
from residualign.selection.study import SelectionSubject, selection_subject, study_selection
from residualign.spectrum import Spectra
from residualign.store import Store, StoreSplit

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["Selection", "best_selection", "scaling_of_selection", "select"]


@dataclass(frozen=True, repr=False, eq=False)
class Selection(Result):
    """The best heads by a score; everything else is ablated.

    Attributes
    ----------
    heads : tuple of str
        Labels of the chosen heads, best first.
    kept : tuple of str
        Labels of all units that are kept, in unit order: the heads, and MLPs and embedding if `keep_mlps`.
    score, ablation : str
        The score the heads were ranked by; "zero" or "mean", what replaces the other units.
    keep_mlps : bool
        Whether MLPs and embedding are kept.
    budget : str or None
        The requested number or share of heads; None if validation images chose it.
    seed : int
        Random seed of the random score.
    scores : HeadScores
        The score of every head.
    classifier : Classifier
        The class vectors.
    rest_mean : (dim,) tensor
        Sum of the mean contributions of all ablated units.
    accuracy : Accuracy
        In [0, 1]: `zero_shot` with every unit and `adapted` with the kept ones, on test images (None without any);
        `val`, of the kept ones.
    n_train, n_val, n_test : int
        Numbers of images.
    source : str
        The images the means were computed on.
    model, maps, spectra
        Description of the model, its maps, and the spectra whose means were taken (None for the training images).
    study : SelectionStudy or None
        Accuracy of every score by number of heads, and by layer.
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
    accuracy: Accuracy
    n_train: int
    n_val: int
    n_test: int
    source: str
    model: Mapping[str, Any]
    maps: UnitMaps
    spectra: Spectra | None
    study: SelectionStudy | None = None

    @property
    def curves(self) -> tuple[CurveSummary, ...]:
        """Accuracy by number of heads, one curve per score and ablation; empty without a study."""
        return () if self.study is None else self.study.summaries

    def to_adapter(self) -> Adapter:
        """The selection as an adapter, to predict with, save and load.

        Returns
        -------
        Adapter
            Of the method "select": no learned parameters, every lambda is one. Its embeddings are the sum of the kept
            contributions and of what replaces the others; means are stored in float32.
        """
        scaling = scaling_of_selection(self)
        fitted = Fitted(
            method=SELECT.name,
            scaling=scaling,
            learned={"lambdas": torch.ones(scaling.n_lambdas, dtype=torch.float64)},
            classifier=self.classifier,
            base_classifier=self.classifier,
            accuracy=self.accuracy,
            parameters=0,
            epochs=0,
            learning_rate=None,
            history=(),
            seconds=0.0,
            settings=self._settings(),
        )
        return adapter_from_fit(fitted, self.maps, self.model, self.spectra)

    def _summary(self) -> str:
        heads = ", ".join(self.heads[:4]) + (", ..." if len(self.heads) > 4 else "")
        rest = "zero" if self.ablation == "zero" else "at its mean"
        return (
            f"{plural(len(self.heads), 'head')} by {score_title(self.score)}, the rest {rest}: "
            f"val {percent(self.accuracy.val)}, test {percent(self.accuracy.adapted)}; {heads}"
        )

    @property
    def tables(self) -> dict[str, Table]:
        """`select_heads`, the chosen heads and their scores; and the tables of the study."""
        values = dict(zip(self.scores.labels, self.scores.values, strict=True))
        heads = [{"rank": rank, "head": head, "value": values[head]} for rank, head in enumerate(self.heads, 1)]
        return {"select_heads": heads, **({} if self.study is None else self.study.tables)}

    @property
    def figures(self) -> dict[str, Figure]:
        """Those of the study."""
        return {} if self.study is None else self.study.figures

    def to_json(self) -> dict[str, Any]:
        """As JSON types: the choice, and the study if there is one."""
        names = ("score", "ablation", "keep_mlps", "budget", "heads", "accuracy")
        chosen = {name: getattr(self, name) for name in names}
        content: dict[str, Any] = plain({"method": SELECT.name, **chosen, "parameters": 0})
        return content if self.study is None else content | {"study": self.study.to_json()}

    def _settings(self) -> dict[str, Any]:
        names = ("score", "heads", "budget", "ablation", "keep_mlps", "seed", "n_train", "n_val", "n_test")
        return {
            "classifier": self.classifier.kind,
            "logit_scale": self.classifier.logit_scale,
            "spectra": self.source,
            **{name: getattr(self, name) for name in names},
            "heads": list(self.heads),
            "seed": self.seed if self.score == "R" else None,
        }


def select(
    source: Store | StoreSplit | VisionModel,
    data: ImageData | None = None,
    *,
    scores: Sequence[str] = SCORES,
    ablations: Sequence[str] = ("mean", "zero"),
    budget: int | str | None = None,
    keep_mlps: bool = False,
    split: str = "test",
    spectra: Spectra | None = None,
    classifier: Classifier | str | None = None,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> Selection:
    """Choose the heads that carry a task, by scores on the validation images.

    Parameters
    ----------
    source : Store or VisionModel
        A store, or a model, followed by `data`.
    data : ImageData, optional
        The images, where `source` is a model. They pass through the model once.
    scores : sequence of {"S", "U", "UT", "R", "cosine"}
        How heads may be scored: S, accuracy of the head alone; U, correlation with the output; UT, the same within the
        span of the class vectors; R, random; cosine, mean cosine with the output.
    ablations : sequence of {"mean", "zero"}
        What may take the place of units that are left out.
    budget : int or str, optional
        The number of heads, or a share of them such as "5%". By default the number that is best on validation images,
        the smallest of equal ones.
    keep_mlps : bool
        Keep MLPs and embedding; the paper leaves them out.
    split : {"train", "val", "test"}
        The images that the curves are measured on.
    spectra : Spectra, optional
        Where the means of "mean" are from, by default the training images.
    classifier : {"text", "means"} or Classifier, optional
        The class vectors, by default from text where the model has a text tower.
    seed : int
        Random seed of the score R.
    **reading
        `batch_size`, `workers`, `skip_bad` and `progress`, as in `extract`. With a store only `progress` is used,
        called with (steps done, steps in all).

    Returns
    -------
    Selection
        The best of all scores and ablations on validation images: `.heads`, `.curves`, `.to_adapter()`.

    Raises
    ------
    BadInputError
        For a store without training or validation images, or without images in `split`, and for unknown scores,
        ablations and budgets.

    Notes
    -----
    The test split is looked at once for the selection; the curves are for study. Deterministic. Costs
    O(image x coordinate x (dim + class)) per score, with the coordinates of a split in memory.

    References
    ----------
    ResiDual, arXiv 2411.00246, section 5.
    """
    refuse_bare_text("scores", scores)
    refuse_bare_text("ablations", ablations)
    # admitted by the types so that it can be refused by a sentence
    if isinstance(source, StoreSplit):
        raise BadInputError("heads are selected with all splits of a store; got images of one split: give the store")
    with stored(source, data, **reading) as store:
        subject = selection_subject(store, spectra, classifier)
        found = best_selection(subject, scores, ablations, budget=budget, keep_mlps=keep_mlps, seed=seed)
        study = study_selection(
            subject,
            name=str(store.data["name"]),
            scores=scores,
            ablations=ablations,
            split=split,
            keep_mlps=keep_mlps,
            seed=seed,
            progress=reading.get("progress"),
        )
        return replace(found, study=study)


def best_selection(
    subject: SelectionSubject,
    scores: Sequence[str],
    modes: Sequence[str],
    *,
    budget: int | str | None = None,
    keep_mlps: bool = False,
    seed: int = 0,
) -> Selection:
    """The best selection on validation images over all scores and ablations (ties: the fewest heads).

    The test split is evaluated once, for the chosen one. Arguments and errors: see `select`.
    """
    found = [_chosen(subject, score, budget, mode, keep_mlps, seed) for mode in modes for score in scores]
    best = max(found, key=lambda one: (one.accuracy.val or 0.0, -len(one.heads)))
    return _judged(subject, best)


def _chosen(
    subject: SelectionSubject, score: str, budget: int | str | None, mode: str, keep_mlps: bool, seed: int
) -> Selection:
    """The selection by one score with one ablation, with its accuracy on validation images only."""
    name, ablation = get_score(score), check_ablation(mode)
    units = subject.store.maps.units
    labels = tuple(unit.label for unit in units.of_kind("head"))
    wanted = None if budget is None else parse_budget(budget, len(labels))
    values = head_scores(name, subject.products, subject.store.maps, subject.classifier, seed)
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
        accuracy=Accuracy(val=curve[count - 1]),
        n_train=subject.n_train,
        n_val=len(subject.products),
        n_test=len(subject.store.split("test")),
        source=subject.source,
        model=subject.store.model,
        maps=subject.store.maps,
        spectra=subject.spectra,
    )


def _judged(subject: SelectionSubject, selection: Selection) -> Selection:
    """The selection with its accuracy on the test split, which is evaluated only here."""
    test, maps = subject.store.split("test"), subject.store.maps
    if not len(test):
        return selection
    products = ClassProducts.of(test.coordinates(), test.labels, maps, subject.classifier.vectors)
    replaced = replacements(products, selection.ablation, subject.means, subject.classifier.vectors)
    masks = torch.tensor([[True] * len(maps.units), [label in selection.kept for label in maps.units.labels]])
    before, after = kept_accuracies(products, masks, replaced).tolist()
    return replace(selection, accuracy=replace(selection.accuracy, zero_shot=before, adapted=after))


def scaling_of_selection(selection: Selection) -> Scaling:
    """The kept units, each scaled as a whole by one lambda; the rest is zero, or its mean.

    With lambdas of one the adapted embedding is exactly the sum of the kept contributions and the means of the others.
    """
    nothing = torch.zeros_like(selection.rest_mean)
    units = tuple(ScaledUnit(label, nothing, None) for label in selection.kept)
    return Scaling(units, mean="keep", rest=selection.ablation, rest_mean=selection.rest_mean)
