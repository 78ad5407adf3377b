"""The linear probe: logistic regression on the same embeddings, the baseline beside every method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import BadInputError

__all__ = ["LinearProbe", "linear_probe"]

Labeled = tuple[Tensor, Tensor]
"""Embeddings (image, dim) and labels (image,)."""

STRENGTHS = tuple(10.0**exponent for exponent in range(-2, 5))


@dataclass(frozen=True)
class LinearProbe:
    """Accuracies in [0, 1] of the chosen probe, its inverse regularization C, weights and biases, seconds of all."""

    accuracy: float | None
    val_accuracy: float
    strength: float
    parameters: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "accuracy": self.accuracy,
            "val": self.val_accuracy,
            "parameters": self.parameters,
            "strength": self.strength,
            "seconds": self.seconds,
        }


def linear_probe(
    train: Labeled,
    val: Labeled,
    test: Labeled | None = None,
    strengths: Sequence[float] = STRENGTHS,
    max_iterations: int = 300,
) -> LinearProbe:
    """Logistic regression on unit embeddings, C chosen by validation accuracy (ties: the smaller C).

    The test split is looked at once, for the chosen C. Deterministic. Source: Radford et al. 2103.00020, appendix A.3,
    on unit embeddings as cosine classifiers see them. `BadInputError` for a single class.
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
            # a probe that is still creeping at its last iteration is a fair candidate: validation judges it as it is
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(x, train[1].numpy())
        probes.append((probe.score(val_x, val[1].numpy()), strength, probe))
    val_accuracy, strength, best = max(probes, key=lambda entry: (entry[0], -entry[1]))
    accuracy = None
    if test is not None:
        accuracy = float(best.score(F.normalize(test[0].double(), dim=-1).numpy(), test[1].numpy()))
    parameters = best.coef_.size + best.intercept_.size
    return LinearProbe(accuracy, float(val_accuracy), strength, int(parameters), time.perf_counter() - began)
