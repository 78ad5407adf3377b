"""Fit a method on a store: read, build the linear model, solve, evaluate once on the test split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.classification.classifier import Classifier, store_classifier
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.fitting.coefficients import MAX_BYTES, Scaling, adapted_output, build_features
from residualign.fitting.methods import Loss, Method, build_scaling, get_method, start_parameters
from residualign.fitting.objective import Objective, Parameters
from residualign.fitting.solvers import Solution, Solver, default_solver
from residualign.spectrum.moments import Moments
from residualign.store.protocols import SplitLike, StoreLike

if TYPE_CHECKING:
    from residualign.spectrum.spectrum import Spectra

__all__ = ["FitResult", "LabelledCoordinates", "SplitLike", "StoreLike", "few_shots", "fit", "read_split"]


@dataclass(frozen=True)
class FitResult:
    """A fitted method: everything needed to adapt embeddings and to classify them.

    scaling: which components of which units are scaled, and what becomes of the rest. learned: what was fitted, by
    group (`lambdas` joined over units, `map` and `bias`, `class_residual`); where a common factor of the lambdas
    changes no cosine they are divided by their root mean square. classifier: class vectors (a class residual
    included) and logit scale for adapted embeddings; base_classifier: those before adapting. accuracy: shares in
    [0, 1] or None without test images: `zero_shot` and `adapted` on test, `val` of the chosen point. parameters:
    learned scales and weights, nothing else. epochs: passes over the training images. seconds: of fitting, evaluation
    included. settings: JSON-able.
    """

    method: str
    scaling: Scaling
    learned: Parameters
    classifier: Classifier
    base_classifier: Classifier
    accuracy: dict[str, float | None]
    parameters: int
    epochs: int
    learning_rate: float | None
    history: tuple[dict[str, Any], ...]
    seconds: float
    settings: dict[str, Any]

    @property
    def lambdas(self) -> dict[str, Tensor]:
        """Lambdas of every scaled unit by label; empty for a method without any."""
        return self.scaling.split(self.learned["lambdas"]) if "lambdas" in self.learned else {}

    def adapted(self, coordinates: Coordinates, maps: UnitMaps) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalised."""
        dtype = self.classifier.vectors.dtype
        if "lambdas" in self.learned:
            adapted = adapted_output(coordinates, maps, self.scaling, self.learned["lambdas"].to(dtype))
        else:
            adapted = coordinates.output.to(dtype)
        if "map" in self.learned:
            adapted = torch.addmm(self.learned["bias"].to(dtype), adapted, self.learned["map"].to(dtype))
        return adapted

    def logits(self, coordinates: Coordinates, maps: UnitMaps) -> Float[Tensor, "image class"]:
        """Logits of adapted embeddings."""
        return self.classifier.logits(self.adapted(coordinates, maps))


def fit(
    store: StoreLike,
    method: str = "residual",
    spectra: Spectra | None = None,
    *,
    classifier: Classifier | str | None = None,
    solver: Solver | str | None = None,
    mean: str | None = None,
    rest: str | None = None,
    start: str = "ones",
    shots: int | None = None,
    threshold: float = 0.9,
    loss: str = "softmax",
    seed: int = 0,
    scaling: Scaling | None = None,
    dtype: torch.dtype = torch.float32,
    max_bytes: int = MAX_BYTES,
) -> FitResult:
    """Fit one method on the training split, choose on the validation split, evaluate once on the test split.

    spectra: the components to scale; None takes those of the training images at hand. classifier: "text", "means" or
    a ready one; None takes text where the store has class vectors from text, else means. solver: "lbfgs",
    "schedule-free" or one with its settings; None takes the method's default. mean, rest: see `Scaling`; None takes
    the method's default (see `METHODS`). start: lambdas begin at ones, or at 1 + N(0, 1). shots: that many training
    and at most four validation images a class. threshold: the share of variance `residual-heads` keeps. loss:
    "softmax", or "sigmoid" with a model trained so (SigLIP): each class by itself, with its logit bias. scaling: what
    the lambdas multiply, in place of what the method makes of the spectra (mean, rest and threshold then change
    nothing). max_bytes: above it coefficients are recomputed per batch. Deterministic given the seed. `BadInputError`
    for unusable input, `RunError` where the loss is not finite. Source: arXiv 2411.00246 sections 3 and 5;
    docs/solver_study.md for the defaults.
    """
    began = time.perf_counter()
    chosen = get_method(method)
    train, val = (read_split(store, name, shots, seed) for name in ("train", "val"))
    base = store_classifier(store, classifier, train.labelled_embeddings, val.labelled_embeddings, dtype)
    if spectra is None:
        spectra = _own_spectra(train, store.maps)
    if scaling is None:
        scaling = build_scaling(chosen, spectra, mean, rest, threshold)
    if loss not in get_args(Loss):
        raise BadInputError(f"loss is one of {', '.join(get_args(Loss))}, got {loss!r}")
    bias = base.required_bias() if loss == "sigmoid" else None
    objectives = _objectives(train, val, store.maps, scaling, base, bias, dtype, max_bytes)
    parameters = start_parameters(chosen, scaling, len(base.class_names), store.maps.dim, start, seed)
    parameters = {name: value.to(objectives[0].class_vectors) for name, value in parameters.items()}
    used = default_solver(chosen, solver)
    solution = used.solve(*objectives, parameters, seed)
    learned = _presentable(solution.parameters, scaling)
    return _finish(
        store,
        FitResult(
            method=chosen.name,
            scaling=scaling,
            learned=learned,
            classifier=_with_residual(base, learned, dtype),
            base_classifier=base,
            accuracy={"val": solution.score.accuracy},
            parameters=sum(value.numel() for value in learned.values()),
            epochs=solution.epochs,
            learning_rate=solution.learning_rate,
            history=solution.history,
            seconds=0.0,
            settings=_settings(chosen, scaling, used, solution, base, spectra, start, shots, threshold, seed)
            | {"loss": loss, "n_train": len(train), "n_val": len(val)},
        ),
        began,
    )


