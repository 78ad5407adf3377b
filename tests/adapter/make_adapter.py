"""Adapters on tiny random models, with random lambdas instead of a fit: what is shipped does not care."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from residualign.adapter.fit import adapter_from_fit
from residualign.classification.classifier import Classifier
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.fitting.fit import Accuracy, Fitted
from residualign.fitting.methods import METHODS, build_scaling
from residualign.spectrum import Moments

CLASSES = ("cat", "dog_*", "a | b", "[zero](x)", "one", "two", "<b>")


def pictures(n, seed=0, size=29):
    numbers = np.random.default_rng(seed).integers(0, 256, size=(n, size, size, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in numbers]


def coordinates_of(model, n, seed=0):
    return trace_coordinates(model.tower, model.pixels(pictures(n, seed)))


def spectra_of(model, n=31):
    maps = unit_maps(model.tower)
    moments = Moments.empty(maps)
    moments.update(coordinates_of(model, n, seed=5))
    return moments.spectra(maps, source="noise", model_fingerprint=model.fingerprint)


def random_result(spectra, method, mean=None, rest=None, seed=3, classes=CLASSES):
    """A Fitted with seeded random numbers."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g)

    scaling = build_scaling(METHODS[method], spectra, mean, rest, variance_threshold=0.8)
    learned = {}
    if "lambdas" in METHODS[method].learns:
        learned["lambdas"] = 1 + normal(scaling.n_lambdas)
    if "map" in METHODS[method].learns:
        learned |= {"map": torch.eye(spectra.dim) + normal(spectra.dim, spectra.dim), "bias": normal(spectra.dim)}
    base = Classifier("text", classes, F.normalize(normal(len(classes), spectra.dim), dim=-1), 7.25)
    classifier = base
    if "class_residual" in METHODS[method].learns:
        learned["class_residual"] = normal(len(classes), spectra.dim) / 5
        vectors = F.normalize(base.vectors + learned["class_residual"], dim=-1)
        classifier = Classifier("text", classes, vectors, 7.25)
    return Fitted(
        method=method,
        scaling=scaling,
        learned=learned,
        classifier=classifier,
        base_classifier=base,
        accuracy=Accuracy(zero_shot=0.25, adapted=0.75),
        parameters=sum(value.numel() for value in learned.values()),
        epochs=11,
        learning_rate=None,
        history=({"epoch": 1, "val_accuracy": 0.5}, {"epoch": 2, "val_accuracy": 0.75}),
        seconds=1.0,
        settings={"classifier": "text", "spectra": "noise", "solver": "lbfgs", "n_train": 31, "n_val": 0, "n_test": 4},
    )


def random_adapter(model, method="residual-heads", mean=None, rest=None, **options):
    spectra = spectra_of(model)
    result = random_result(spectra, method, mean, rest)
    return adapter_from_fit(result, unit_maps(model.tower), model.describe(), spectra, **options)
