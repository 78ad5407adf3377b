"""From the folder of a run to its report, from the run's own store: no image goes through the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from residualign._progress import SILENT, Progress, Tick, Ticking
from residualign._result import Row
from residualign.adapter.lambdas import learning_curve
from residualign.classification.classifier import linear_probe
from residualign.classification.evaluation import wilson_interval
from residualign.errors import BadInputError
from residualign.fitting.coefficients import Scaling
from residualign.report.contents import MethodLine, MovedLine, ReportContents
from residualign.report.findings import components_from, findings, made_facts
from residualign.report.measure import MOVED, Measured, measure_run, texts_of_run
from residualign.report.report import Report
from residualign.runs.opened import RunResults, open_run
from residualign.runs.results import BEFORE, MethodResult

__all__ = ["build_report", "report_of_run"]


def build_report(
    run: str | os.PathLike[str],
    *,
    store: str | None = None,
    model: str | None = None,
    dictionary: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    quick: bool = False,
    progress: Tick | None = None,
) -> Report:
    """Build the report of a finished run: one page, its tables and its figures.

    Parameters
    ----------
    run : str or path
        The folder that ``residualign adapt --out`` wrote.
    store : str, optional
        Where the activation store of the run is, if it has been moved.
    model : str, optional
        Where the model is, if it has been moved. Only its text tower is used.
    dictionary : str or path, optional
        A text file of descriptions, one per line. By default, the dictionary that comes with the package.
    device : str
        Where the text tower runs, for example ``"cpu"`` or ``"cuda:0"``.
    quick : bool
        Measure dimensions and words on at most 200 images each, which a note on the page says.
    progress : callable, optional
        Called with (steps done, steps in all) of each long task in turn. What a user should be warned of is a note on
        the page.

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
    opened = open_run(run, store=store, model=model, device=device)
    return report_of_run(
        opened,
        model=model,
        dictionary=dictionary,
        device=device,
        quick=quick,
        progress=SILENT if progress is None else Ticking(progress),
    )


def report_of_run(
    opened: RunResults,
    *,
    model: str | None = None,
    dictionary: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    quick: bool = False,
    progress: Progress = SILENT,
) -> Report:
    """`build_report` for a run that is open; progress is told about tasks and warnings."""
    notes: list[str] = []
    words = texts_of_run(opened, model, device, dictionary, notes, progress)
    measured = measure_run(opened, words, notes, progress, quick=quick)
    if not opened.pictures:
        notes.append("The run was made from a store, so there are no pictures.")
    if opened.shown is not opened.adapter:
        notes.append(
            f"{opened.adapter.method} does not scale heads; lambdas, words and pictures are those of "
            f"{opened.shown.method}, fitted on the same images."
        )
    return Report(_contents(opened, measured, notes))


def _confusion(result: MethodResult, names: Sequence[str]) -> list[Row]:
    """The table `confusion`, in the order of the classes."""
    before, after = (
        {(true, predicted): n for true, predicted, n in pairs}
        for pairs in (result.confusion_before, result.confusion_after)
    )
    if any(not 0 <= place < len(names) for pair in {*before, *after} for place in pair):
        raise BadInputError("summary.json of the run is damaged: it counts images of a class that the adapter lacks")
    return [
        {"true": names[i], "predicted": names[j], "before": before.get((i, j), 0), "after": after.get((i, j), 0)}
        for i, j in sorted({*before, *after})
    ]


