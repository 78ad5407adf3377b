"""One run of a model over generated images, and what each of its units represents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from recipes.mini.attribute_truth import Attribute
from recipes.mini.generate import generate
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.models.vision_model import VisionModel
from residualign.spectrum import Spectra, Spectrum
from residualign.units import Unit
from studies.mini_attributes.scores import (
    Floats,
    LinearScore,
    eta_squared,
    linear_score,
    one_against_rest,
    value_means,
    variance_share,
)
from studies.mini_attributes.words import Candidate

BATCH = 256


@dataclass(frozen=True)
class UnitScore:
    """How a unit represents an attribute.

    linear: a classifier on all its coefficients. variance_share: share of its variance between the attribute's values,
    minus what chance gives. best_eta_squared, best_component: its component with the largest eta squared among those
    with at least `MIN_RATIO` of its variance. best_auc, best_value: the largest |AUC - 1/2| + 1/2 of such a component,
    and for which value.
    """

    unit: str
    attribute: str
    linear: LinearScore
    variance_share: float
    best_eta_squared: float
    best_component: int
    best_auc: float
    best_value: str


MIN_RATIO = 0.01


@dataclass(frozen=True)
class Traced:
    """Coordinates of generated images and their ground truth; views: (image, 2, attribute)."""

    coordinates: Coordinates
    maps: UnitMaps
    views: Tensor


def trace(model: VisionModel, n_images: int, seed: int, mix: str = "general") -> Traced:
    """Generate images and run the model once, through its own preprocessing, as the shipped spectra were made."""
    parts, views = [], []
    for index, start in enumerate(range(0, n_images, BATCH)):
        batch = generate(seed, index, min(BATCH, n_images - start), mix=mix)
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in batch.images]
        parts.append(trace_coordinates(model.tower, model.pixels(pictures)))
        views.append(batch.views)
    return Traced(Coordinates.cat(parts).to(dtype=torch.float64), unit_maps(model.tower), torch.cat(views))


def spectra_of(model_folder: Path) -> Spectra:
    """The spectra that come with the model; they are of other generated images, so nothing is fitted to these."""
    return Spectra.load(model_folder / "spectra.safetensors")


def coefficients(traced: Traced, unit: Unit, spectrum: Spectrum) -> Floats:
    """(image, component): where images lie along a unit's components, `(contribution - mean) phi`."""
    contribution = traced.maps.to(dtype=torch.float64).contribution(traced.coordinates, unit)
    values: Floats = ((contribution - spectrum.mean.double()) @ spectrum.components.double().T).numpy()
    return values


def unit_coefficients(traced: Traced, spectra: Spectra) -> Iterator[tuple[Unit, Spectrum, Floats]]:
    """Every head and MLP with its spectrum and coefficients."""
    for unit in spectra.units.of_kind("head", "mlp"):
        yield unit, spectra[unit.label], coefficients(traced, unit, spectra[unit.label])


def score(values: Floats, ratio: Floats, unit: str, attribute: Attribute, seed: int) -> UnitScore:
    """Everything about one unit and one attribute; ratio: (component,), each component's share of the variance."""
    rows, labels = values[attribute.shown], attribute.labels[attribute.shown]
    etas = np.where(ratio >= MIN_RATIO, eta_squared(rows, labels), -1.0)
    auc = np.abs(one_against_rest(rows, labels) - 0.5) * (ratio >= MIN_RATIO)
    value, component = np.unravel_index(int(auc.argmax()), auc.shape)
    return UnitScore(
        unit,
        attribute.name,
        linear_score(rows, labels, seed),
        variance_share(rows, labels),
        float(etas.max(initial=0.0)),
        int(etas.argmax()),
        float(auc[value, component] + 0.5),
        attribute.values[int(value)],
    )


def candidates(values: Floats, spectrum: Spectrum, unit: str, attribute: Attribute) -> list[Candidate]:
    """The unit's components with at least `MIN_RATIO` of its variance, as `agreement` judges them."""
    rows, labels = values[attribute.shown], attribute.labels[attribute.shown]
    etas, means = eta_squared(rows, labels), value_means(rows, labels)
    aucs = np.abs(one_against_rest(rows, labels) - 0.5).max(0) + 0.5
    ratio = spectrum.explained_variance_ratio.double().numpy()
    directions = spectrum.components.double().numpy()
    return [
        Candidate(unit, k, float(ratio[k]), float(etas[k]), float(aucs[k]), directions[k], means[:, k])
        for k in range(len(ratio))
        if ratio[k] >= MIN_RATIO
    ]
