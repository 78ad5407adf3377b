"""The public `fit`: from a store to an adapter that predicts and can be saved."""

from __future__ import annotations

import torch

from residualign.classify import Classifier, ClassifierKind
from residualign.scaling.adapter import Adapter, adapter_from_fit
from residualign.scaling.coefficients import MAX_BYTES, MeanMode, RestMode
from residualign.scaling.fit import fit as fit_method
from residualign.scaling.methods import StartMode
from residualign.scaling.solvers import Solver
from residualign.scaling.splits import StoreLike
from residualign.spectrum.spectrum import Spectra

__all__ = ["fit"]


def fit(
    store: StoreLike,
    method: str = "residual",
    spectra: Spectra | None = None,
    *,
    classifier: Classifier | ClassifierKind | None = None,
    solver: Solver | str | None = None,
    mean: MeanMode | None = None,
    rest: RestMode | None = None,
    start: StartMode = "ones",
    shots: int | None = None,
    threshold: float = 0.9,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_bytes: int = MAX_BYTES,
) -> Adapter:
    """Fit one method on a store: `.lambdas[label]`, `.accuracy`, `.history`, `.predict(images)`, `.save(folder)`.

    Trains on the training split, chooses on the validation split, and looks once at the test split. Every argument is
    that of `residualign.scaling.fit.fit`, which gives the same as a bare result.
    """
    result = fit_method(
        store,
        method,
        spectra,
        classifier=classifier,
        solver=solver,
        mean=mean,
        rest=rest,
        start=start,
        shots=shots,
        threshold=threshold,
        seed=seed,
        dtype=dtype,
        max_bytes=max_bytes,
    )
    return adapter_from_fit(result, store, spectra)
