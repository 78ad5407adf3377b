"""From a store, or a model and data, to an adapter in a folder: extract, spectra, fit, summary, each resumable."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residualign._files import publish, saying_what_is_kept
from residualign._progress import Progress, Silent
from residualign.adapter.adapter import Adapter, load_adapter
from residualign.adapter.fit import adapter_from_fit
from residualign.classification.classifier import Classifier, text_classifier, zero_shot_vectors
from residualign.commands._inputs import Machine, Subject, load_subject, make_store
from residualign.commands._spectra import ChosenSpectra, choose_spectra
from residualign.data.prompts import DEFAULT_TEMPLATE, read_prompts, rename_classes
from residualign.errors import BadInputError
from residualign.fitting.fit import FitSettings, fit_method
from residualign.fitting.methods import METHODS, get_method
from residualign.runs.folder import ADAPTER_FILES, RESULT_NAME, RunFolder, check_run_folder, open_run_folder
from residualign.runs.results import MethodResult, method_result
from residualign.runs.summary import outcome_json, write_summary
from residualign.store import Store

__all__ = ["AdaptOutcome", "AdaptRequest", "run_adapt", "wanted_methods"]


@dataclass(frozen=True)
class AdaptRequest:
    """Everything `adapt` is told.

    source and data: a model and data, or a store and None. ship: of several methods the one whose adapter lies in `out`
    itself; None takes the best on validation images.
    """

    source: str
    data: str | None
    out: Path
    methods: tuple[str, ...] = ("residual",)
    store: str | None = None
    reference: str | None = None
    shots: int | None = None
    mean: str | None = None
    classifier: str | None = None
    loss: str = "softmax"
    classes: str | None = None
    templates: tuple[str, ...] | None = None
    seed: int = 0
    model: str | None = None
    stream: bool = False
    skip_bad: bool = False
    overwrite: bool = False
    machine: Machine = field(default_factory=Machine)
    command: tuple[str, ...] = ()
    verb: str = "adapt"
    ship: str | None = None

    def identity(self) -> dict[str, Any]:
        """What decides the result; a run goes on only where all of it agrees. Speed and tolerance may change."""
        left_out = ("out", "stream", "skip_bad", "overwrite", "machine", "command")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        return {**values, "dtype": self.machine.dtype}


@dataclass(frozen=True)
class AdaptOutcome:
    """What a run gave. results: one a method, in the order asked for; chosen: the best on validation images."""

    request: AdaptRequest
    store: Store
    spectra: ChosenSpectra
    results: tuple[MethodResult, ...]
    chosen: MethodResult
    skipped: tuple[str, ...]
    seconds: dict[str, float]
    resumed: bool
    adapter: Adapter

    def to_json(self) -> dict[str, Any]:
        """What `adapt --json` prints."""
        return outcome_json(self)


def wanted_methods(names: tuple[str, ...]) -> tuple[str, ...]:
    """The methods asked for, each once; "all" stands for all. `BadInputError` for an unknown one."""
    listed = [one for name in names for one in (METHODS if name == "all" else (name,))]
    return tuple(get_method(name).name for name in dict.fromkeys(listed))


def run_adapt(request: AdaptRequest, progress: Progress | None = None) -> AdaptOutcome:
    """Do everything `residualign adapt` does, and leave the results in `request.out`.

    Bad input is refused before anything is written where that is possible. A run that ends early leaves what it has
    done; the same request goes on from there. Errors: those of the parts, and of `open_run_folder`.
    """
    progress = progress or Silent()
    methods = wanted_methods(request.methods)
    if request.data is None and request.store is not None:
        raise BadInputError("--store says where to put the store of a model and data; here a store is given already")
    check_run_folder(request.out, request.identity(), overwrite=request.overwrite)
    subject = load_subject(
        request.source,
        request.data,
        request.machine,
        classes=request.classes,
        templates=request.templates,
        model_name=request.model,
        stream=request.stream,
        progress=progress,
    )
    _refuse_lonely_classes(subject, request)
    with open_run_folder(request.out, request.identity(), request.command, overwrite=request.overwrite) as folder:
        if folder.resumed:
            progress.note(f"going on with the unfinished run in {folder.path}")
        return _run(request, methods, subject, folder, progress)


def _run(
    request: AdaptRequest, methods: tuple[str, ...], subject: Subject, folder: RunFolder, progress: Progress
) -> AdaptOutcome:
    machine = request.machine
    store, extract_seconds = make_store(
        subject,
        request.store or folder.store_path,
        skip_bad=request.skip_bad,
        uses_text=request.classifier != "means",
        progress=progress,
    )
    # every split is read once, whatever the number of methods
    subject.store = store = store.in_memory()
    progress.done(store, extract_seconds)
    began = time.perf_counter()
    spectra = choose_spectra(
        store,
        subject.model,
        request.reference,
        shots=request.shots,
        seed=request.seed,
        batch_size=machine.batch_size,
        workers=machine.workers,
        stream=request.stream,
        skip_bad=request.skip_bad,
        progress=progress,
    )
    spectrum_seconds = time.perf_counter() - began
    progress.done(spectra, spectrum_seconds)
    classifier = _classifier(request, subject, store)
    results, adapters = [], {}
    with progress.task("methods") as tick:
        for i, name in enumerate(methods):
            path = folder.path if len(methods) == 1 else folder.method_path(name)
            result, adapters[name] = _fitted(request, name, store, spectra, classifier, path, keep=len(methods) > 1)
            results.append(result)
            progress.done(result, result.seconds)
            tick(i + 1, len(methods))
    shipped = [result for result in results if result.method == request.ship]
    chosen = max(shipped or results, key=lambda result: (result.accuracy["val"] or 0.0, -result.parameters))
    if len(methods) > 1:
        for name in ADAPTER_FILES:
            folder.write(name, (folder.method_path(chosen.method) / name).read_bytes())
    outcome = AdaptOutcome(
        request=request,
        store=store,
        spectra=spectra,
        results=tuple(results),
        chosen=chosen,
        skipped=(*store.skipped, *(subject.data.strays if subject.data is not None else ())),
        seconds={"extract": extract_seconds, "spectrum": spectrum_seconds, "fit": chosen.seconds},
        resumed=folder.resumed,
        adapter=adapters[chosen.method],
    )
    write_summary(outcome, folder, subject.data)
    folder.finish()
    return outcome


def _fitted(
    request: AdaptRequest,
    method: str,
    store: Store,
    spectra: ChosenSpectra,
    classifier: Classifier | str | None,
    path: Path,
    keep: bool,
) -> tuple[MethodResult, Adapter]:
    """One method, fitted and saved in `path`; where it is kept there already from an earlier run, read from there."""
    record = path / RESULT_NAME
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
        with saying_what_is_kept(record, "the adapter itself is there, and the same command goes on"):
            publish(record, json.dumps(result.to_json()).encode())
    return result, adapter


def _classifier(request: AdaptRequest, subject: Subject, store: Store) -> Classifier | str | None:
    """The classifier to fit for: by name, or, where a store gets other words, made from the model's text tower."""
    if request.data is not None or (request.classes is None and request.templates is None):
        return request.classifier
    if request.classifier == "means" and request.templates is None:
        raise BadInputError("new class names for a store need class vectors from text; they cannot go with class means")
    names, templates = read_prompts(request.classes, request.templates)
    class_names = rename_classes(store.class_names, names)
    model = subject.model()
    if model.logit_scale is None:
        raise BadInputError(f"model {model.name!r} has no text tower, so --classes and --template change nothing")
    vectors = zero_shot_vectors(model.encode_text, class_names, templates or store.templates or (DEFAULT_TEMPLATE,))
    return text_classifier(vectors, class_names, model.logit_scale, model.logit_bias)


def _refuse_lonely_classes(subject: Subject, request: AdaptRequest) -> None:
    """Class means leave an image out while fitting: one that is alone is found before the pass, not after it."""
    if subject.data is None or (request.classifier != "means" and subject.model().has_text):
        return
    train = subject.data.train
    counts = train.class_counts(len(subject.data.class_names))
    lonely = [name for name, count in zip(subject.data.class_names, counts, strict=True) if count == 1]
    if lonely:
        raise BadInputError(
            f"class {lonely[0]!r} has one training image: without that image there is no class mean to fit with; "
            "give at least two a class, or use a model with a text tower"
        )
