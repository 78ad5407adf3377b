"""What a report measures of a run: dimensions, words, pictures, what moved and what it is worth, from the store."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from residualign._files import plain
from residualign._progress import Progress, Tick
from residualign._result import Table
from residualign.adapter.adapter import Adapter
from residualign.adapter.attribution import attribute_change
from residualign.adapter.lambdas import MovedComponent, PutBackCurve, put_back_curve, shown_lambdas
from residualign.classification.evaluation import Comparison, compare, match_classes
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum, spectra_of_split
from residualign.fitting.coefficients import OUTPUT
from residualign.geometry import Geometry, measure_geometry
from residualign.geometry.separation import class_separation
from residualign.report.contents import ChangedImage, ComponentLine, End, UnitLine
from residualign.runs.opened import RunResults
from residualign.runs.results import variance_shares
from residualign.spectrum import Spectra, Spectrum
from residualign.store import StoreSplit
from residualign.text.dictionary import TextDictionary, choose_texts, encode_dictionary
from residualign.text.explain import explain_units
from residualign.text.explanation import ComponentWords, Explanation, TextMatch

__all__ = ["MOVED", "QUICK_IMAGES", "Measured", "measure_run", "shown_spectra", "texts_of_run"]

_GEOMETRY_IMAGES = 2000
"""Dimensions are measured on at most this many training images, drawn at random with a fixed seed."""

QUICK_IMAGES = 200
"""With `--quick`, dimensions and words are measured on at most this many images each."""

MOVED = 15
"""How many of the components that moved farthest a page lists."""

_CHANGED = {"corrected": 12, "newly wrong": 8, "still wrong": 4}
"""How many changed images of each kind are shown."""

_PROFILES = ("linear_dimension", "two_nn", "ratio", "evr_first")
_ORDERS = ("largest", "smallest", "random")
_SUBSAMPLES = 40

# per unit: components explained, and texts and images looked up for each end
_COMPONENTS, _TEXTS, _IMAGES = 3, 5, 40
# of these shown on the page; a text with a smaller cosine says nothing
_SHOWN_TEXTS, _SHOWN_PICTURES, _LEAST_COSINE = 3, 4, 0.05
# units named under a changed image
_PARTS = 5


@dataclass(frozen=True)
class Measured:
    """All that is measured for a report.

    profiles: rows of the table `geometry_profiles`. changed_kinds: how many test images changed class, by kind;
    changed: some of them.
    """

    geometry: Geometry
    profiles: Table
    units: tuple[UnitLine, ...]
    moved: tuple[MovedComponent, ...]
    curves: tuple[PutBackCurve, ...]
    comparison: Comparison | None
    changed_kinds: dict[str, int]
    changed: tuple[ChangedImage, ...]


def measure_run(
    run: RunResults, words: TextDictionary | None, notes: list[str], progress: Progress, *, quick: bool = False
) -> Measured:
    """Measure everything. words: None for a page without words. notes: what a reader should know is appended.

    quick: use few images for what costs most.
    """
    own = fit_spectrum(run.store)
    spectra = shown_spectra(run.shown, own)
    split = run.store.split("test")
    with progress.task("dimensions") as tick:
        geometry = _geometry(run, own, notes, tick, QUICK_IMAGES if quick else _GEOMETRY_IMAGES)
    moved, curves = _scales(run, own, split)
    with progress.task("words") as tick:
        shown = split if len(split) else run.store.split("train")
        if quick and len(shown) > QUICK_IMAGES:
            notes.append(f"Words are chosen on {QUICK_IMAGES:,} of {len(shown):,} images, drawn at random.")
            shown = _drawn(shown, QUICK_IMAGES)
        explanation = _explained(shown, spectra, words, moved, tick)
    kinds, changed = _changed_images(run, split)
    units = _unit_lines(run, spectra, geometry, explanation)
    return Measured(geometry, _profiles(geometry), units, moved, curves, _comparison(run, split), kinds, changed)


def texts_of_run(
    run: RunResults,
    model: str | None,
    device: str,
    path: str | os.PathLike[str] | None,
    notes: list[str],
    progress: Progress,
) -> TextDictionary | None:
    """The dictionary embedded by the text tower; None, with a note, without a text tower or without the model."""
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
        # a dictionary or model that was asked for must work; without them the page has no words
        if path is not None or model is not None:
            raise
        progress.warn(f"the page has no words: {error}")
        notes.append(f"There are no words: {error}")
        return None


def _geometry(run: RunResults, own: Spectra, notes: list[str], tick: Tick, most: int) -> Geometry:
    """Dimensions over the training images, or a random sample of them: the cost grows with their square."""
    split = run.store.split("train")
    spectra = own
    if len(split) > most:
        notes.append(f"Dimensions are measured on {most:,} of {len(split):,} training images, drawn at random.")
        split = _drawn(split, most)
        spectra = spectra_of_split(split)
    return measure_geometry(split, spectra=spectra, subsamples=_SUBSAMPLES, seed=0, progress=tick)


def _drawn(split: StoreSplit, n: int) -> StoreSplit:
    """Some images at random, the same each time."""
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:n]
    return split.take(chosen.sort().values)


def _explained(
    split: StoreSplit,
    spectra: Spectra,
    words: TextDictionary | None,
    moved: Sequence[MovedComponent],
    tick: Tick,
) -> Explanation:
    """Words and images of heads and MLPs, for their first components and for those that moved farthest."""
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
    """The lambdas by effect, and accuracy as they are reset to 1; nothing for a method without lambdas."""
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
    """Labels as indices into the adapter's classes."""
    return match_classes(run.adapter.class_names, _names(run))[split.labels]


