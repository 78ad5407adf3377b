"""From a store, or a model and data, to an adapter that predicts and can be saved: the public `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack, cast

import torch

from residualign.adapter.adapter import Adapter
from residualign.adapter.compact import CompactScaling
from residualign.classification.classifier import Classifier, ClassifierKind
from residualign.data.split import ImageData
from residualign.decomposition.coordinates import UnitMaps
from residualign.extraction import Reading, check_inputs, stored
from residualign.fitting.coefficients import MeanMode, RestMode
from residualign.fitting.fit import FitSettings, Fitted, fit_method
from residualign.fitting.methods import Loss, StartMode, get_method
from residualign.fitting.solvers import Solver
from residualign.models.vision_model import VisionModel
from residualign.spectrum.spectrum import Spectra
from residualign.store import Store

__all__ = ["FitOptions", "adapter_from_fit", "fit"]


class FitOptions(Reading, total=False):
    """Keywords of `fit` that are seldom changed; `fit` says what each means."""

    solver: Solver | str | None
    mean: MeanMode | None
    rest: RestMode | None
    start: StartMode
    loss: Loss
    dtype: torch.dtype
    max_bytes: int


def fit(
    source: Store | VisionModel,
    data: ImageData | None = None,
    method: str = "residual",
    spectra: Spectra | None = None,
    *,
    classifier: Classifier | ClassifierKind | None = None,
    shots: int | None = None,
    variance_threshold: float = 0.9,
    seed: int = 0,
    **options: Unpack[FitOptions],
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
    shots : int, optional
        Train on that many images per class (and at most four validation images per class).
    variance_threshold : float
        Share of variance, in (0, 1], that the components of `residual-heads` explain.
    seed : int
        Random seed: of the start, of batches, and of which images `shots` takes.
    **options
        - ``solver``: "lbfgs", "schedule-free", or one with its settings. None, the default, takes L-BFGS with the
          candidates of the method.
        - ``mean``: "drop" or "keep", whether the means of scaled units are dropped, as in the paper, or added back.
          None takes the default of the method.
        - ``rest``: "keep", "mean" or "zero", what becomes of everything that is not scaled. None takes the default of
          the method.
        - ``start``: "ones" (the default), or "randn": lambdas begin at 1 + N(0, 1).
        - ``loss``: "softmax" (the default), or "sigmoid", for a model that was trained with it (SigLIP).
        - ``dtype``: floating-point type of the fit, by default ``torch.float32``.
        - ``max_bytes``: above this size, by default 4 GiB, coefficients are computed again for every batch instead of
          being held.
        - ``batch_size``, ``workers``, ``skip_bad``, ``progress``: as in `extract`. They do nothing with a store.

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
    reading = cast(Reading, {name: value for name, value in options.items() if name in Reading.__annotations__})
    check_inputs(source, data, reading)
    get_method(method)
    chosen: dict[str, Any] = {name: value for name, value in options.items() if name not in reading}
    settings = FitSettings(shots=shots, variance_threshold=variance_threshold, seed=seed, **chosen)
    with stored(source, data, **reading) as store:
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
