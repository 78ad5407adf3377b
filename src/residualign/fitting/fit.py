"""Fit a method on a store: read, build the linear model, solve, evaluate once on the test split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign._messages import percent
from residualign._result import Result, Table
from residualign.classification.classifier import Classifier, store_classifier
from residualign.decomposition.coordinates import Coordinates, UnitMaps, refuse_not_finite
from residualign.errors import BadInputError
from residualign.fitting.coefficients import MAX_BYTES, HasLambdas, Scaling, adapted_output, build_features
from residualign.fitting.methods import Loss, Method, build_scaling, check_choice, get_method, start_parameters
from residualign.fitting.objective import Objective, Parameters
from residualign.fitting.solvers import Solver, default_solver
from residualign.spectrum.moments import Moments
from residualign.spectrum.spectrum import Spectra
from residualign.store import Store, StoreSplit

__all__ = ["MAX_VAL_SHOTS", "Accuracy", "FitRecord", "FitSettings", "Fitted", "few_images", "few_shots", "fit_method"]

MAX_VAL_SHOTS = 4

# embeddings of equal images differ by less than this share of the largest number, from batch to batch
_ROUNDING = 1e-6


@dataclass(frozen=True)
class FitSettings:
    """All options of a fit; the public `fit` documents them.

    solver, mean and rest: None takes the method's default. max_bytes: above it coefficients are recomputed for every
    batch.
    """

    solver: Solver | str | None = None
    mean: str | None = None
    rest: str | None = None
    start: str = "ones"
    shots: int | None = None
    variance_threshold: float = 0.9
    loss: str = "softmax"
    seed: int = 0
    dtype: torch.dtype = torch.float32
    max_bytes: int = MAX_BYTES

    @classmethod
    def of_record(cls, settings: Mapping[str, Any]) -> FitSettings:
        """Mean, rest, shots, threshold and loss as the record of a fit has them."""
        names = {"mean": "mean", "rest": "rest", "shots": "shots", "threshold": "variance_threshold", "loss": "loss"}
        return cls(**{field: settings[name] for name, field in names.items() if settings.get(name)})


@dataclass(frozen=True, eq=False)
class Accuracy(Mapping[str, float | None]):
    """Accuracies of one fit, in [0, 1]; also a mapping from the names of these fields, as in JSON.

    zero_shot, adapted: on the test images, None without any. val, zero_shot_val: on the validation images, of the point
    that was chosen and before adapting; None where they were not measured.
    """

    zero_shot: float | None = None
    adapted: float | None = None
    val: float | None = None
    zero_shot_val: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Accuracy:
        """From JSON, which may be of an earlier version: what it lacks is None. `BadInputError` for other types."""
        known = {name: values.get(name) for name in cls.__dataclass_fields__}
        for name, value in known.items():
            if value is not None and not isinstance(value, int | float):
                raise BadInputError(f"accuracy {name!r} is a number or null; got {value!r:.40}")
        return cls(**known)

    def __getitem__(self, name: str) -> float | None:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        value: float | None = getattr(self, name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


@dataclass(frozen=True, repr=False)
class FitRecord(Result):
    """How a fit went: what fitting, the adapter and a run's summary have in common.

    parameters: number of learned scales and weights. epochs: passes over the training images. seconds: duration of the
    fit, evaluation included. settings: the options used, and the numbers of images.
    """

    method: str
    accuracy: Accuracy
    parameters: int
    epochs: int
    learning_rate: float | None
    seconds: float
    settings: dict[str, Any]

    @property
    def record(self) -> FitRecord:
        """The record alone, without what was learned."""
        return FitRecord(**{field.name: getattr(self, field.name) for field in fields(FitRecord)})

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {**vars(self.record), "accuracy": dict(self.accuracy)}

    @property
    def tables(self) -> dict[str, Table]:
        """`accuracy`: shares in [0, 1] before and after adapting."""
        n, of = self.settings.get, self.accuracy
        return {
            "accuracy": [
                {"images": "test", "n": n("n_test"), "before": of.zero_shot, "adapted": of.adapted},
                {"images": "validation", "n": n("n_val"), "before": of.zero_shot_val, "adapted": of.val},
            ]
        }

    def _summary(self) -> str:
        before, after = percent(self.accuracy.zero_shot), percent(self.accuracy.adapted)
        sizes = f"{self.settings.get('n_train', 0):,} training and {self.settings.get('n_test', 0):,} test images"
        return f"{self.method}, {self.parameters:,} numbers, {sizes}, accuracy {before} -> {after}"


@dataclass(frozen=True, eq=False, repr=False)
class Fitted(HasLambdas, FitRecord):
    """What was fitted, with its record.

    scaling: which components of which units are scaled, and what happens to the rest. learned: the fitted parameters by
    group (`lambdas` joined over units, `map` and `bias`, `class_residual`); lambdas are divided by their root mean
    square if a common factor changes no cosine. classifier: class vectors (with a class residual added) and logit scale
    for adapted embeddings; base_classifier: those before adapting. history: one record per validation.
    """

    scaling: Scaling
    learned: Parameters
    classifier: Classifier
    base_classifier: Classifier
    history: tuple[dict[str, Any], ...] = ()

    def adapted(self, coordinates: Coordinates, maps: UnitMaps) -> Float[Tensor, "image dim"]:
        """Adapted embeddings, not normalized."""
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


def fit_method(
    store: Store,
    method: str = "residual",
    spectra: Spectra | None = None,
    *,
    classifier: Classifier | str | None = None,
    settings: FitSettings | None = None,
    scaling: Scaling | None = None,
) -> Fitted:
    """Fit one method on the training split, choose on the validation split, evaluate once on the test split.

    spectra: the components to scale; None takes those of the training images used. classifier: "text", "means" or a
    ready-made one; None takes text if the store has class vectors from text, else means. scaling: what the lambdas
    multiply, instead of what the method makes of the spectra (mean, rest and variance threshold then change nothing).
    Deterministic given the seed. `BadInputError` for unusable input, `RunError` if the loss is not finite. Source:
    arXiv 2411.00246 sections 3 and 5; docs/solver_study.md for the defaults.
    """
    began = time.perf_counter()
    chosen, settings, maps = get_method(method), settings or FitSettings(), store.maps
    train, val = (few_images(store, settings.shots, settings.seed).split(name) for name in ("train", "val"))
    of_train, of_val = train.coordinates(), val.coordinates()
    refuse_not_finite(of_train)
    refuse_not_finite(of_val)
    base = store_classifier(
        store, classifier, (of_train.output, train.labels), (of_val.output, val.labels), settings.dtype
    )
    if spectra is None:
        spectra = Moments.empty(maps).update(of_train).spectra(maps, source="training split")
    if scaling is None:
        scaling = build_scaling(chosen, spectra, settings.mean, settings.rest, settings.variance_threshold)
    _refuse_no_variation(chosen, of_train, scaling, spectra)
    check_choice("loss", settings.loss, get_args(Loss))
    bias = base.required_bias() if settings.loss == "sigmoid" else None
    own, vectors = _own_vectors(base, of_train, train.labels, settings.dtype), base.vectors.to(settings.dtype)
    of_fitting, of_choosing = (
        Objective(
            build_features(coordinates, maps, scaling, settings.dtype, settings.max_bytes),
            split.labels,
            vectors,
            base.logit_scale,
            own if split is train else None,
            logit_bias=bias,
        )
        for split, coordinates in ((train, of_train), (val, of_val))
    )
    start = start_parameters(chosen, scaling, len(base.class_names), maps.dim, settings.start, settings.seed)
    solver = default_solver(chosen, settings.solver)
    start = {name: value.to(vectors) for name, value in start.items()}
    solution = solver.solve(of_fitting, of_choosing, start, settings.seed)
    learned = _presentable(solution.parameters, scaling)
    test = store.split("test")
    fitted = Fitted(
        method=chosen.name,
        accuracy=Accuracy(val=solution.score.accuracy, zero_shot_val=_accuracy(base.logits(of_val.output), val.labels)),
        parameters=sum(value.numel() for value in learned.values()),
        epochs=solution.epochs,
        learning_rate=solution.learning_rate,
        seconds=0.0,
        # how the result came about, JSON-able; None where a method has no such choice. These names are on disk
        settings={
            "classifier": base.kind,
            "logit_scale": base.logit_scale,
            "spectra": spectra.source,
            "solver": solver.name,
            **solution.chosen,
            "mean": None if chosen.mean is None else scaling.mean,
            "rest": None if chosen.rest is None else scaling.rest,
            "start": settings.start,
            "shots": settings.shots,
            "threshold": settings.variance_threshold if chosen.name == "residual-heads" else None,
            "seed": settings.seed,
            "loss": settings.loss,
            "n_train": len(train),
            "n_val": len(val),
            "n_test": len(test),
        },
        scaling=scaling,
        learned=learned,
        classifier=_with_residual(base, learned, settings.dtype),
        base_classifier=base,
        history=solution.history,
    )
    accuracy = replace(fitted.accuracy, **_test_accuracy(fitted, test))
    return replace(fitted, accuracy=accuracy, seconds=time.perf_counter() - began)


def few_shots(labels: Int[Tensor, " image"], shots: int, seed: int) -> Int[Tensor, " chosen"]:
    """Positions, ascending, of `shots` random images per class; a class with fewer contributes all it has.

    Deterministic given the seed; which images of a class are chosen does not depend on the other classes.
    """
    if shots < 1:
        raise BadInputError(f"shots is the number of training images per class, at least 1, got {shots}")
    chosen = []
    for label in sorted(set(labels.tolist())):
        generator = torch.Generator().manual_seed(seed)
        of_class = (labels == label).nonzero().flatten()
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:shots]])
    return torch.cat(chosen).sort().values if chosen else labels.new_zeros(0)


def few_images(store: Store, shots: int | None, seed: int = 0) -> Store:
    """The store with `shots` training and at most four validation images per class; None takes all.

    `BadInputError` if the training or the validation split is empty.
    """
    for name in ("train", "val"):
        if len(store.split(name)) == 0:
            raise BadInputError(f"fitting needs {name} images, the store has none")
    if shots is None:
        return store
    counts = {"train": shots, "val": min(shots, MAX_VAL_SHOTS)}
    return store.subset({name: few_shots(store.split(name).labels, n, seed) for name, n in counts.items()})


def _refuse_no_variation(method: Method, of_train: Coordinates, scaling: Scaling, spectra: Spectra) -> None:
    """`BadInputError` where all training images are the same to the model, or no component is left to scale."""
    output = of_train.output
    if float((output - output[0]).abs().max()) <= _ROUNDING * float(output.abs().max()):
        raise BadInputError(
            f"nothing varies: all {len(output):,} training images have the same embedding, so there is nothing to fit; "
            "expected different images"
        )
    if "lambdas" in method.learns and not scaling.n_lambdas:
        n = spectra.output.n_samples
        seen = "1 image" if n == 1 else f"{n:,} images, all the same to the model"
        raise BadInputError(
            f"nothing varies: the spectra ({spectra.source}) are of {seen}, so they have no components that "
            f"{method.name!r} could scale; take spectra of several different images"
        )


def _own_vectors(base: Classifier, coordinates: Coordinates, labels: Tensor, dtype: torch.dtype) -> Tensor | None:
    """For class means, each training image's own class vector made without that image; None for text."""
    if base.counts is None:
        return None
    if not torch.equal(base.counts, torch.bincount(labels, minlength=len(base.counts))):
        raise BadInputError(
            "the class means given were made from other images than these training images, so an image cannot be "
            "left out of its own class mean while fitting"
        )
    return base.leave_one_out(coordinates.output, labels).to(dtype)