def _contents(run: RunResults, measured: Measured, notes: Sequence[str]) -> ReportContents:
    summary, result = run.summary, run.result(run.adapter.method)
    scaling = run.shown.full_scaling if run.shown.lambdas else None
    return ReportContents(
        title=f"{_short(summary['model'])} on {_short(summary['data'])}: residualign report",
        model=_short(summary["model"]),
        data=_short(summary["data"]),
        method=run.adapter.method,
        scales_of=None if scaling is None else run.shown.method,
        scale_free=scaling is not None and scaling.scale_free,
        rest=None if scaling is None else scaling.rest,
        components_of=components_from(summary) if _scales_components(scaling) else "",
        n_test=len(run.store.split("test")),
        before_is=BEFORE[result.classifier],
        methods=_method_lines(run),
        n_layers=run.store.units.n_layers,
        n_heads=run.store.units.n_heads,
        units=measured.units,
        profiles=measured.profiles,
        moved=_moved_lines(measured),
        put_back=[row for curve in measured.curves for row in curve.tables["put_back"]],
        curve=[
            row
            for curve in learning_curve(run.adapter.history)
            if curve.step_name != "learning_rate"
            for row in curve.rows()
        ],
        class_names=run.adapter.class_names,
        confusion=_confusion(result, run.adapter.class_names),
        n_changed=sum(measured.changed_kinds.values()),
        changed=measured.changed,
        made=made_facts(summary, result.settings),
        findings=findings(run.adapter.method, measured),
        notes=tuple(notes),
        pictures=_used_pictures(run, measured),
    )


def _scales_components(scaling: Scaling | None) -> bool:
    return scaling is not None and any(unit.components is not None for unit in scaling.units)


def _short(name: str) -> str:
    """The name of a model or data set in a heading: of a path the last part; "how it was made" shows all of it."""
    return Path(name).name if name.startswith(("/", "./", "../", "~")) else name


def _method_lines(run: RunResults) -> tuple[MethodLine, ...]:
    """The classifier before adapting, every method, and the linear probe on the same images."""
    n_test = len(run.store.split("test"))

    def line(name: str, kind: str, accuracy: float | None, **more: Any) -> MethodLine:
        interval = None if accuracy is None or not n_test else wilson_interval(round(accuracy * n_test), n_test)
        rest = {"parameters": None, "seconds": None, **more}
        return MethodLine(name, kind, accuracy, interval, **rest)

    first = run.results[0]
    name = "class means" if first.classifier == "means" else "zero-shot"
    lines = [line(name, "before", first.accuracy.zero_shot, val_accuracy=first.accuracy.zero_shot_val)]
    lines += [
        line(
            result.method,
            "method",
            result.accuracy.adapted,
            parameters=result.parameters,
            seconds=result.seconds,
            val_accuracy=result.accuracy.val,
            is_chosen=result.method == run.adapter.method,
        )
        for result in run.results
    ]
    probe = _probe(run)
    if probe is not None:
        numbers = {name: probe.get(name) for name in ("parameters", "seconds")}
        lines.append(line("linear probe", "probe", probe["accuracy"], val_accuracy=probe["val"], **numbers))
    return tuple(lines)


def _probe(run: RunResults) -> dict[str, Any] | None:
    """The linear probe of the run; an older run has none, and it is fitted now where possible."""
    if run.summary.get("linear_probe") is not None:
        return dict(run.summary["linear_probe"])
    train, val, test = (run.store.split(name) for name in ("train", "val", "test"))
    few = run.summary.get("shots") is not None
    if few or not len(val) or not len(test) or len(set(train.labels.tolist())) < 2:
        return None
    found = linear_probe(
        (train.embeddings(), train.labels), (val.embeddings(), val.labels), (test.embeddings(), test.labels)
    )
    # without its seconds, which differ each time: the same run has to give the same page
    return found.to_json() | {"seconds": None}


def _moved_lines(measured: Measured) -> tuple[MovedLine, ...]:
    """The components that moved most, with the best text of each end."""
    components = {(unit.label, one.index): one for unit in measured.units for one in unit.components}
    lines = []
    for moved in measured.moved[:MOVED]:
        component = None if moved.component is None else components.get((moved.label, moved.component))
        ends = (None, None) if component is None else (component.positive, component.negative)
        positive, negative = ("" if end is None or not end.texts else end.texts[0] for end in ends)
        lines.append(MovedLine(moved.label, moved.component, moved.value, moved.effect, (positive, negative)))
    return tuple(lines)


def _used_pictures(run: RunResults, measured: Measured) -> dict[str, str]:
    """The pictures that the page shows."""
    components = [component for unit in measured.units for component in unit.components]
    ends = [end for component in components for end in (component.positive, component.negative) if end is not None]
    used = {image.picture for image in measured.changed}.union(*(end.pictures for end in ends))
    return {name: picture for name, picture in run.pictures.items() if name in used}