def _names(run: RunResults) -> tuple[str, ...]:
    """Class names of the store's labels, as the run named them."""
    names = tuple(run.summary["class_names"])
    return names if len(names) == len(run.store.class_names) else run.store.class_names


def _unit_lines(
    run: RunResults, spectra: Spectra, geometry: Geometry, explanation: Explanation
) -> tuple[UnitLine, ...]:
    """One line per unit, in unit order. spectra: the components that lambdas, words and pictures are of."""
    scaled = [unit for unit in run.result(run.shown.method).units if unit.label != OUTPUT]
    shares = {share.label: share for share in variance_shares(scaled)}
    words = {unit.label: unit for unit in explanation.units}
    lambdas = shown_lambdas(run.shown)
    separation = class_separation(run.store.split("train"), run.store.maps, len(run.store.class_names))
    lines = []
    for unit, separated in zip(spectra.units, separation.tolist(), strict=True):
        measured, share, own = geometry.unit(unit.label), shares.get(unit.label), words.get(unit.label)
        measures = {
            "change": None if share is None or share.before <= 0 else share.after / share.before,
            "energy": None if share is None else share.after,
            # an unbiased estimate, which may be below zero where classes do not matter
            "specialisation": None if math.isnan(separated) else max(0.0, separated),
            "evr_first": _finite(measured.evr_first),
            "linear_dimension": float(measured.linear_dimension) or None,
            "two_nn": _finite(measured.two_nn),
            "ratio": _finite(measured.ratio),
        }
        finite = all(map(math.isfinite, measured.two_nn_interval))
        texts = () if own is None else tuple(chosen.text for chosen in own.chosen)
        components = _components(
            spectra[unit.label], lambdas.get(unit.label), () if own is None else own.components, run.picture_of
        )
        lines.append(
            UnitLine(
                unit.label,
                unit.kind,
                unit.layer,
                unit.head,
                measures,
                measured.two_nn_interval if finite else None,
                texts,
                components,
            )
        )
    return tuple(lines)


def _profiles(geometry: Geometry) -> Table:
    """The profiles of heads and MLPs that the page shows, layer by layer."""
    names = ("kind", "quantity", "layer", "mean", "mean_low", "mean_high")
    rows = (row for row in geometry.tables["geometry_profiles"] if row["quantity"] in _PROFILES)
    return [plain({name: row[name] for name in names}) for row in rows if math.isfinite(row["mean"])]


