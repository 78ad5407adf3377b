"""The public `fit`: from a store, or from a model and data, to an adapter that predicts and can be saved."""

from __future__ import annotations

import torch

from residualign.adapter.adapter import Adapter, adapter_from_fit
from residualign.classification.classifier import Classifier, ClassifierKind
from residualign.data.split import ImageData
from residualign.extraction import Progress, stored
from residualign.fitting.coefficients import MAX_BYTES, MeanMode, RestMode
from residualign.fitting.fit import StoreLike
from residualign.fitting.fit import fit as fit_method
from residualign.fitting.methods import Loss, StartMode, get_method
from residualign.fitting.solvers import Solver
from residualign.models.vision_model import VisionModel
from residualign.spectrum.spectrum import Spectra

__all__ = ["fit"]


def fit(
    source: StoreLike | VisionModel,
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
    threshold: float = 0.9,
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
    argument is that of `residualign.fitting.fit.fit`, which gives the same as a bare result.

    >>> import residualign as ra
    >>> adapter = ra.fit(ra.load_model("mini"), ra.load_data("digits"), "residual-heads", shots=2, workers=0)
    >>> len(adapter.lambdas)
    36
    """
    get_method(method)
    with stored(source, data, batch_size=batch_size, workers=workers, skip_bad=skip_bad, progress=progress) as store:
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
            loss=loss,
            seed=seed,
            dtype=dtype,
            max_bytes=max_bytes,
        )
        return adapter_from_fit(result, store, spectra)
