"""Accuracy of a classifier on labeled images, with intervals, and the difference between two classifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest, norm
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign._messages import interval, percent, plural, points
from residualign._result import Result, Table
from residualign.data.same_names import matched
from residualign.errors import BadInputError
from residualign.models.finite import is_finite

__all__ = [
    "ClassAccuracy",
    "Comparison",
    "Evaluation",
    "Interval",
    "compare",
    "evaluate",
    "expected_calibration_error",
    "match_classes",
    "wilson_interval",
]

CALIBRATION_BINS = 15

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: number of images, accuracy on them (None without any), its Wilson 95 % interval."""

    name: str
    n: int
    accuracy: float | None
    interval: Interval | None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """A classifier on n labeled images; shares in [0, 1].

    interval: Wilson 95 % interval of the accuracy. macro_accuracy: mean over classes with images. per_class: in the
    order of the classifier. calibration_error: see `expected_calibration_error`. cross_entropy: mean, in nats.
    confusion: (class, class) counts, true class by predicted class.
    """

    n: int
    accuracy: float
    interval: Interval
    macro_accuracy: float
    calibration_error: float
    cross_entropy: float
    per_class: tuple[ClassAccuracy, ...]
    confusion: Int[Tensor, "class class"]

    @property
    def tables(self) -> dict[str, Table]:
        """`classes`: one row per class."""
        rows = []
        for one in self.per_class:
            low, high = one.interval or (None, None)
            rows.append({"class": one.name, "n": one.n, "accuracy": one.accuracy, "low": low, "high": high})
        return {"classes": rows}

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def _summary(self) -> str:
        return f"accuracy {percent(self.accuracy)} ({interval(*self.interval)}) on {plural(self.n, 'image')}"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Two classifiers on the same images.

    difference: accuracy after minus before; interval: its paired 95 % interval. p_value: McNemar's exact test,
    two-sided. only_before, only_after: number of images that only the classifier before, or after, gets right.
    """

    before: Evaluation
    after: Evaluation
    difference: float
    interval: Interval
    p_value: float
    only_before: int
    only_after: int

    @property
    def tables(self) -> dict[str, Table]:
        """`classes`: accuracy before and after, one row per class."""
        pairs = zip(self.before.per_class, self.after.per_class, strict=True)
        return {"classes": [{"class": a.name, "n": a.n, "before": a.accuracy, "after": b.accuracy} for a, b in pairs]}

    def _summary(self) -> str:
        accuracies = (
            f"{percent(self.before.accuracy)} -> {percent(self.after.accuracy)} on {plural(self.after.n, 'image')}"
        )
        return f"accuracy {accuracies}, {points(self.difference)}, p = {self.p_value:.2g}"

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        names = ("difference", "interval", "p_value", "only_before", "only_after")
        evaluated = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {name: getattr(self, name) for name in names} | evaluated


def evaluate(
    logits: Float[Tensor, "image class"], labels: Int[Tensor, " image"], class_names: Sequence[str]
) -> Evaluation:
    """Evaluate logits against labels, indices into class_names.

    `BadInputError` without images and for a label that has no name.
    """
    _check(logits, labels, class_names)
    n_classes = len(class_names)
    log_probabilities = logits.double().log_softmax(dim=-1)
    predicted = log_probabilities.argmax(dim=-1)
    pairs = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    confusion = pairs.view(n_classes, n_classes).cpu()
    counts, found = confusion.sum(dim=1).tolist(), confusion.diagonal().tolist()
    per_class = tuple(
        ClassAccuracy(name, n, right / n if n else None, wilson_interval(right, n) if n else None)
        for name, right, n in zip(class_names, found, counts, strict=True)
    )
    shares = [entry.accuracy for entry in per_class if entry.accuracy is not None]
    correct = sum(found)
    return Evaluation(
        n=len(labels),
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
        macro_accuracy=sum(shares) / len(shares),
        calibration_error=expected_calibration_error(log_probabilities.exp(), labels),
        cross_entropy=F.nll_loss(log_probabilities, labels).item(),
        per_class=per_class,
        confusion=confusion,
    )


def compare(
    before: Float[Tensor, "image class"],
    after: Float[Tensor, "image class"],
    labels: Int[Tensor, " image"],
    class_names: Sequence[str],
    confidence: float = 0.95,
) -> Comparison:
    """Two sets of logits of the same images.

    The interval is Bonett and Price's adjusted Wald interval for paired proportions (Journal of Educational and
    Behavioral Statistics 37, 2012): one image is added to each kind of disagreement, so that few or no disagreements
    still give a sensible width.
    """
    evaluated = evaluate(before, labels, class_names), evaluate(after, labels, class_names)
    right_before, right_after = (logits.argmax(dim=-1) == labels for logits in (before, after))
    only_before, only_after = int((right_before & ~right_after).sum()), int((right_after & ~right_before).sum())
    n = len(labels) + 2
    lost, won = (only_before + 1) / n, (only_after + 1) / n
    half = float(norm.ppf(0.5 + confidence / 2)) * math.sqrt((lost + won - (won - lost) ** 2) / n)
    disagreements = only_before + only_after
    return Comparison(
        *evaluated,
        difference=(only_after - only_before) / len(labels),
        interval=(max(-1.0, won - lost - half), min(1.0, won - lost + half)),
        p_value=float(binomtest(only_after, disagreements).pvalue) if disagreements else 1.0,
        only_before=only_before,
        only_after=only_after,
    )


def match_classes(known: Sequence[str], wanted: Sequence[str]) -> Int[Tensor, " class"]:
    """Index into `known` of every name of `wanted`; `BadInputError` listing the missing ones.

    `residualign.data.same_names` tells which names are the same.
    """
    found = matched(wanted, known)
    missing = [name for name, index in zip(wanted, found, strict=True) if index is None]
    if missing:
        raise BadInputError(
            f"the adapter does not know {len(missing)} of the data's {len(wanted)} classes: {_listed(missing)}; "
            f"it knows {_listed(known)}"
        )
    return torch.tensor(found, dtype=torch.int64)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(repr(name) for name in names[:10]) + more


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share, in [0, 1]. `BadInputError` outside 0 <= successes <= n, n > 0.

    Source: Wilson, Journal of the American Statistical Association 22, 1927; without continuity correction.
    """
    if not (n > 0 and 0 <= successes <= n and 0 < confidence < 1):
        raise BadInputError(f"an interval needs 0 <= successes <= n and n > 0, got {successes} of {n} at {confidence}")
    z = float(norm.ppf(0.5 + confidence / 2))
    share = successes / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # exactly 0 and 1 at the ends, which rounding would miss
    return (0.0 if successes == 0 else center - half, 1.0 if successes == n else center + half)