def _presentable(parameters: Mapping[str, Tensor], scaling: Scaling) -> Parameters:
    """The parameters, with lambdas divided by their root mean square if a common factor changes no cosine."""
    learned = {name: value.detach() for name, value in parameters.items()}
    if scaling.scale_free and "lambdas" in learned:
        learned["lambdas"] = learned["lambdas"] / learned["lambdas"].square().mean().sqrt()
    return learned


def _with_residual(base: Classifier, learned: Parameters, dtype: torch.dtype) -> Classifier:
    """The classifier for adapted embeddings; once a class residual is added, its vectors are not class means."""
    vectors = base.vectors.to(dtype)
    if "class_residual" not in learned:
        return replace(base, vectors=vectors)
    return replace(base, vectors=F.normalize(vectors + learned["class_residual"], dim=-1), sums=None, counts=None)


def _test_accuracy(fitted: Fitted, test: StoreSplit) -> dict[str, float | None]:
    """Accuracy before and after adapting: the only look at the test split. Empty without test images."""
    if not len(test):
        return {}
    coordinates = test.coordinates()
    logits = {
        "zero_shot": fitted.base_classifier.logits(coordinates.output),
        "adapted": fitted.logits(coordinates, test.store.maps),
    }
    return {name: _accuracy(of, test.labels) for name, of in logits.items()}


def _accuracy(logits: Float[Tensor, "image class"], labels: Int[Tensor, " image"]) -> float:
    return float((logits.argmax(dim=-1) == labels).double().mean())
