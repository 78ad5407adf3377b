"""From a store, or a model and data, to the heads that carry its task: curves, layers, overlaps, an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residualign._progress import Progress, Silent
from residualign.commands._inputs import Machine, Subject, analysed_split, analysed_store, open_store
from residualign.commands._spectra import choose_spectra
from residualign.errors import BadInputError
from residualign.figures.select import select_figures
from residualign.runs.files import Table, check_analysis_files, write_analysis_files
from residualign.runs.summary import BEFORE
from residualign.selection.adapter import adapter_from_selection
from residualign.selection.curve import CurveSummary, parse_budget
from residualign.selection.scores import SCORES, score_title
from residualign.selection.select import SCORED_ON, Selection, SelectionSubject, best_selection, selection_subject
from residualign.selection.study import LAYER_KINDS, Overlap, SelectionStudy, overlaps, study_selection
from residualign.spectrum import Spectra
from residualign.store import MAX_BYTES_IN_MEMORY, Store

__all__ = ["ENOUGH", "SelectOutcome", "SelectRequest", "run_select"]

ENOUGH = 0.95
"""The share of the model's own accuracy that the fewest heads are asked to keep."""


@dataclass(frozen=True)
class SelectRequest:
    """Everything `select` is told.

    source and data: a model and data, or a store and None. compare: further stores of the same model. reference: whose
    means stand for what is left out; None takes the training images. heads: how many an adapter keeps; None lets
    validation choose.
    """

    source: str
    data: str | None = None
    scores: tuple[str, ...] = SCORES
    ablations: tuple[str, ...] = ("mean", "zero")
    heads: str | None = None
    keep_mlps: bool = False
    compare: tuple[str, ...] = ()
    split: str = "test"
    reference: str | None = None
    classifier: str | None = None
    classes: str | None = None
    templates: tuple[str, ...] | None = None
    store: str | None = None
    model: str | None = None
    seed: int = 0
    adapter: Path | None = None
    out: Path | None = None
    formats: tuple[str, ...] | None = None
    stream: bool = False
    skip_bad: bool = False
    overwrite: bool = False
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True)
class SelectOutcome:
    """What a run gave. studies: of the store, then of those it was compared with. selection: the adapter's, if any."""

    request: SelectRequest
    model: str
    means_from: str
    studies: tuple[SelectionStudy, ...]
    overlaps: tuple[Overlap, ...]
    selection: Selection | None

    @property
    def study(self) -> SelectionStudy:
        """That of the store itself."""
        return self.studies[0]

    def to_json(self) -> dict[str, Any]:
        """What `select --json` prints."""
        return {
            "model": self.model,
            "data": self.study.name,
            "scored_on": SCORED_ON,
            "means_from": self.means_from,
            "keep_mlps": self.request.keep_mlps,
            "seed": self.request.seed,
            **_study_json(self.study),
            "compared": [_study_json(study) for study in self.studies[1:]],
            "overlaps": overlap_rows(self.overlaps),
            "adapter": None if self.selection is None else _selection_json(self.selection, self.request.adapter),
            "out": None if self.request.out is None else str(self.request.out),
        }

    def tables(self) -> dict[str, Table]:
        """The tables of `--out`, by file name."""
        several = self.studies
        return {
            "select_budgets": [row for study in several for row in budget_rows(study)],
            "select_curves": [row for study in several for row in _curve_rows(study)],
            "select_scores": [row for study in several for row in _score_rows(study)],
            "select_layers": [row for study in several for row in _layer_rows(study)],
            "select_overlap": overlap_rows(self.overlaps),
        }


