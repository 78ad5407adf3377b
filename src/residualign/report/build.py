"""From the folder of a run to a report: measure what the page shows, from the run's own store, without its images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from residualign._progress import Progress, Silent
from residualign.adapter.lambdas import MovedComponent, learning_curve
from residualign.classification.evaluation import wilson_interval
from residualign.classification.probe import linear_probe
from residualign.report.contents import (
    CurvePoint,
    MethodLine,
    MovedLine,
    PutBackPoint,
    ReportContents,
    UnitLine,
)
from residualign.report.findings import findings, made_facts
from residualign.report.measure import MOVED, Measured, measure_run, texts_of_run
from residualign.report.report import Report
from residualign.report.units import layer_lines
from residualign.runs.opened import RunResults, open_run
from residualign.runs.outcome import BEFORE

__all__ = ["build_report"]


def build_report(
    run: str | os.PathLike[str] | RunResults,
    *,
    store: str | None = None,
    model: str | None = None,
    dictionary: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Report:
    """Build the report of a finished run: one page, its tables and its figures.

    Parameters
    ----------
    run
        The folder that ``residualign adapt --out`` wrote, or that run as `residualign.runs.opened.open_run` gives it.
    store
        Where the activation store of the run is, if it has been moved.
    model
        Where the model is, if it has been moved. Only its text tower is used.
    dictionary
        A text file of descriptions, one per line. By default, the dictionary that comes with the package.
    device
        Where the text tower runs, for example ``"cpu"`` or ``"cuda:0"``.
    progress
        Told about tasks and warnings. By default, nobody is.

    Returns
    -------
    Report
        With ``.html``, ``.tables``, ``.figures``, ``.to_json()`` and ``.save(path)``. The same run gives the same
        report.

    Raises
    ------
    BadInputError
        If the folder has no finished run, the store is gone or is a different one, or the dictionary cannot be used.
        Without the model, unless one was named, the report has no words and says so.

    Notes
    -----
    No image goes through the model. For a ViT-B the report takes a few minutes, most of them for the dimensions and
    words of its 144 heads.

    Examples
    --------
    >>> report = ra.build_report("my-adapter")  # doctest: +SKIP
    >>> report.save("report.html")  # doctest: +SKIP
    """
    progress = progress or Silent()
    opened = run if isinstance(run, RunResults) else open_run(run, store=store, model=model, device=device)
    notes: list[str] = []
    words = texts_of_run(opened, model, device, dictionary, notes, progress)
    measured = measure_run(opened, words, notes, progress)
    if not opened.pictures:
        notes.append("The run was made from a store, so there are no pictures.")
    if opened.shown is not opened.adapter:
        notes.append(
            f"{opened.adapter.method} does not scale heads; lambdas, words and pictures are those of "
            f"{opened.shown.method}, fitted on the same images."
        )
    return Report(_contents(opened, measured, notes))


def _contents(run: RunResults, measured: Measured, notes: Sequence[str]) -> ReportContents:
    summary, result, units = run.summary, run.result(run.adapter.method), measured.units
    scaling = run.shown.full_scaling if run.shown.lambdas else None
    n_test = len(run.store.split("test"))
    return ReportContents(
        title=f"{_short(summary['model'])} on {_short(summary['data'])}: residualign report",
        model=_short(summary["model"]),
        data=_short(summary["data"]),
        method=run.adapter.method,
        scales_of=None if scaling is None else run.shown.method,
        scale_free=scaling is not None and scaling.scale_free,
        rest=None if scaling is None else scaling.rest,
        n_test=n_test,
        before_is=BEFORE[result.classifier],
        methods=_method_lines(run, n_test),
        n_layers=run.store.units.n_layers,
        n_heads=run.store.units.n_heads,
        units=units,
        profiles=layer_lines(measured.geometry),
        moved=_moved_lines(measured.moved, units),
        put_back=tuple(
            PutBackPoint(curve.order, curve.seed, count, accuracy)
            for curve in measured.curves
            for count, accuracy in zip(curve.put_back, curve.accuracy, strict=True)
        ),
        curve=_curve_points(run),
        class_names=run.adapter.class_names,
        confusion_before=tuple(map(tuple, result.confusion_before)),
        confusion_after=tuple(map(tuple, result.confusion_after)),
        n_changed=sum(measured.changed_kinds.values()),
        changed=measured.changed,
        made=made_facts(summary, result.settings),
        findings=findings(
            measured.comparison,
            run.adapter.method,
            units,
            measured.moved,
            measured.curves[0] if measured.curves else None,
            measured.geometry,
            measured.changed_kinds,
        ),
        notes=tuple(notes),
        pictures=_used_pictures(run, units, [image.picture for image in measured.changed]),
    )


def _short(name: str) -> str:
    """How a heading names a model or data: a path by its last part; its whole is in how it was made."""
    return Path(name).name if name.startswith(("/", "./", "../", "~")) else name


def _method_lines(run: RunResults, n_test: int) -> tuple[MethodLine, ...]:
    """The classifier before adapting, every method, and the linear probe on the same images."""

    def line(name: str, kind: str, accuracy: float | None, **more: Any) -> MethodLine:
        interval = None if accuracy is None or not n_test else wilson_interval(round(accuracy * n_test), n_test)
        rest = {"parameters": None, "seconds": None, **more}
        return MethodLine(name, kind, accuracy, interval, **rest)

    first = run.results[0]
    name = "class means" if first.classifier == "means" else "zero-shot"
    lines = [line(name, "before", first.accuracy["zero_shot"])]
    lines += [
        line(
            result.method,
            "method",
            result.accuracy["adapted"],
            parameters=result.parameters,
            seconds=result.seconds,
            val_accuracy=result.accuracy.get("val"),
            is_chosen=result.method == run.adapter.method,
        )
        for result in run.results
    ]
    probe = _probe(run)
    if probe is not None:
        # without its seconds: an older run has its probe fitted here, and the same run has to give the same page
        numbers = {"parameters": probe["parameters"], "val_accuracy": probe["val"]}
        lines.append(line("linear probe", "probe", probe["accuracy"], **numbers))
    return tuple(lines)


def _probe(run: RunResults) -> dict[str, Any] | None:
    """The linear probe of the run; of one without it (older ones have none) fitted now, where that is possible."""
    if run.summary.get("linear_probe") is not None:
        return dict(run.summary["linear_probe"])
    train, val, test = (run.store.split(name) for name in ("train", "val", "test"))
    few = run.summary.get("shots") is not None
    if few or not len(val) or not len(test) or len(set(train.labels.tolist())) < 2:
        return None
    found = linear_probe(
        (train.embeddings(), train.labels), (val.embeddings(), val.labels), (test.embeddings(), test.labels)
    )
    return found.to_json()


def _moved_lines(moved: Sequence[MovedComponent], units: Sequence[UnitLine]) -> tuple[MovedLine, ...]:
    by_label = {unit.label: unit for unit in units}
    lines = []
    for one in moved[:MOVED]:
        unit = by_label.get(one.label)
        index = one.component
        component = unit.components[index] if unit and index is not None and index < len(unit.components) else None
        ends = (None, None) if component is None else (component.positive, component.negative)
        positive, negative = ("" if end is None or not end.texts else end.texts[0] for end in ends)
        lines.append(MovedLine(one.label, index, one.value, one.effect, (positive, negative)))
    return tuple(lines)


def _curve_points(run: RunResults) -> tuple[CurvePoint, ...]:
    """Every candidate's validations in the order they were made; the search for a learning rate is left out."""
    return tuple(
        CurvePoint(**row)
        for curve in learning_curve(run.adapter.history)
        if curve.step_name != "learning_rate"
        for row in curve.rows()
    )


def _used_pictures(run: RunResults, units: Sequence[UnitLine], others: Sequence[str | None]) -> dict[str, str]:
    """Only the pictures that the page shows."""
    used = {name for name in others if name is not None}
    for unit in units:
        for component in unit.components:
            for end in (component.positive, component.negative):
                used.update(() if end is None else end.pictures)
    return {name: picture for name, picture in run.pictures.items() if name in used}
