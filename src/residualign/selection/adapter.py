"""A selection of heads as a scaling, and as an adapter that is saved and used like any other."""

from __future__ import annotations

from typing import Any

import torch

from residualign.adapter.adapter import Adapter, adapter_from_fit
from residualign.fitting.coefficients import ScaledUnit, Scaling
from residualign.fitting.fit import Fitted
from residualign.fitting.methods import SELECT
from residualign.selection.select import Selection
from residualign.spectrum.spectrum import Spectra

__all__ = ["adapter_from_selection", "scaling_of_selection"]


def scaling_of_selection(selection: Selection) -> Scaling:
    """The kept units, each as a whole under one lambda; the rest zero, or its mean.

    With lambdas of one the adapted embedding is the sum of the kept contributions and the means of the others, exactly.
    """
    nothing = torch.zeros_like(selection.rest_mean)
    units = tuple(ScaledUnit(label, nothing, None) for label in selection.kept)
    return Scaling(units, mean="keep", rest=selection.ablation, rest_mean=selection.rest_mean)


def adapter_from_selection(selection: Selection, store: Any, spectra: Spectra | None = None) -> Adapter:
    """The adapter of a selection: method "select", no learned parameters, lambdas of one.

    store: what was selected on; its maps and its model's description are taken. spectra: whose means stand for what is
    left out, None for those of the training images. The means are kept in float32 like those of any adapter.
    """
    scaling = scaling_of_selection(selection)
    settings = {
        "classifier": selection.classifier.kind,
        "logit_scale": selection.classifier.logit_scale,
        "spectra": selection.source,
        "score": selection.score,
        "heads": list(selection.heads),
        "budget": selection.budget,
        "ablation": selection.ablation,
        "keep_mlps": selection.keep_mlps,
        "seed": selection.seed if selection.score == "R" else None,
        "n_train": selection.n_train,
        "n_val": selection.n_val,
        "n_test": selection.n_test,
    }
    result = Fitted(
        method=SELECT.name,
        scaling=scaling,
        learned={"lambdas": torch.ones(scaling.n_lambdas, dtype=torch.float64)},
        classifier=selection.classifier,
        base_classifier=selection.classifier,
        accuracy=dict(selection.accuracy),
        parameters=0,
        epochs=0,
        learning_rate=None,
        history=(),
        seconds=0.0,
        settings=settings,
    )
    return adapter_from_fit(result, store, spectra)
