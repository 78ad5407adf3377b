"""`residualign select`: the heads that a task needs: curves, layers, overlaps, an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    INPUT,
    METHOD,
    OUTPUT,
    REPEATED,
    Files,
    Inputs,
    Reference,
    Seed,
    Split,
    Words,
    flag,
)
from residualign.commands._request import NEUTRAL

if TYPE_CHECKING:
    from residualign.inputs.subject import Subject
    from residualign.selection.result import Overlap, SelectionStudy
    from residualign.selection.select import Selection
    from residualign.selection.study import SelectionSubject
    from residualign.store import Store

__all__ = ["SelectOutcome", "SelectRequest", "run"]


@dataclass(frozen=True, kw_only=True)
class SelectRequest(Inputs, Words, Files):
    """Rank heads and keep the best, with everything else ablated: MODEL and DATA, or a STORE.

    Heads are scored on validation images; accuracy is measured on --split. --adapter saves a selection as an adapter.
    """

    score: Annotated[
        tuple[Literal["S", "U", "UT", "R", "cosine"], ...],
        flag(
            "--score",
            METHOD,
            "How to score heads: accuracy of the head alone (S), correlation with the model's output (U), the same "
            "within the span of the class vectors (UT), random (R), or mean cosine with the output" + REPEATED + ".",
        ),
    ] = ("S", "U", "UT", "cosine", "R")
    ablation: Annotated[
        tuple[Literal["mean", "zero"], ...],
        flag("--ablation", METHOD, "What replaces ablated units: their mean, or zero" + REPEATED + "."),
    ] = ("mean", "zero")
    keep_mlps: Annotated[bool, flag("--keep-mlps", METHOD, "Keep MLPs and the embedding when heads are ablated.")] = (
        False
    )
    heads: Annotated[
        str | None,
        flag(
            "--heads",
            METHOD,
            "Number or share of heads that --adapter keeps. By default the number with the best validation accuracy.",
            metavar="N|N%",
        ),
    ] = None
    compare: Annotated[
        tuple[str, ...],
        flag(
            "--compare",
            INPUT,
            "Store of the same model on other data, to compare which heads it needs" + REPEATED + ".",
            metavar="STORE",
        ),
    ] = ()
    split: Split = "test"
    reference: Reference = None
    seed: Seed = 0
    adapter: Annotated[
        Path | None,
        flag("--adapter", OUTPUT, "Output directory for an adapter of the selection.", metavar="DIR"),
        NEUTRAL,
    ] = None


@dataclass(frozen=True, repr=False, eq=False)
class SelectOutcome(Result):
    """The results. studies: of the store, then of those it is compared with. selection: that of the adapter, if any."""

    request: SelectRequest
    model: str
    means_from: str
    studies: tuple[SelectionStudy, ...]
    overlaps: tuple[Overlap, ...]
    selection: Selection | None
    files: tuple[Path, ...] = ()

    @property
    def study(self) -> SelectionStudy:
        """The study of the store itself."""
        return self.studies[0]

    def to_json(self) -> dict[str, Any]:
        """What `select --json` prints."""
        from residualign.runs.results import BEFORE
        from residualign.selection.study import SCORED_ON

        first, *others = (study.to_json() | {"zero_shot_is": BEFORE[study.classifier]} for study in self.studies)
        chosen = None if self.selection is None else {"path": str(self.request.adapter), **self.selection.to_json()}
        return {
            "model": self.model,
            "data": self.study.name,
            "scored_on": SCORED_ON,
            "means_from": self.means_from,
            "keep_mlps": self.request.keep_mlps,
            "seed": self.request.seed,
            **first,
            "compared": others,
            "overlaps": [one.row for one in self.overlaps],
            "adapter": chosen,
            "out": None if self.request.out is None else str(self.request.out),
        }

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of `--out`, by file name."""
        several = [study.tables for study in self.studies]
        joined = {name: [row for one in several for row in one[name]] for name in several[0]}
        return joined | {"select_overlap": [one.row for one in self.overlaps]}

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of `--out`, by file name."""
        from residualign.figures.select import select_figures

        return select_figures(self.tables, self.request.split, self.request.keep_mlps)


def run(request: SelectRequest, progress: Progress = SILENT) -> SelectOutcome:
    """Score, ablate and choose. Bad input is refused before images are read where possible."""
    from residualign.inputs.classifier import chosen_classifier
    from residualign.inputs.store import analyzed_split, analyzed_store
    from residualign.inputs.subject import names_apart, open_store_like
    from residualign.runs.files import check_analysis_files, with_files
    from residualign.selection.result import overlaps
    from residualign.selection.scores import parse_budget
    from residualign.selection.select import best_selection
    from residualign.selection.study import selection_subject
    from residualign.store import MAX_BYTES_IN_MEMORY

    check_analysis_files(request.out, request.format, request.overwrite)
    _check_adapter(request)
    with analyzed_store(request, progress, uses_text=request.classifier != "means") as (store, subject):
        if request.heads is not None:
            parse_budget(request.heads, len(store.units.of_kind("head")))
        stores = [store, *(open_store_like(store, path) for path in request.compare)]
        # every split is read once
        stores = [one.in_memory(MAX_BYTES_IN_MEMORY // len(stores)) for one in stores]
        store = stores[0]
        subjects = []
        for one in stores:
            analyzed_split(one, request.split)
            spectra = _reference(request, subject, one, progress)
            classifier = chosen_classifier(request, subject, one, progress) if one is store else request.classifier
            subjects.append(selection_subject(one, spectra, classifier))
        names = names_apart(stores)
        studies = tuple(_study(request, *one, progress) for one in zip(names, subjects, strict=True))
        selection = None
        if request.adapter is not None:
            selection = best_selection(
                subjects[0],
                request.score,
                request.ablation,
                budget=request.heads,
                keep_mlps=request.keep_mlps,
                seed=request.seed,
            )
            selection.to_adapter().save(request.adapter)
        outcome = SelectOutcome(
            request, str(store.model["name"]), subjects[0].source, studies, overlaps(studies), selection
        )
    return with_files(outcome, "select")


def _check_adapter(request: SelectRequest) -> None:
    from residualign.errors import BadInputError

    if request.adapter is None:
        if request.heads is not None:
            raise BadInputError("--heads is the number of heads that the adapter keeps; give --adapter DIR too")
        return
    path = request.adapter
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{str(path)!r} is a file, expected a folder for the adapter")
    if path.is_dir() and any(path.iterdir()) and not request.overwrite:
        raise BadInputError(f"{str(path)!r} is not empty; add --overwrite to replace the adapter there")


def _reference(request: SelectRequest, subject: Subject, store: Store, progress: Progress) -> Any:
    """Spectra whose means replace what is ablated; None takes the training images of the store."""
    from residualign.inputs.spectra import choose_spectra

    if request.reference is None:
        return None
    return choose_spectra(store, subject, request.reference, progress, seed=request.seed).spectra


def _study(request: SelectRequest, name: str, subject: SelectionSubject, progress: Progress) -> SelectionStudy:
    from residualign.selection.study import study_selection

    with progress.task(name) as tick:
        return study_selection(
            subject,
            name=name,
            scores=request.score,
            ablations=request.ablation,
            split=request.split,
            keep_mlps=request.keep_mlps,
            seed=request.seed,
            progress=tick,
        )
