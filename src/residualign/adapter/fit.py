"""From a store, or a model and data, to an adapter that predicts and can be saved: the public `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from residualign.adapter.adapter import Adapter
from residualign.adapter.compact import CompactScaling
from residualign.classification.classifier import Classifier, ClassifierKind
from residualign.data.split import ImageData
from residualign.decomposition.coordinates import UnitMaps
from residualign.extraction import Progress, stored
from residualign.fitting.coefficients import MAX_BYTES, MeanMode, RestMode
from residualign.fitting.fit import FitSettings, Fitted, fit_method
from residualign.fitting.methods import Loss, StartMode, get_method
from residualign.fitting.solvers import Solver
from residualign.models.vision_model import VisionModel
from residualign.spectrum.spectrum import Spectra
from residualign.store import Store

__all__ = ["adapter_from_fit", "fit"]


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
    """Fit one method: train on the training split, choose on validation, look once at the test split.

    Parameters
    ----------
    source : Store or VisionModel
        A store, or a model together with `data`.
    data : ImageData, optional
        With a model: its images go through the model once, into a temporary store. To fit again without another pass,
        `extract` first.
    method : str
        `residual`, `residual-heads`, `coarse`, `spectral-output`, `linear` or `joint`.
    spectra : Spectra, optional
        Whose principal components are scaled; None takes those of the training images.
    classifier : Classifier, "text" or "means", optional
        Class vectors. None takes text where the model has a text tower, else class means of the training images.
    solver : "lbfgs", "schedule-free", or one with its settings, optional
        None takes L-BFGS with the candidates of the method.
    mean : "drop" or "keep", optional
        Whether the means of scaled units are dropped, as in the paper, or added back. None: the method's default.
    rest : "keep", "mean" or "zero", optional
        What becomes of everything that is not scaled. None: the method's default.
    start : "ones" or "randn"
        Lambdas begin at one, or at 1 + N(0, 1).
    shots : int, optional
        Train on that many images per class (and at most four validation images per class).
    variance_threshold : float
        Share of variance, in (0, 1], that the components of `residual-heads` explain.
    loss : "softmax" or "sigmoid"
        The sigmoid loss needs a model that was trained with one (SigLIP).
    seed : int
        Random seed: of the start, of batches, and of which images `shots` takes.
    dtype : torch.dtype
        Floating-point type of the fit.
    max_bytes : int
        Above this size coefficients are computed again for every batch instead of being held.
    batch_size, workers, skip_bad, progress
        Those of `extract`; they do nothing with a store.

    Returns
    -------
    Adapter
        `.lambdas`, `.accuracy`, `.history`, `.predict(images)`, `.save(folder)`.

    Raises
    ------
    BadInputError
        For unusable input: an unknown method or option, a split without images, a class without training images.
    RunError
        If the loss is not finite.

    Notes
    -----
    Deterministic given the seed. A step costs two products of image x lambda x dim. Why these defaults:
    docs/solver_study.md.

    References
    ----------
    ResiDual: arXiv 2411.00246, sections 3 and 5. Sigmoid loss: arXiv 2303.15343, section 3.2.

    Examples
    --------
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


def adapter_from_fit(
    fitted: Fitted,
    maps: UnitMaps,
    model_info: Mapping[str, Any],
    spectra: Spectra | None = None,
    component_dtype: torch.dtype = torch.float16,
) -> Adapter:
    """The adapter of a fitted method.

    maps and model_info: those of the store it was fitted on. spectra: where the components are from; None means the
    training images. Components are rounded at once, so that a fresh adapter predicts what the
    saved one will.
    """
    settings = fitted.settings
    source = {"source": settings.get("spectra"), "fingerprint": None, "n_samples": settings.get("n_train")}
    if spectra is not None:
        source = {"source": spectra.source, "fingerprint": spectra.fingerprint, "n_samples": spectra.n_samples}
    return Adapter(
        **vars(fitted.record),
        scaling=CompactScaling.of(fitted.scaling, maps, component_dtype),
        learned={k: v.detach().float().cpu() for k, v in fitted.learned.items() if k != "class_residual"},
        classifier=_shipped(fitted.classifier),
        base_classifier=_shipped(fitted.base_classifier),
        history=fitted.history,
        spectra=source,
        model_info=dict(model_info),
        _store_maps=maps,
    )


def _shipped(classifier: Classifier) -> Classifier:
    """The classifier as it is stored: float32, without the sums that only fitting needs."""
    return Classifier(
        classifier.kind,
        tuple(classifier.class_names),
        classifier.vectors.detach().float().cpu(),
        float(classifier.logit_scale),
        logit_bias=classifier.logit_bias,
    )
