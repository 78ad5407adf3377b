"""Classifiers on an embedding: class vectors from text or class means with one logit scale, and the linear probe.

Logits are `logit_scale * cosine(embedding, class vector)` for every model and every method; the linear probe is the
baseline of every method.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign._messages import plural, sentence
from residualign.errors import BadInputError, refuse_bare_text
from residualign.store import Store

__all__ = [
    "Classifier",
    "CoincidentClassesWarning",
    "Labeled",
    "LinearProbe",
    "choose_logit_scale",
    "class_means",
    "linear_probe",
    "store_classifier",
    "text_classifier",
    "zero_shot_vectors",
]

ClassifierKind = Literal["text", "means"]

Labeled = tuple[Tensor, Tensor]
"""Embeddings (image, dim) and labels (image,)."""

STRENGTHS = tuple(10.0**exponent for exponent in range(-2, 5))
"""Inverse regularization strengths that the linear probe tries."""

COINCIDENT_COSINE = 0.995
"""Two text class vectors with a larger cosine count as coincident: real CLIP text towers keep even fine-grained classes
below it; words outside a small vocabulary are above it."""

LOGIT_SCALES = (1.0, 1000.0)
"""Range searched for the logit scale of class means; trained CLIP models have at most 100."""


class CoincidentClassesWarning(UserWarning):
    """Text class vectors nearly coincide: no scaling of image embeddings can tell such classes apart."""


@dataclass(frozen=True, repr=False)
class Classifier:
    """Unit class vectors and a logit scale.

    Attributes
    ----------
    kind : "text" or "means"
        What the class vectors are made from.
    class_names : tuple of str
        In the order of the rows of `vectors`.
    vectors : (class, dim) tensor
        Unit rows.
    logit_scale : float
        Positive factor on cosines.
    sums : (class, dim) tensor or None
        Sum of the unit training embeddings of each class, only for `kind="means"` (leave-one-out).
    counts : (class,) tensor or None
        Number of training images of each class.
    logit_bias : float or None
        Of a model trained with a sigmoid loss (SigLIP). The same for every class, so it changes neither the order nor
        the softmax; `sigmoid` adds it.

    Raises
    ------
    BadInputError
        If the shapes do not fit, or the logit scale is not positive.
    """

    kind: ClassifierKind
    class_names: tuple[str, ...]
    vectors: Float[Tensor, "class dim"]
    logit_scale: float
    sums: Float[Tensor, "class dim"] | None = None
    counts: Int[Tensor, " class"] | None = None
    logit_bias: float | None = None

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.shape[0] != len(self.class_names):
            raise BadInputError(
                f"expected one class vector for each of {len(self.class_names)} classes, "
                f"got vectors of shape {tuple(self.vectors.shape)}"
            )
        if not (math.isfinite(self.logit_scale) and self.logit_scale > 0):
            raise BadInputError(f"the logit scale must be a positive number, got {self.logit_scale}")

    def __repr__(self) -> str:
        n, dim = self.vectors.shape
        return (
            f"Classifier({self.kind}, {plural(n, 'class', 'classes')}, dim {dim}, logit scale {self.logit_scale:.4g})"
        )

    def logits(self, embeddings: Float[Tensor, "image dim"]) -> Float[Tensor, "image class"]:
        """Cosine with every class vector times the logit scale, (image, class); embeddings need not be normalized."""
        vectors = self.vectors.to(embeddings)
        return self.logit_scale * (F.normalize(embeddings, dim=-1) @ vectors.T)

    def sigmoid(self, logits: Float[Tensor, "image class"]) -> Float[Tensor, "image class"]:
        """Each class's own probability; rows do not sum to one.

        Parameters
        ----------
        logits : (image, class) tensor
            As `logits` gives them.

        Returns
        -------
        (image, class) tensor
            Probabilities in [0, 1].

        Raises
        ------
        BadInputError
            For a model that was not trained with a sigmoid loss.

        References
        ----------
        SigLIP: arXiv 2303.15343, algorithm 1.
        """
        return torch.sigmoid(logits + self.required_bias())

    def required_bias(self) -> float:
        """The logit bias; `BadInputError` if there is none."""
        if self.logit_bias is None:
            raise BadInputError(
                "the sigmoid needs a logit bias, which only text classifiers of models trained with a sigmoid loss "
                "(SigLIP) have; use the softmax"
            )
        return self.logit_bias

    def leave_one_out(
        self, embeddings: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]
    ) -> Float[Tensor, "image dim"]:
        """Unit vector of each image's own class, made without that image.

        Parameters
        ----------
        embeddings : (image, dim) tensor
            All or some of those the class means were made from, in any order.
        labels : (image,) int tensor
            Indices into `class_names`.

        Returns
        -------
        (image, dim) tensor
            Unit rows.

        Raises
        ------
        BadInputError
            For a text classifier, and where a class has only one training image.

        Notes
        -----
        Costs O(image x dim).
        """
        if self.sums is None or self.counts is None:
            raise BadInputError("leaving an image out needs class means; text class vectors are not made of images")
        lonely = [name for name, count in zip(self.class_names, self.counts.tolist(), strict=True) if count == 1]
        if lonely:
            raise BadInputError(
                f"class {lonely[0]!r} has one training image: its class mean without that image does not exist, so "
                "class means cannot be fitted (give at least two images per class, or use text class vectors)"
            )
        return F.normalize(self.sums.to(embeddings)[labels] - F.normalize(embeddings, dim=-1), dim=-1)


def zero_shot_vectors(
    encode_text: Callable[[list[str]], Tensor],
    class_names: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> Float[Tensor, "class dim"]:
    """Class vectors from text: the mean over templates of unit text vectors, normalized again.

    encode_text turns texts into (text, dim), normalized or not; a template has one `{}` for the class name.
    Source: Radford et al. 2103.00020, section 3.1.4 (prompt ensembling in embedding space).
    """
    refuse_bare_text("class_names", class_names)
    refuse_bare_text("templates", templates)
    if not class_names or not templates:
        raise BadInputError("zero-shot class vectors need at least one class name and one template")
    for template in templates:
        if template.count("{}") != 1:
            raise BadInputError(f"a template needs one {{}} where the class name goes, got {template!r}")
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    with torch.no_grad():
        encoded = [encode_text(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
    vectors = F.normalize(torch.cat(encoded), dim=-1)
    return F.normalize(vectors.reshape(len(class_names), len(templates), -1).mean(dim=1), dim=-1)


def text_classifier(
    vectors: Float[Tensor, "class dim"],
    class_names: Sequence[str],
    logit_scale: float,
    logit_bias: float | None = None,
) -> Classifier:
    """A classifier on text class vectors, with the model's own logit scale, and logit bias if it has one.

    Warns (`CoincidentClassesWarning`) if two vectors nearly coincide (cosine above `COINCIDENT_COSINE`).
    """
    unit = F.normalize(vectors, dim=-1)
    classifier = Classifier("text", tuple(class_names), unit, float(logit_scale), logit_bias=logit_bias)
    cosine = (classifier.vectors @ classifier.vectors.T).fill_diagonal_(-1.0)
    pairs = (cosine.triu(diagonal=1) > COINCIDENT_COSINE).nonzero().tolist()
    if pairs:
        first, second = (classifier.class_names[i] for i in pairs[0])
        warnings.warn(
            sentence(
                f"the text vectors of {first!r} and {second!r} nearly coincide (cosine {cosine[tuple(pairs[0])]:.4f}; "
                f"{len(pairs)} such pairs): the text tower may not know these words; consider --classifier means"
            ),
            CoincidentClassesWarning,
            stacklevel=2,
        )
    return classifier


def class_means(
    embeddings: Float[Tensor, "image dim"],
    labels: Int[Tensor, " image"],
    class_names: Sequence[str],
    logit_scale: float = 1.0,
) -> Classifier:
    """A classifier on class means: the mean of unit training embeddings of a class, normalized again.

    Normalized first because long embeddings would otherwise dominate their class. `BadInputError` naming a class
    without training images. The scale is chosen afterwards, see `choose_logit_scale`.
    """
    n_classes = len(class_names)
    counts = torch.bincount(labels, minlength=n_classes)
    if counts.shape[0] > n_classes:
        raise BadInputError(f"label {counts.shape[0] - 1} has no name among {plural(n_classes, 'class', 'classes')}")
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise BadInputError(f"class {class_names[empty[0]]!r} has no training images, so it has no class mean")
    unit = F.normalize(embeddings, dim=-1)
    sums = unit.new_zeros(n_classes, unit.shape[1]).index_add_(0, labels, unit)
    return Classifier("means", tuple(class_names), F.normalize(sums, dim=-1), float(logit_scale), sums, counts)


def choose_logit_scale(
    classifier: Classifier, embeddings: Float[Tensor, "image dim"], labels: Int[Tensor, " image"]
) -> Classifier:
    """The classifier with the logit scale of lowest cross-entropy on these (validation) images.

    A log grid over `LOGIT_SCALES` brackets the minimum, a bounded scalar search refines it. Deterministic.
    """
    if len(labels) == 0:
        raise BadInputError("choosing the logit scale needs validation images, got none")
    cosine = replace(classifier, logit_scale=1.0).logits(embeddings.double())

    def loss(log_scale: float) -> float:
        return F.cross_entropy(math.exp(log_scale) * cosine, labels).item()

    low, high = (math.log(scale) for scale in LOGIT_SCALES)
    grid = torch.linspace(low, high, 25, dtype=torch.float64).tolist()
    best = min(range(len(grid)), key=lambda i: loss(grid[i]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return replace(classifier, logit_scale=math.exp(min((float(found.x), grid[best]), key=loss)))


def store_classifier(
    store: Store, wanted: Classifier | str | None, train: Labeled, val: Labeled, dtype: torch.dtype
) -> Classifier:
    """The wanted classifier; class means are made from the training images, their scale is chosen on validation.

    wanted: "text", "means" or a ready-made one; None takes text if the store has class vectors from text. dtype: of the
    class means. `BadInputError` for any other name, and for text if the store has no text vectors.
    """
    if isinstance(wanted, Classifier):
        return wanted
    kind = wanted or ("means" if store.text_vectors is None else "text")
    if kind == "means":
        means = class_means(train[0].to(dtype), train[1], store.class_names)
        return choose_logit_scale(means, *val)
    if kind != "text":
        raise BadInputError(f"classifier is 'text' or 'means', got {wanted!r}")
    if store.text_vectors is None or store.logit_scale is None:
        raise BadInputError("the store has no class vectors from text (a model without text tower): use means")
    return text_classifier(store.text_vectors, store.class_names, store.logit_scale, store.logit_bias)


@dataclass(frozen=True)
class LinearProbe:
    """The chosen probe: accuracies in [0, 1], inverse regularization C, number of parameters, seconds of all fits."""

    accuracy: float | None
    val_accuracy: float
    strength: float
    parameters: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        own = {name: getattr(self, name) for name in ("parameters", "strength", "seconds")}
        return {"accuracy": self.accuracy, "val": self.val_accuracy, **own}


def linear_probe(
    train: Labeled,
    val: Labeled,
    test: Labeled | None = None,
    strengths: Sequence[float] = STRENGTHS,
    max_iterations: int = 300,
) -> LinearProbe:
    """Logistic regression on unit embeddings, C chosen by validation accuracy (ties: the smaller C).

    Test images are evaluated once, with the chosen C. Deterministic. Source: Radford et al. 2103.00020, appendix A.3,
    here on unit embeddings, as for cosine classifiers. `BadInputError` for a single class.
    """
    # imported here: scikit-learn takes a second to load, and only the probe needs it
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(set(train[1].tolist())) < 2:
        raise BadInputError("a linear probe needs training images of at least two classes")
    began = time.perf_counter()
    x, val_x = (F.normalize(part[0].double(), dim=-1).numpy() for part in (train, val))
    probes = []
    for strength in sorted(strengths):
        probe = LogisticRegression(C=strength, max_iter=max_iterations)
        with warnings.catch_warnings():
            # a probe that has not converged is a fair candidate: validation judges it as it is
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(x, train[1].numpy())
        probes.append((probe.score(val_x, val[1].numpy()), strength, probe))
    val_accuracy, strength, best = max(probes, key=lambda entry: (entry[0], -entry[1]))
    accuracy = None
    if test is not None:
        accuracy = float(best.score(F.normalize(test[0].double(), dim=-1).numpy(), test[1].numpy()))
    parameters = best.coef_.size + best.intercept_.size
    return LinearProbe(accuracy, float(val_accuracy), strength, int(parameters), time.perf_counter() - began)