def _components(
    spectrum: Spectrum, lambdas: Tensor | None, words: tuple[ComponentWords, ...], picture_of: Mapping[str, str]
) -> tuple[ComponentLine, ...]:
    ends = {
        one.index: (
            _end(one.positive, one.images_positive, picture_of),
            _end(one.negative, one.images_negative, picture_of),
        )
        for one in words
    }
    n = spectrum.n_components
    # one lambda for the whole unit is every component's
    scales = [None] * n if lambdas is None else lambdas.expand(n).tolist()
    shares = spectrum.explained_variance_ratio.tolist()
    return tuple(ComponentLine(i, shares[i], scales[i], *ends.get(i, ())) for i in range(n))


def _end(texts: tuple[TextMatch, ...], images: tuple[tuple[str, float], ...], picture_of: Mapping[str, str]) -> End:
    """The texts that match this end clearly, and pictures of the images furthest along it."""
    said = tuple(match.text for match in texts[:_SHOWN_TEXTS] if match.score >= _LEAST_COSINE)
    pictures = dict.fromkeys(picture_of[key] for key, _ in images if key in picture_of)
    return End(said, tuple(pictures)[:_SHOWN_PICTURES])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _changed_images(run: RunResults, split: StoreSplit) -> tuple[dict[str, int], tuple[ChangedImage, ...]]:
    """How many test images changed class, by kind, and some of them.

    Of each kind those with a picture come first, then those whose margin moved most.
    """
    of_kind: dict[str, list[ChangedImage]] = {kind: [] for kind in _CHANGED}
    if not len(split):
        return dict.fromkeys(of_kind, 0), ()
    adapter, names = run.adapter, run.adapter.class_names
    coordinates = split.coordinates()
    before = adapter.base_classifier.logits(coordinates.output).argmax(dim=-1).cpu()
    probability, after = (found.cpu() for found in adapter.predict_proba(coordinates).max(dim=-1))
    changed = (before != after).nonzero().flatten()
    if len(changed):
        labels, keys = _names(run), split.keys
        attribution = attribute_change(adapter.adapted, coordinates[changed])
        for row, (i, change) in enumerate(zip(changed.tolist(), attribution.change.tolist(), strict=True)):
            image = ChangedImage(
                key=keys[i],
                picture=run.picture_of.get(keys[i]),
                label=labels[int(split.labels[i])],
                before=names[int(before[i])],
                after=names[int(after[i])],
                probability=float(probability[i]),
                change=change,
                parts=attribution.top(row, _PARTS),
            )
            of_kind[image.kind].append(image)
    shown = (
        sorted(images, key=lambda image: (image.picture is None, -image.change))[: _CHANGED[kind]]
        for kind, images in of_kind.items()
    )
    return {kind: len(images) for kind, images in of_kind.items()}, tuple(chain.from_iterable(shown))


def shown_spectra(adapter: Adapter, own: Spectra) -> Spectra:
    """For every unit, the components that the adapter scales one by one, otherwise those of `own`.

    own: spectra of the images whose variance counts, with their means, total variances and output. The variance along
    an adapter's component phi is sum_j v_j (phi . phi_j)^2 over their components phi_j of variance v_j. Components are
    in the adapter's order, as its lambdas are, so variances need not fall. Costs O(component^2 x dim) per unit.
    """
    scaled = {unit.label: unit.components for unit in adapter.full_scaling.units}
    spectrums = []
    for label, spectrum in own.items():
        components = scaled.get(label)
        if components is None:
            spectrums.append(spectrum)
            continue
        components = components.to("cpu", torch.float64)
        along = (components @ spectrum.components.double().T).square() @ spectrum.explained_variance.double()
        spectrums.append(Spectrum(spectrum.mean, components, along, spectrum.total_variance, spectrum.n_samples))
    return Spectra(own.units, tuple(spectrums), own.output, own.source, own.model_fingerprint)