def expected_calibration_error(
    probabilities: Float[Tensor, "image class"], labels: Int[Tensor, " image"], bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: mean over images of |accuracy - mean confidence| of their bin, in [0, 1].

    Confidence is the largest probability. Bins have equal width, open below and closed above: (0, 1/15], (1/15, 2/15],
    and so on. Source: Guo et al. 1706.04599, section 2.
    """
    confidence, predicted = probabilities.double().max(dim=-1)
    right = (predicted == labels).double()
    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins
    index = torch.bucketize(confidence, edges)
    gaps = torch.zeros(bins, dtype=torch.float64, device=confidence.device).index_add_(0, index, right - confidence)
    return float(gaps.abs().sum() / len(labels))


def _check(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> None:
    if len(labels) == 0:
        raise BadInputError("evaluation needs labeled images, got none")
    if logits.shape[1] != len(class_names):
        raise BadInputError(f"logits have {logits.shape[1]} columns, expected one for each of {len(class_names)} names")
    if not is_finite(logits):
        bad = int((~torch.isfinite(logits).all(dim=1)).sum())
        raise BadInputError(f"the logits of {bad} of {len(logits)} images are NaN or infinite; they have no class")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise BadInputError(f"labels are between {low} and {high}, expected 0 to {len(class_names) - 1}")
