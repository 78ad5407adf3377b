"""From the folder of a run to a report: measure what the page shows, from the run's own store, without images."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from residualign._files import publish, saying_what_is_kept
from residualign._progress import Progress, Silent, Tick
from residualign.adapter.lambdas import MovedComponent, PutBackCurve, learning_curve, moved_components, put_back_curve
from residualign.classification.evaluation import Comparison, compare, match_classes, wilson_interval
from residualign.classification.probe import linear_probe
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum, spectra_of_split
from residualign.geometry import Geometry, measure_geometry
from residualign.geometry.separation import class_separation
from residualign.report.contents import (
    CurvePoint,
    Fact,
    MethodLine,
    MovedLine,
    PutBackPoint,
    ReportContents,
    UnitLine,
)
from residualign.report.findings import findings
from residualign.report.report import Report
from residualign.report.units import UnitFindings, changed_images, layer_lines, shown_spectra, unit_lines
from residualign.runs.files import check_analysis_files, write_analysis_files
from residualign.runs.folder import REPORT_NAME
from residualign.runs.opened import RunResults, open_run
from residualign.runs.summary import BEFORE
from residualign.spectrum import Spectra
from residualign.store import Store, StoreSplit
from residualign.text.dictionary import TextDictionary, choose_texts, encode_dictionary
from residualign.text.explain import explain_units
from residualign.text.explanation import Explanation

__all__ = ["GEOMETRY_IMAGES", "build_report", "made_facts", "run_report"]

GEOMETRY_IMAGES = 2000

"""Dimensions are measured on at most so many training images, drawn at random and always the same."""

_SUBSAMPLES = 40

_COMPONENTS, _TEXTS, _IMAGES = 3, 5, 40

_MOVED = 15

_ORDERS = {"largest": "farthest moved first", "smallest": "least moved first", "random": "random order"}


def run_report(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    store: str | None = None,
    model: str | None = None,
    dictionary: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Report, tuple[Path, ...]]:
    """Do everything `residualign report` does: build the report, write the page, and what `formats` asks for.

    out: a folder for the page and for tables and figures; None puts the page beside the adapter. Returns the report and
    the files written. `BadInputError` for what cannot be read and for a page that is there already, unless overwrite;
    `RunError` where writing fails.
    """
    check_analysis_files(out, formats, overwrite)
    page = Path(out or folder) / REPORT_NAME
    if page.exists() and not overwrite:
        raise BadInputError(f"{str(page)!r} exists; add --overwrite to replace it, or choose another folder with --out")
    report = build_report(folder, store=store, model=model, dictionary=dictionary, device=device, progress=progress)
    with saying_what_is_kept(page, "the run itself is untouched, and the same command makes the page"):
        page.parent.mkdir(parents=True, exist_ok=True)
        publish(page, report.html.encode())
    written = [page]
    if out is not None and formats:
        figures = {name: (lambda chart=chart: chart) for name, chart in report.charts.items()}
        written += write_analysis_files(out, "report", report.contents.to_json(), report.tables, figures, formats)
    return report, tuple(written)


def build_report(
    folder: str | os.PathLike[str],
    *,
    store: str | None = None,
    model: str | None = None,
    dictionary: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Report:
    """The report of a finished run, as an object: `.charts`, `.tables`, `.contents`, `.html`, `.save(path)`.

    folder: what `residualign adapt --out` wrote. store: where its store has moved. model: where its model has; it is
    loaded for its text tower alone, and without it the page has no words. dictionary: a text file of descriptions, one
    a line; None takes the package's. Deterministic. Errors: those of `open_run` and of a bad dictionary.

    Costs no forward pass over images; at ViT-B size, dominated by dimensions and words of 144 heads, a few minutes.
    """
    progress = progress or Silent()
    run = open_run(folder, store=store, model=model, device=device)
    notes: list[str] = []
    own = fit_spectrum(run.store)
    spectra = shown_spectra(run.shown, own)
    split = run.store.split("test")
    shown_split = split if len(split) else run.store.split("train")
    with progress.task("dimensions") as tick:
        geometry = _geometry(run, own, notes, tick)
    words = _dictionary(run, model, device, dictionary, notes, progress)
    moved, curves = _scales(run, own, split)
    with progress.task("words") as tick:
        explanation = _explained(shown_split, spectra, words, moved, tick)
    found = UnitFindings(
        run.shown,
        run.result(run.shown.method),
        spectra,
        geometry,
        explanation,
        class_separation(run.store.split("train"), run.store.maps, len(run.store.class_names)),
    )
    units = unit_lines(found, run.picture_of)
    comparison = _comparison(run, split)
    n_changed, kinds, changed = changed_images(run.adapter, split, _names(run), run.picture_of)
    if not run.pictures:
        notes.append("The run was made from a store, so there are no pictures.")
    if run.shown is not run.adapter:
        notes.append(
            f"{run.adapter.method} scales no heads; lambdas, words and pictures are those of {run.shown.method}, "
            "fitted on the same images."
        )
    summary, result = run.summary, run.result(run.adapter.method)
    return Report(
        ReportContents(
            title=f"{_short(summary['model'])} on {_short(summary['data'])}: residualign report",
            model=_short(summary["model"]),
            data=_short(summary["data"]),
            method=run.adapter.method,
            scales_of=run.shown.method if run.shown.lambdas else None,
            n_test=len(split),
            before_is=BEFORE[result.classifier],
            methods=_method_lines(run, split),
            n_layers=run.store.units.n_layers,
            n_heads=run.store.units.n_heads,
            units=units,
            profiles=layer_lines(geometry),
            moved=_moved_lines(moved, units),
            put_back=tuple(
                PutBackPoint(_ORDERS[curve.order], count, accuracy)
                for curve in curves
                for count, accuracy in zip(curve.put_back, curve.accuracy, strict=True)
            ),
            curve=_curve_points(run),
            class_names=run.adapter.class_names,
            confusion_before=tuple(map(tuple, result.confusion_before)),
            confusion_after=tuple(map(tuple, result.confusion_after)),
            n_changed=n_changed,
            changed=changed,
            made=made_facts(summary, result.settings),
            findings=findings(
                comparison,
                run.adapter.method,
                units,
                moved,
                curves[0] if curves else None,
                geometry,
                (n_changed, kinds),
            ),
            notes=tuple(notes),
            pictures=_used_pictures(run, units, [image.picture for image in changed]),
        )
    )


def _short(name: str) -> str:
    """A heading's name for a model or data: of a path its last part; the whole of it stands in how it was made."""
    return Path(name).name if name.startswith(("/", "./", "../", "~")) else name