def _own_spectra(train: LabelledCoordinates, maps: UnitMaps) -> Spectra:
    moments = Moments.empty(maps)
    moments.update(train.coordinates)
    return moments.spectra(maps, source="training split")


def _objectives(
    train: LabelledCoordinates,
    val: LabelledCoordinates,
    maps: UnitMaps,
    scaling: Scaling,
    base: Classifier,
    logit_bias: float | None,
    dtype: torch.dtype,
    max_bytes: int,
) -> tuple[Objective, Objective]:
    """The objective on the training images (class means leave each image out) and on the validation images."""
    own = None
    if base.counts is not None:
        if not torch.equal(base.counts, torch.bincount(train.labels, minlength=len(base.counts))):
            raise BadInputError(
                "the class means given were made from other images than these training images, so an image cannot be "
                "left out of its own class mean while fitting"
            )
        own = base.leave_one_out(train.coordinates.output, train.labels).to(dtype)
    vectors = base.vectors.to(dtype)
    features = (build_features(part.coordinates, maps, scaling, dtype, max_bytes) for part in (train, val))
    return (
        Objective(next(features), train.labels, vectors, base.logit_scale, own, logit_bias=logit_bias),
        Objective(next(features), val.labels, vectors, base.logit_scale, logit_bias=logit_bias),
    )


def _presentable(parameters: Mapping[str, Tensor], scaling: Scaling) -> Parameters:
    """Lambdas over their root mean square where a common factor means nothing; everything else as it is."""
    learned = {name: value.detach() for name, value in parameters.items()}
    if scaling.scale_free and "lambdas" in learned:
        learned["lambdas"] = learned["lambdas"] / learned["lambdas"].square().mean().sqrt()
    return learned


def _with_residual(base: Classifier, learned: Parameters, dtype: torch.dtype) -> Classifier:
    """The classifier for adapted embeddings; a class residual ends its tie to sums of training images."""
    vectors = base.vectors.to(dtype)
    if "class_residual" not in learned:
        return replace(base, vectors=vectors)
    return replace(base, vectors=F.normalize(vectors + learned["class_residual"], dim=-1), sums=None, counts=None)


def _finish(store: StoreLike, result: FitResult, began: float) -> FitResult:
    """The one look at the test split."""
    test = store.split("test")
    accuracy: dict[str, float | None] = {"zero_shot": None, "adapted": None, **result.accuracy}
    if len(test) > 0:
        coordinates, labels = test.coordinates(), test.labels
        for name, logits in (
            ("zero_shot", result.base_classifier.logits(coordinates.output)),
            ("adapted", result.logits(coordinates, store.maps)),
        ):
            accuracy[name] = float((logits.argmax(dim=-1) == labels).double().mean())
    settings = result.settings | {"n_test": len(test)}
    return replace(result, accuracy=accuracy, settings=settings, seconds=time.perf_counter() - began)


def _settings(
    method: Method,
    scaling: Scaling,
    solver: Solver,
    solution: Solution,
    base: Classifier,
    spectra: Spectra,
    start: str,
    shots: int | None,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """How the result came about, JSON-able; None where a method has no such choice."""
    return {
        "classifier": base.kind,
        "logit_scale": base.logit_scale,
        "spectra": spectra.source,
        "solver": solver.name,
        **solution.chosen,
        "mean": None if method.mean is None else scaling.mean,
        "rest": None if method.rest is None else scaling.rest,
        "start": start,
        "shots": shots,
        "threshold": threshold if method.name == "residual-heads" else None,
        "seed": seed,
    }


MAX_VAL_SHOTS = 4


@dataclass(frozen=True)
class LabelledCoordinates:
    """Coordinates of some images and their labels, (image,)."""

    coordinates: Coordinates
    labels: Int[Tensor, " image"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled_embeddings(self) -> tuple[Tensor, Tensor]:
        """The model's own embeddings and the labels."""
        return self.coordinates.output, self.labels


def few_shots(labels: Int[Tensor, " image"], shots: int, seed: int) -> Int[Tensor, " chosen"]:
    """Indices, ascending, of `shots` random images a class; a class with fewer gives all it has.

    Deterministic from the seed; the images of one class do not depend on how many other classes there are.
    """
    if shots < 1:
        raise BadInputError(f"shots is the number of training images a class, at least 1, got {shots}")
    chosen = []
    for label in sorted(set(labels.tolist())):
        generator = torch.Generator().manual_seed(seed)
        of_class = (labels == label).nonzero().flatten()
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:shots]])
    return torch.cat(chosen).sort().values if chosen else labels.new_zeros(0)


def read_split(store: StoreLike, name: str, shots: int | None = None, seed: int = 0) -> LabelledCoordinates:
    """One split in memory; with shots, that many images a class (at most 4 of the validation split)."""
    split = store.split(name)
    if len(split) == 0:
        raise BadInputError(f"fitting needs {name} images, the store has none")
    coordinates, labels = split.coordinates(), split.labels
    if shots is None:
        return LabelledCoordinates(coordinates, labels)
    chosen = few_shots(labels, min(shots, MAX_VAL_SHOTS) if name == "val" else shots, seed)
    return LabelledCoordinates(coordinates[chosen], labels[chosen])