def run_select(request: SelectRequest, progress: Progress | None = None) -> SelectOutcome:
    """Do everything `residualign select` does. Bad input is refused before images are read where that is possible."""
    progress = progress or Silent()
    check_analysis_files(request.out, request.formats, request.overwrite)
    _check_adapter(request)
    uses_text = request.classifier != "means"
    with analysed_store(
        request.source,
        request.data,
        request.machine,
        store=request.store,
        classes=request.classes,
        templates=request.templates,
        model=request.model,
        stream=request.stream,
        skip_bad=request.skip_bad,
        uses_text=uses_text,
        progress=progress,
    ) as (store, subject):
        if request.heads is not None:
            parse_budget(request.heads, len(store.units.of_kind("head")))
        stores = [store, *(_compared(path, store) for path in request.compare)]
        # every split is read once
        stores = [one.in_memory(MAX_BYTES_IN_MEMORY // len(stores)) for one in stores]
        subjects, spectra = [], None
        for one in stores:
            analysed_split(one, request.split)
            spectra = _reference(request, subject, one, progress) if request.reference is not None else None
            subjects.append(selection_subject(one, spectra, request.classifier))
        names = _names(stores)
        studies = tuple(_study(request, *one, progress) for one in zip(names, subjects, strict=True))
        selection = None
        if request.adapter is not None:
            selection = best_selection(
                subjects[0],
                request.scores,
                request.ablations,
                budget=request.heads,
                keep_mlps=request.keep_mlps,
                seed=request.seed,
            )
            adapter_from_selection(selection, store, spectra).save(request.adapter)
        outcome = SelectOutcome(
            request, str(store.model["name"]), subjects[0].source, studies, overlaps(studies), selection
        )
    if request.out is not None:
        figures = select_figures(outcome.studies, outcome.overlaps)
        write_analysis_files(request.out, "select", outcome.to_json(), outcome.tables(), figures, request.formats)
    return outcome


def _check_adapter(request: SelectRequest) -> None:
    if request.adapter is None:
        if request.heads is not None:
            raise BadInputError("--heads says how many heads the adapter keeps; give --adapter DIR too")
        return
    path = request.adapter
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{str(path)!r} is a file, expected a folder for the adapter")
    if path.is_dir() and any(path.iterdir()) and not request.overwrite:
        raise BadInputError(f"{str(path)!r} is not empty; add --overwrite to replace the adapter there")


def _compared(path: str, first: Store) -> Store:
    store = open_store(path)
    if store.model["fingerprint"] != first.model["fingerprint"]:
        raise BadInputError(
            f"the store {path!r} is of other weights than {first.path!r}; chosen heads are compared for one model alone"
        )
    return store


def _reference(request: SelectRequest, subject: Subject, store: Store, progress: Progress) -> Spectra:
    return choose_spectra(
        store,
        subject.model,
        request.reference,
        seed=request.seed,
        batch_size=request.machine.batch_size,
        workers=request.machine.workers,
        stream=request.stream,
        skip_bad=request.skip_bad,
        progress=progress,
    ).spectra


def _names(stores: Sequence[Store]) -> list[str]:
    """What the stores' data are called; where two have one name, their paths tell them apart."""
    names = [str(store.data["name"]) for store in stores]
    return [
        f"{name} ({store.path})" if names.count(name) > 1 else name for name, store in zip(names, stores, strict=True)
    ]


def _study(request: SelectRequest, name: str, subject: SelectionSubject, progress: Progress) -> SelectionStudy:
    with progress.task(name) as tick:
        return study_selection(
            subject,
            name=name,
            scores=request.scores,
            ablations=request.ablations,
            split=request.split,
            keep_mlps=request.keep_mlps,
            seed=request.seed,
            progress=tick,
        )


def _study_json(study: SelectionStudy) -> dict[str, Any]:
    return {
        "data": study.name,
        "split": study.split,
        "n_images": study.n_images,
        "n_scored": study.n_scored,
        "classes": study.n_classes,
        "n_heads": study.n_heads,
        "classifier": study.classifier,
        "zero_shot_is": BEFORE[study.classifier],
        "accuracy": study.accuracy,
        "enough": ENOUGH,
        "curves": [_summary_json(study, one) for one in study.summaries],
        "scores": [
            {"score": one.score, "seed": one.seed, "best": list(one.ranked[: study.budgets[3].n_heads])}
            for one in study.scores
            if one.score != "R"
        ],
        "layers": _layer_rows(study),
    }


def _summary_json(study: SelectionStudy, one: CurveSummary) -> dict[str, Any]:
    enough = one.heads_for(ENOUGH * study.accuracy)
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
            for budget in study.budgets
        ],
        "heads_for_enough": enough,
        "share_for_enough": None if enough is None else enough / study.n_heads,
        "accuracy": list(one.mean),
    }


def _selection_json(selection: Selection, folder: Path | None) -> dict[str, Any]:
    return {
        "path": str(folder),
        "method": "select",
        "score": selection.score,
        "ablation": selection.ablation,
        "keep_mlps": selection.keep_mlps,
        "budget": selection.budget,
        "heads": list(selection.heads),
        "accuracy": dict(selection.accuracy),
        "parameters": 0,
    }


def budget_rows(study: SelectionStudy) -> list[dict[str, Any]]:
    """Accuracy of every score at every budget, one line a score and ablation."""
    return [
        {
            "data": study.name,
            "score": score_title(one.score),
            "ablation": one.ablation,
            **{budget.name: one.at(budget.n_heads) for budget in study.budgets},
            f"heads for {100 * ENOUGH:.0f}%": one.heads_for(ENOUGH * study.accuracy),
        }
        for one in study.summaries
    ]


def overlap_rows(found: Sequence[Overlap]) -> list[dict[str, Any]]:
    """One line a pair of choices and budget."""
    return [
        {
            "data": one.first[0],
            "score": score_title(one.first[1]),
            "other_data": one.second[0],
            "other_score": score_title(one.second[1]),
            "n_heads": one.n_heads,
            "jaccard": one.jaccard,
            "chance": one.expected,
        }
        for one in found
    ]


def _curve_rows(study: SelectionStudy) -> list[dict[str, Any]]:
    return [
        {
            "data": study.name,
            "score": score_title(one.score),
            "ablation": one.ablation,
            "n_heads": k + 1,
            "accuracy": one.mean[k],
            "low": one.low[k],
            "high": one.high[k],
        }
        for one in study.summaries
        for k in range(study.n_heads)
    ]


def _score_rows(study: SelectionStudy) -> list[dict[str, Any]]:
    return [
        {"data": study.name, "score": score_title(one.score), "seed": one.seed, "head": label, "value": value}
        for one in study.scores
        for label, value in zip(one.labels, one.values, strict=True)
    ]


def _layer_rows(study: SelectionStudy) -> list[dict[str, Any]]:
    return [
        {
            "data": study.name,
            "kept": one.kind,
            "meaning": LAYER_KINDS[one.kind],
            "layer": one.layer,
            "ablation": one.ablation,
            "n_units": one.n_units,
            "accuracy": one.accuracy,
        }
        for one in study.layers
    ]