def _geometry(run: RunResults, own: Spectra, notes: list[str], tick: Tick) -> Geometry:
    """Dimensions over the training images, or over a fixed number of them: neighbours cost their square."""
    split = run.store.split("train")
    spectra = own
    if len(split) > GEOMETRY_IMAGES:
        chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:GEOMETRY_IMAGES]
        notes.append(
            f"Dimensions are measured on {GEOMETRY_IMAGES:,} of {len(split):,} training images, drawn at random."
        )
        split = split.take(chosen.sort().values)
        spectra = spectra_of_split(split)
    return measure_geometry(split, spectra=spectra, subsamples=_SUBSAMPLES, seed=0, progress=tick)


def _dictionary(
    run: RunResults,
    model: str | None,
    device: str,
    path: str | os.PathLike[str] | None,
    notes: list[str],
    progress: Progress,
) -> TextDictionary | None:
    """The dictionary in the model's own words; None, with a note, where the model has none or is not at hand."""
    if run.store.logit_scale is None:
        if path is not None:
            raise BadInputError(
                f"model {run.summary['model']!r} has no text tower, so --dictionary can say nothing of it"
            )
        notes.append("The model has no text tower: its units are shown by images alone.")
        return None
    texts = choose_texts(path, str(run.summary["model"]))
    try:
        with progress.task("dictionary") as tick:
            return encode_dictionary(run.adapter.model, texts, progress=tick)
    except BadInputError as error:
        # what somebody asked for is not left out in silence; of the package's own words a page can do without
        if path is not None or model is not None:
            raise
        progress.warn(f"the page has no words: {error}")
        notes.append(f"There are no words: {error}")
        return None


def _explained(
    split: StoreSplit,
    spectra: Spectra,
    words: TextDictionary | None,
    moved: Sequence[MovedComponent],
    tick: Tick,
) -> Explanation:
    """Words and images of heads and MLPs: their first components, and those that moved farthest."""
    more: dict[str, list[int]] = {}
    for one in moved[:_MOVED]:
        if one.component is not None:
            more.setdefault(one.label, []).append(one.component)
    return explain_units(
        split,
        spectra,
        words,
        units=spectra.units.of_kind("head", "mlp"),
        more=more,
        n_components=_COMPONENTS,
        n_texts=_TEXTS,
        n_images=_IMAGES,
        progress=tick,
    )


def _scales(
    run: RunResults, own: Spectra, split: StoreSplit
) -> tuple[tuple[MovedComponent, ...], tuple[PutBackCurve, ...]]:
    """What moved, and accuracy as it is put back; nothing for a method without lambdas."""
    if "lambdas" not in run.shown.learned:
        return (), ()
    moved = moved_components(run.shown, own)
    if not len(split):
        return moved, ()
    coordinates, labels = split.coordinates(), _labels(run, split)
    return moved, tuple(put_back_curve(run.shown, coordinates, labels, spectra=own, order=order) for order in _ORDERS)


def _comparison(run: RunResults, split: StoreSplit) -> Comparison | None:
    if not len(split):
        return None
    coordinates = split.coordinates()
    before = run.adapter.base_classifier.logits(coordinates.output)
    return compare(before, run.adapter.logits(coordinates), _labels(run, split), run.adapter.class_names)


