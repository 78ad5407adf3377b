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
from residualign.selection.result import Overlap, SelectionStudy, overlaps
from residualign.selection.scores import SCORES, parse_budget
from residualign.selection.select import Selection, best_selection
from residualign.selection.study import SCORED_ON, SelectionSubject, selection_subject, study_selection
from residualign.spectrum import Spectra
from residualign.store import MAX_BYTES_IN_MEMORY, Store

__all__ = ["SelectOutcome", "SelectRequest", "run_select"]


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
            "overlaps": [one.row for one in self.overlaps],
            "adapter": None if self.selection is None else _selection_json(self.selection, self.request.adapter),
            "out": None if self.request.out is None else str(self.request.out),
        }

    def tables(self) -> dict[str, Table]:
        """The tables of `--out`, by file name."""
        several = [study.tables for study in self.studies]
        joined: dict[str, Table] = {name: [row for one in several for row in one[name]] for name in several[0]}
        return joined | {"select_overlap": [one.row for one in self.overlaps]}


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
        subjects = []
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
            selection.to_adapter().save(request.adapter)
        outcome = SelectOutcome(
            request, str(store.model["name"]), subjects[0].source, studies, overlaps(studies), selection
        )
    if request.out is not None:
        tables = outcome.tables()
        figures = select_figures(tables, request.split, request.keep_mlps)
        write_analysis_files(request.out, "select", outcome.to_json(), tables, figures, request.formats)
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
    return {**study.to_json(), "zero_shot_is": BEFORE[study.classifier]}


def _selection_json(selection: Selection, folder: Path | None) -> dict[str, Any]:
    return {"path": str(folder), **selection.to_json()}
