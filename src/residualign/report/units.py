"""Every unit of a report: how it changed, its geometry, its words, and the images at both ends of its components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from residualign.adapter.adapter import Adapter
from residualign.adapter.attribution import attribute_change
from residualign.adapter.lambdas import shown_lambdas
from residualign.geometry import Geometry, UnitGeometry
from residualign.report.contents import ChangedImage, ComponentLine, End, LayerLine, UnitLine
from residualign.runs.results import MethodResult
from residualign.spectrum import Spectra, Spectrum
from residualign.store import StoreSplit
from residualign.text.explanation import ComponentWords, Explanation, TextMatch

__all__ = ["PROFILES", "UnitFindings", "changed_images", "layer_lines", "shown_spectra", "unit_lines"]

PROFILES = ("linear_dimension", "two_nn", "ratio", "evr_first")

_TEXTS, _PICTURES = 3, 4

# the weaker end of a cosine says nothing
_LEAST_COSINE = 0.05


@dataclass(frozen=True)
class UnitFindings:
    """What was measured of the units of a run. spectra: the components that lambdas, words and pictures are of."""

    adapter: Adapter
    result: MethodResult
    spectra: Spectra
    geometry: Geometry
    explanation: Explanation
    separation: Tensor


def unit_lines(found: UnitFindings, picture_of: Mapping[str, str]) -> tuple[UnitLine, ...]:
    """One line per unit, in unit order."""
    shares = _shares(found.result)
    words = {unit.label: unit for unit in found.explanation.units}
    lambdas = shown_lambdas(found.adapter)
    lines = []
    for i, unit in enumerate(found.spectra.units):
        label = unit.label
        geometry = found.geometry.unit(label)
        before, after = shares.get(label, (None, None))
        own = words.get(label)
        lines.append(
            UnitLine(
                label=label,
                kind=unit.kind,
                layer=unit.layer,
                head=unit.head,
                measures={
                    "change": None if before is None or after is None or before <= 0 else after / before,
                    "energy": after,
                    "specialisation": _clipped(float(found.separation[i])),
                    "evr_first": _finite(geometry.evr_first),
                    "linear_dimension": float(geometry.linear_dimension) if geometry.linear_dimension else None,
                    "two_nn": _finite(geometry.two_nn),
                    "ratio": _finite(geometry.ratio),
                },
                two_nn_interval=_interval(geometry),
                texts=() if own is None else tuple(chosen.text for chosen in own.chosen),
                components=_components(
                    found.spectra, label, lambdas.get(label), () if own is None else own.components, picture_of
                ),
            )
        )
    return tuple(lines)


def layer_lines(geometry: Geometry) -> tuple[LayerLine, ...]:
    """The profiles of heads and MLPs, layer by layer."""
    return tuple(
        LayerLine(profile.kind, profile.quantity, layer, mean, _finite(low), _finite(high))
        for profile in geometry.profiles
        if profile.quantity in PROFILES
        for layer, mean, (low, high) in zip(profile.layers, profile.mean, profile.intervals, strict=True)
        if math.isfinite(mean)
    )


def _shares(result: MethodResult) -> dict[str, tuple[float, float]]:
    """Each scaled unit's share of the variance of all scaled units, before and after."""
    units = [unit for unit in result.units if unit.label != "output"]
    before = sum(unit.variance_before for unit in units) or 1.0
    after = sum(unit.variance_after for unit in units) or 1.0
    return {unit.label: (unit.variance_before / before, unit.variance_after / after) for unit in units}


def _components(
    spectra: Spectra,
    label: str,
    lambdas: Tensor | None,
    words: tuple[ComponentWords, ...],
    picture_of: Mapping[str, str],
) -> tuple[ComponentLine, ...]:
    spectrum = spectra[label]
    ends = {one.index: one for one in words}
    # one lambda for the whole unit is every component's
    scales = [None] * spectrum.n_components if lambdas is None else lambdas.expand(spectrum.n_components).tolist()
    shares = spectrum.explained_variance_ratio.tolist()
    return tuple(
        ComponentLine(
            index,
            shares[index],
            scales[index],
            _end(ends[index].positive, ends[index].images_positive, picture_of) if index in ends else None,
            _end(ends[index].negative, ends[index].images_negative, picture_of) if index in ends else None,
        )
        for index in range(spectrum.n_components)
    )


def _end(texts: tuple[TextMatch, ...], images: tuple[tuple[str, float], ...], picture_of: Mapping[str, str]) -> End:
    """The texts that clearly match this side, and the images furthest along it that there are pictures of."""
    pictures = list(dict.fromkeys(picture_of[key] for key, _ in images if key in picture_of))
    return End(
        tuple(match.text for match in texts[:_TEXTS] if match.score >= _LEAST_COSINE), tuple(pictures[:_PICTURES])
    )


def _interval(geometry: UnitGeometry) -> tuple[float, float] | None:
    low, high = geometry.two_nn_interval
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _clipped(share: float) -> float | None:
    """The estimate is about zero where classes do not matter, and may be below."""
    return None if math.isnan(share) else max(0.0, share)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


SHOWN = {"corrected": 12, "newly wrong": 8, "still wrong": 4}
"""How many changed images of each kind are shown."""

_UNITS = 5


def changed_images(
    adapter: Adapter, split: StoreSplit, class_names: Sequence[str], picture_of: Mapping[str, str]
) -> tuple[dict[str, int], tuple[ChangedImage, ...]]:
    """How many images changed class, by kind (the keys of `SHOWN`), and some of them.

    Of each kind those with a picture come first, then those whose margin moved most. class_names: of the split's
    labels.
    """
    if not len(split):
        return dict.fromkeys(SHOWN, 0), ()
    coordinates, keys = split.coordinates(), split.keys
    labels = [class_names[i] for i in split.labels.tolist()]
    names = adapter.class_names
    before = [names[i] for i in adapter.base_classifier.logits(coordinates.output).argmax(dim=-1).tolist()]
    probability, after_index = adapter.predict_proba(coordinates).max(dim=-1)
    after = [names[i] for i in after_index.tolist()]
    changed = [i for i in range(len(keys)) if before[i] != after[i]]
    if not changed:
        return dict.fromkeys(SHOWN, 0), ()
    attribution = attribute_change(adapter.adapted, coordinates[torch.tensor(changed)])
    row = {i: position for position, i in enumerate(changed)}
    moved = attribution.change.tolist()
    images = [
        ChangedImage(
            key=keys[i],
            picture=picture_of.get(keys[i]),
            label=labels[i],
            before=before[i],
            after=after[i],
            probability=float(probability[i]),
            change=moved[row[i]],
            parts=attribution.top(row[i], _UNITS),
        )
        for i in changed
    ]
    by_kind = {kind: [image for image in images if image.kind == kind] for kind in SHOWN}
    first = {
        kind: sorted(own, key=lambda image: (image.picture is None, -image.change))[: SHOWN[kind]]
        for kind, own in by_kind.items()
    }
    return {kind: len(own) for kind, own in by_kind.items()}, tuple(image for own in first.values() for image in own)


def shown_spectra(adapter: Adapter, own: Spectra) -> Spectra:
    """For every unit, the components that the adapter scales one by one, or else those of `own`.

    own: spectra of the images whose variance counts; means, total variances and the output are theirs. The variance
    along an adapter's component phi is sum_j v_j (phi . phi_j)^2 over their components phi_j of variance v_j. In the
    order of the adapter, whose lambdas count the same way, so not necessarily falling. Costs O(component^2 x dim) per
    unit.
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
