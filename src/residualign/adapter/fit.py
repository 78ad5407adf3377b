"""The public `fit`: from a store, or from a model and data, to an adapter that predicts and can be saved."""

from __future__ import annotations

import torch

from residualign.adapter.adapter import Adapter, adapter_from_fit
from residualign.classification.classifier import Classifier, ClassifierKind
from residualign.data.split import ImageData
from residualign.extraction import Progress, stored
from residualign.fitting.coefficients import MAX_BYTES, MeanMode, RestMode
from residualign.fitting.fit import FitSettings, fit_method
from residualign.fitting.methods import Loss, StartMode, get_method
from residualign.fitting.solvers import Solver
from residualign.models.vision_model import VisionModel
from residualign.spectrum.spectrum import Spectra
from residualign.store import Store

__all__ = ["fit"]


def fit(
    source: Store | VisionModel,
    data: ImageData | None = None,
    method: str = "residual",
    spectra: Spectra | None = None,
    *,
    classifier: Classifier | ClassifierKind | None = None,
    solver: Solver | str | None = None,
    mean: MeanMode | None = None,
    rest: RestMode | None = None,
    start: StartMode = "ones",
    shots: int | None = None,
    variance_threshold: float = 0.9,
    loss: Loss = "softmax",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_bytes: int = MAX_BYTES,
    batch_size: int = 32,
    workers: int = 2,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Adapter:
    """Fit one method on a store, or on a model and data: `.lambdas`, `.accuracy`, `.predict(images)`, `.save(folder)`.

    Trains on the training split, chooses on the validation split, and looks once at the test split. From a model and
    data the one pass goes to a temporary store that is removed; to fit again without another pass, `extract` first.
    batch_size, workers, skip_bad and progress are those of `extract` and do nothing where a store is given; every other
    argument is that of `FitSettings`.

    >>> import residualign as ra
    >>> adapter = ra.fit(ra.load_model("mini"), ra.load_data("digits"), "residual-heads", shots=2, workers=0)
    >>> len(adapter.lambdas)
    36
    """
    get_method(method)
    settings = FitSettings(solver, mean, rest, start, shots, variance_threshold, loss, seed, dtype, max_bytes)
    with stored(source, data, batch_size=batch_size, workers=workers, skip_bad=skip_bad, progress=progress) as store:
        fitted = fit_method(store, method, spectra, classifier=classifier, settings=settings)
        return adapter_from_fit(fitted, store.maps, store.model, spectra)
