"""All that a report measures: dimensions, words, what moved and what it is worth, from the run's own store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from residualign._progress import Progress, Tick
from residualign.adapter.lambdas import MovedComponent, PutBackCurve, put_back_curve
from residualign.classification.evaluation import Comparison, compare, match_classes
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum, spectra_of_split
from residualign.geometry import Geometry, measure_geometry
from residualign.geometry.separation import class_separation
from residualign.report.contents import ChangedImage, UnitLine
from residualign.report.units import UnitFindings, changed_images, shown_spectra, unit_lines
from residualign.runs.opened import RunResults
from residualign.spectrum import Spectra
from residualign.store import StoreSplit
from residualign.text.dictionary import TextDictionary, choose_texts, encode_dictionary
from residualign.text.explain import explain_units
from residualign.text.explanation import Explanation

__all__ = ["GEOMETRY_IMAGES", "MOVED", "Measured", "measure_run", "texts_of_run"]

GEOMETRY_IMAGES = 2000
"""Dimensions are measured on at most this many training images, drawn at random and always the same."""

MOVED = 15
"""How many of the components that moved farthest a page lists."""

_SUBSAMPLES = 40
_COMPONENTS, _TEXTS, _IMAGES = 3, 5, 40
_ORDERS = ("largest", "smallest", "random")


@dataclass(frozen=True)
class Measured:
    """All that is measured for a report. changed_kinds: how many images changed class, by kind."""

    geometry: Geometry
    units: tuple[UnitLine, ...]
    moved: tuple[MovedComponent, ...]
    curves: tuple[PutBackCurve, ...]
    comparison: Comparison | None
    changed_kinds: dict[str, int]
    changed: tuple[ChangedImage, ...]


def measure_run(run: RunResults, words: TextDictionary | None, notes: list[str], progress: Progress) -> Measured:
    """Measure everything; words None leaves the page without words. What a reader should know goes to the notes."""
    own = fit_spectrum(run.store)
    spectra = shown_spectra(run.shown, own)
    split = run.store.split("test")
    with progress.task("dimensions") as tick:
        geometry = _geometry(run, own, notes, tick)
    moved, curves = _scales(run, own, split)
    with progress.task("words") as tick:
        explanation = _explained(split if len(split) else run.store.split("train"), spectra, words, moved, tick)
    separation = class_separation(run.store.split("train"), run.store.maps, len(run.store.class_names))
    found = UnitFindings(run.shown, run.result(run.shown.method), spectra, geometry, explanation, separation)
    kinds, changed = changed_images(run.adapter, split, _names(run), run.picture_of)
    units = unit_lines(found, run.picture_of)
    return Measured(geometry, units, moved, curves, _comparison(run, split), kinds, changed)


def texts_of_run(
    run: RunResults,
    model: str | None,
    device: str,
    path: str | os.PathLike[str] | None,
    notes: list[str],
    progress: Progress,
) -> TextDictionary | None:
    """The dictionary as the text tower embeds it; None, with a note, where there is no text tower or no model."""
    if run.store.logit_scale is None:
        if path is not None:
            raise BadInputError(f"model {run.summary['model']!r} has no text tower, so --dictionary cannot be used")
        notes.append("The model has no text tower, so its units are shown by images alone.")
        return None
    texts = choose_texts(path, str(run.summary["model"]))
    try:
        with progress.task("dictionary") as tick:
            return encode_dictionary(run.adapter.model, texts, progress=tick)
    except BadInputError as error:
        # what somebody asked for is not left out silently; a page can do without the package's own words
        if path is not None or model is not None:
            raise
        progress.warn(f"the page has no words: {error}")
        notes.append(f"There are no words: {error}")
        return None


def _geometry(run: RunResults, own: Spectra, notes: list[str], tick: Tick) -> Geometry:
    """Dimensions over the training images, or over a fixed number of them: neighbors cost their square."""
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


def _explained(
    split: StoreSplit,
    spectra: Spectra,
    words: TextDictionary | None,
    moved: Sequence[MovedComponent],
    tick: Tick,
) -> Explanation:
    """Words and images of heads and MLPs: of their first components, and of those that moved farthest."""
    more: dict[str, list[int]] = {}
    for one in moved[:MOVED]:
        if one.component is not None:
            more.setdefault(one.label, []).append(one.component)
    return explain_units(
        split,
        spectra,
        words,
        units=spectra.units.of_kind("head", "mlp"),
        more=more,
        components=_COMPONENTS,
        n_texts=_TEXTS,
        n_images=_IMAGES,
        progress=tick,
    )


def _scales(
    run: RunResults, own: Spectra, split: StoreSplit
) -> tuple[tuple[MovedComponent, ...], tuple[PutBackCurve, ...]]:
    """What moved, and accuracy as it is reset; nothing for a method without lambdas."""
    if "lambdas" not in run.shown.learned:
        return (), ()
    moved = run.shown.moved(own).components
    if not len(split):
        return moved, ()
    coordinates, labels = split.coordinates(), _labels(run, split)
    return moved, tuple(
        put_back_curve(run.shown.adapted, coordinates, labels, spectra=own, order=order) for order in _ORDERS
    )


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