def _labels(run: RunResults, split: StoreSplit) -> torch.Tensor:
    """Labels as the adapter counts its classes."""
    return match_classes(run.adapter.class_names, _names(run))[split.labels]


def _names(run: RunResults) -> tuple[str, ...]:
    """The names of the store's labels, as the run called its classes."""
    names = tuple(run.summary["class_names"])
    return names if len(names) == len(run.store.class_names) else run.store.class_names


def _method_lines(run: RunResults, split: StoreSplit) -> tuple[MethodLine, ...]:
    """The classifier before adapting, every method, and a linear probe on the same images."""
    n = len(split)

    def line(name: str, kind: str, accuracy: float | None, parameters: int | None, seconds: float | None) -> MethodLine:
        interval = None if accuracy is None or not n else wilson_interval(round(accuracy * n), n)
        return MethodLine(
            name, kind, accuracy, interval, parameters, seconds, kind == "method" and name == run.adapter.method
        )

    first = run.results[0]
    lines = [
        line(
            "class means" if first.classifier == "means" else "zero-shot",
            "before",
            first.accuracy["zero_shot"],
            None,
            None,
        )
    ]
    lines += [
        line(result.method, "method", result.accuracy["adapted"], result.parameters, result.seconds)
        for result in run.results
    ]
    probe = _probe(run.store)
    if probe is not None and run.summary.get("shots") is None:
        lines.append(line("linear probe", "probe", *probe))
    return tuple(lines)


def _probe(store: Store) -> tuple[float | None, int, None] | None:
    """Accuracy and numbers of a linear probe, None where it cannot be fitted or chosen.

    Without its seconds: it is fitted for the page, and the same run has to give the same page.
    """
    train, val, test = (store.split(name) for name in ("train", "val", "test"))
    if not len(val) or not len(test) or len(set(train.labels.tolist())) < 2:
        return None
    found = linear_probe(
        (train.embeddings(), train.labels), (val.embeddings(), val.labels), (test.embeddings(), test.labels)
    )
    return found.accuracy, found.parameters, None


def _moved_lines(moved: Sequence[MovedComponent], units: Sequence[UnitLine]) -> tuple[MovedLine, ...]:
    by_label = {unit.label: unit for unit in units}
    lines = []
    for one in moved[:_MOVED]:
        unit = by_label.get(one.label)
        index = one.component or 0
        component = unit.components[index] if unit is not None and index < len(unit.components) else None
        ends = (None, None) if component is None else (component.positive, component.negative)
        texts = tuple("" if end is None or not end.texts else end.texts[0] for end in ends)
        lines.append(MovedLine(one.label, index, one.value, one.effect, (texts[0], texts[1])))
    return tuple(lines)


def _curve_points(run: RunResults) -> tuple[CurvePoint, ...]:
    """Every candidate's validations in the order they were made; the search for a learning rate is left out."""
    points = []
    for curve in learning_curve(run.adapter.history):
        if curve.step_name == "learning_rate":
            continue
        name = f"{curve.solver} {curve.candidate}".strip()
        points += [
            CurvePoint(name, int(point.step), point.val_accuracy, point.val_loss)
            for point in curve.points
            if point.val_accuracy is not None
        ]
    return tuple(points)


def _used_pictures(run: RunResults, units: Sequence[UnitLine], others: Sequence[str | None]) -> dict[str, str]:
    """Only pictures that the page shows."""
    used = {name for name in others if name is not None}
    for unit in units:
        for component in unit.components:
            for end in (component.positive, component.negative):
                used.update(() if end is None else end.pictures)
    return {name: picture for name, picture in run.pictures.items() if name in used}


_SETTINGS = ("classifier", "solver", "mean", "rest", "start", "shots", "threshold", "loss", "logit_scale")


def made_facts(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Facts from the summary of a run and the settings of its method, in the order a reader asks for them."""
    made, prints = summary["made_with"], summary["fingerprints"]
    pairs: list[tuple[str, Any]] = [
        ("command", shlex.join(made["command"]) if made.get("command") else "from Python"),
        ("model", summary["model"]),
        ("data", summary["data"]),
        ("splits", f"{summary['split_rule']}: {_sizes(summary)}"),
        ("prompts", "; ".join(summary.get("templates", ()))),
        ("components from", f"{summary['reference']} ({summary['n_reference']:,} images; {summary['reference_kind']})"),
        ("method", summary["chosen"]),
        *((name.replace("_", " "), settings.get(name)) for name in _SETTINGS),
        ("seed", summary["seed"]),
        ("sum check", f"units sum to the model's output within {summary['residual_error']:.0e}"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())),
        ("images left out", summary["n_skipped"] or None),
        ("versions", ", ".join(f"{name} {value}" for name, value in made.items() if name != "command")),
        *((f"{name} fingerprint", value) for name, value in prints.items()),
    ]
    return tuple(Fact(name, _text(value)) for name, value in pairs if value not in (None, ""))


def _sizes(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {summary[f'n_{name}']:,}" for name in ("train", "val", "test") if f"n_{name}" in summary)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
