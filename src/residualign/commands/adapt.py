"""`residualign adapt`: fit adapters to labeled images, and write them to a folder with all that a report needs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from residualign._progress import SILENT, Progress
from residualign.commands._flags import (
    METHOD,
    REPEATED,
    Inputs,
    Mean,
    Overwrite,
    Reference,
    RunOut,
    Seed,
    Shots,
    Words,
    flag,
)
from residualign.commands._request import command_words, identity

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.classification.classifier import Classifier, LinearProbe
    from residualign.inputs.spectra import ChosenSpectra
    from residualign.inputs.subject import Subject
    from residualign.runs.folder import RunFolder
    from residualign.runs.results import AdaptOutcome, MethodResult
    from residualign.store import Store

__all__ = ["AdaptRequest", "Origin", "run", "run_as", "run_key", "wanted_methods"]


@dataclass(frozen=True, kw_only=True)
class AdaptRequest(Inputs, Words):
    """Fit an adapter to labeled images: MODEL and DATA, or a STORE.

    Writes the adapter, its history, a summary and the activation store into --out. An unfinished run of the same
    command is resumed.
    """

    out: RunOut
    method: Annotated[
        tuple[str, ...],
        flag(
            "--method",
            METHOD,
            "Method to fit: residual, residual-heads, coarse, spectral-output, linear, joint, or all" + REPEATED + ".",
            metavar="NAME",
        ),
    ] = ("residual",)
    reference: Reference = None
    shots: Shots = None
    mean: Mean = None
    loss: Annotated[
        Literal["softmax", "sigmoid"],
        flag("--loss", METHOD, "Softmax over all classes, or one sigmoid per class (SigLIP with text prompts)."),
    ] = "softmax"
    seed: Seed = 0
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Origin:
    """The command of a run. ship: the method whose adapter is written to `out` itself; None for the best of several."""

    verb: str
    words: tuple[str, ...]
    ship: str | None = None


def run(request: AdaptRequest, progress: Progress = SILENT) -> AdaptOutcome:
    """Fit, and write the results to `request.out`.

    Bad input is refused before anything is written where that is possible. A run that ends early keeps its
    work; the same request resumes it. Errors: those of the parts, and of `open_run_folder`.
    """
    return run_as(request, Origin("adapt", command_words("adapt", request)), progress)


def run_as(request: AdaptRequest, origin: Origin, progress: Progress) -> AdaptOutcome:
    """`run`, for a given command."""
    from residualign.inputs.classifier import refuse_lonely_classes
    from residualign.inputs.store import refuse_store_for_store
    from residualign.inputs.subject import load_subject
    from residualign.runs.folder import check_run_folder, open_run_folder

    methods = wanted_methods(request.method)
    refuse_store_for_store(request)
    key = run_key(request, origin)
    check_run_folder(request.out, key, overwrite=request.overwrite)
    subject = load_subject(request.source, request.data, request, progress, model=request.model)
    refuse_lonely_classes(subject, request.classifier)
    with open_run_folder(request.out, key, origin.words, overwrite=request.overwrite) as folder:
        if folder.resumed:
            progress.note(f"resuming the unfinished run in {folder.path}")
        return _Run(request, origin, subject, folder, progress).carry_out(methods)


def run_key(request: AdaptRequest, origin: Origin) -> dict[str, Any]:
    """What decides the result, as the run folder keeps it."""
    return {"verb": origin.verb, "ship": origin.ship, **identity(request)}


def wanted_methods(names: tuple[str, ...]) -> tuple[str, ...]:
    """The methods asked for, each once, with "all" expanded. `BadInputError` for an unknown one."""
    from residualign.fitting.methods import METHODS, get_method

    listed = [one for name in names for one in (METHODS if name == "all" else (name,))]
    return tuple(get_method(name).name for name in dict.fromkeys(listed))


@dataclass(frozen=True)
class _Run:
    """One run in its folder, which this process has locked."""

    request: AdaptRequest
    origin: Origin
    subject: Subject
    folder: RunFolder
    progress: Progress

    def carry_out(self, methods: tuple[str, ...]) -> AdaptOutcome:
        """The pass, the spectra, every method, the linear probe; and the files of the run."""
        from residualign.inputs.classifier import chosen_classifier
        from residualign.runs.results import AdaptOutcome
        from residualign.runs.summary import write_summary

        request, data = self.request, self.subject.data
        store, extract_seconds = self._store()
        spectra, spectrum_seconds = self._spectra(store)
        classifier = chosen_classifier(request, self.subject, store, self.progress)
        fitted = self._fit_all(methods, store, spectra, classifier)
        results = tuple(result for result, _ in fitted)
        shipped = [result for result in results if result.method == self.origin.ship]
        chosen = max(shipped or results, key=lambda result: (result.accuracy.val or 0.0, -result.parameters))
        self._ship(chosen, len(methods))
        outcome = AdaptOutcome(
            command=self.origin.words,
            out=request.out,
            seed=request.seed,
            shots=request.shots,
            store=store,
            spectra=spectra,
            results=results,
            chosen=chosen,
            adapter=next(adapter for result, adapter in fitted if result is chosen),
            probe=self._probe(store),
            skipped=(*store.skipped, *(data.strays if data is not None else ())),
            seconds={"extract": extract_seconds, "spectrum": spectrum_seconds, "fit": chosen.seconds},
            resumed=self.folder.resumed,
        )
        write_summary(outcome, self.folder, data)
        self.folder.finish()
        return outcome

    def _store(self) -> tuple[Store, float]:
        from residualign.inputs.store import make_store

        store, seconds = make_store(
            self.subject,
            self.request.store or self.folder.store_path,
            self.progress,
            uses_text=self.request.classifier != "means",
        )
        # every split is read once, whatever the number of methods
        self.subject.store = store = store.in_memory()
        self.progress.done(store, seconds)
        return store, seconds

    def _spectra(self, store: Store) -> tuple[ChosenSpectra, float]:
        from residualign.inputs.spectra import choose_spectra

        request, began = self.request, time.perf_counter()
        spectra = choose_spectra(
            store, self.subject, request.reference, self.progress, shots=request.shots, seed=request.seed
        )
        seconds = time.perf_counter() - began
        self.progress.done(spectra, seconds)
        return spectra, seconds

    def _fit_all(
        self, methods: tuple[str, ...], store: Store, spectra: ChosenSpectra, classifier: Classifier | str | None
    ) -> list[tuple[MethodResult, Adapter]]:
        several, fitted = len(methods) > 1, []
        with self.progress.task("methods") as tick:
            for i, name in enumerate(methods):
                path = self.folder.method_path(name) if several else self.folder.path
                fitted.append(self._fit(name, store, spectra, classifier, path, keep=several))
                self.progress.done(fitted[-1][0], fitted[-1][0].seconds)
                tick(i + 1, len(methods))
        return fitted

    def _fit(
        self,
        method: str,
        store: Store,
        spectra: ChosenSpectra,
        classifier: Classifier | str | None,
        path: Path,
        keep: bool,
    ) -> tuple[MethodResult, Adapter]:
        """One method, fitted and saved in `path`, or read from there if an earlier run saved it."""
        from residualign._files import json_line, publish, saying_what_is_kept
        from residualign.adapter.adapter import load_adapter
        from residualign.adapter.fit import adapter_from_fit
        from residualign.fitting.fit import FitSettings, fit_method
        from residualign.runs.folder import RESULT_NAME
        from residualign.runs.results import MethodResult, method_result

        request, record = self.request, path / RESULT_NAME
        if keep and record.is_file():
            return MethodResult.from_json(json.loads(record.read_text(encoding="utf-8"))), load_adapter(path)
        settings = FitSettings(mean=request.mean, shots=request.shots, loss=request.loss, seed=request.seed)
        fitted = fit_method(store, method, spectra.spectra, classifier=classifier, settings=settings)
        adapter = adapter_from_fit(fitted, store.maps, store.model, spectra.spectra)
        test = store.split("test")
        coordinates = test.coordinates()
        result = method_result(
            fitted,
            spectra.spectra,
            test.labels,
            adapter.logits(coordinates),
            fitted.base_classifier.logits(coordinates.output),
        )
        adapter.save(path)
        if keep:
            with saying_what_is_kept(record, "the adapter itself was saved, and the same command resumes"):
                publish(record, json_line(result.to_json()))
        return result, adapter

    def _ship(self, chosen: MethodResult, n_methods: int) -> None:
        """Put the chosen one of several adapters into the folder itself."""
        from residualign.runs.folder import ADAPTER_FILES

        if n_methods > 1:
            for name in ADAPTER_FILES:
                self.folder.write(name, (self.folder.method_path(chosen.method) / name).read_bytes())

    def _probe(self, store: Store) -> LinearProbe | None:
        """The baseline: a linear probe on the model's own embeddings of the same images."""
        from residualign.classification.classifier import linear_probe
        from residualign.fitting.fit import few_images

        with self.progress.task("linear probe"):
            if self.request.shots is not None:
                store = few_images(store, self.request.shots, self.request.seed)
            train, val, test = ((one.embeddings(), one.labels) for one in map(store.split, ("train", "val", "test")))
            if len(train[1].unique()) < 2:
                return None
            probe = linear_probe(train, val, test if len(test[1]) else None)
        self.progress.done(probe, probe.seconds)
        return probe
