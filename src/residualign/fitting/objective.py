"""The objective of every method, cross-entropy of cosine logits with an optional pull, and what a solver returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.errors import RunError
from residualign.fitting.coefficients import Features

__all__ = ["Best", "Objective", "Parameters", "Record", "Score", "Solution", "neutral"]

Parameters = dict[str, Tensor]
"""What is learned, by group: lambdas (lambda,), map (dim, dim) and bias (dim,), class_residual (class, dim)."""


@dataclass(frozen=True, order=True)
class Score:
    """Validation result; larger is better: higher accuracy, then lower cross-entropy."""

    accuracy: float
    negative_loss: float

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return -self.negative_loss


def neutral(parameters: Mapping[str, Tensor]) -> Parameters:
    """The values that change nothing: lambdas one, map the identity, bias and class residuals zero."""
    values = {name: torch.zeros_like(value) for name, value in parameters.items()}
    if "lambdas" in values:
        values["lambdas"].fill_(1.0)
    if "map" in values:
        values["map"].fill_diagonal_(1.0)
    return values


@dataclass(frozen=True)
class Objective:
    """Cross-entropy of `logit_scale * cosine(adapted embedding, class vector)` on some labeled images.

    class_vectors: (class, dim). own_vectors: (image, dim) or None: the vector that replaces an image's own class vector
    in its row (leave-one-out class means while fitting). pull: strength of the regularization by group of parameters;
    a group adds `strength * |(value - neutral) / scale|^2 / rows`, rows being lambdas, classes or dimensions, so that a
    strength means the same for towers of any size. scales: the step size of a group's entries, 1 if absent.
    logit_bias: if given, the loss is SigLIP's instead, the sum over classes of binary cross-entropies of logit + bias
    (arXiv 2303.15343, section 3.2).
    """

    features: Features
    labels: Int[Tensor, " image"]
    class_vectors: Float[Tensor, "class dim"]
    logit_scale: float
    own_vectors: Float[Tensor, "image dim"] | None = None
    pull: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    logit_bias: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def logits(self, parameters: Parameters, index: slice | Tensor) -> Float[Tensor, "image class"]:
        """Logits of some images. Source: arXiv 2411.00246 section 4; without the logit scale fits fail silently."""
        if "lambdas" in parameters:
            adapted = self.features.adapted(parameters["lambdas"], index)
        else:
            adapted = self.features.rest[index]
        if "map" in parameters:
            adapted = torch.addmm(parameters["bias"], adapted, parameters["map"])
        unit = F.normalize(adapted, dim=-1)
        vectors = self.class_vectors
        residual = parameters.get("class_residual")
        if residual is not None:
            vectors = F.normalize(vectors + residual, dim=-1)
        cosine = unit @ vectors.T
        if self.own_vectors is not None:
            labels = self.labels[index]
            own = self.own_vectors[index]
            if residual is not None:
                own = F.normalize(own + residual[labels], dim=-1)
            cosine = cosine.scatter(1, labels[:, None], (unit * own).sum(dim=-1, keepdim=True))
        return self.logit_scale * cosine

    def cross_entropy(self, parameters: Parameters, index: slice | Tensor) -> Float[Tensor, ""]:
        """Mean cross-entropy of some images."""
        return self._losses(self.logits(parameters, index), self.labels[index]).mean()

    def _losses(self, logits: Tensor, labels: Tensor) -> Float[Tensor, " image"]:
        if self.logit_bias is None:
            return F.cross_entropy(logits, labels, reduction="none")
        wanted = F.one_hot(labels, logits.shape[1]).to(logits)
        losses: Tensor = F.binary_cross_entropy_with_logits(logits + self.logit_bias, wanted, reduction="none")
        return losses.sum(dim=-1)

    def pull_loss(self, parameters: Parameters) -> Float[Tensor, ""]:
        """What the pulls add to the cross-entropy."""
        total = self.class_vectors.new_zeros(())
        center = neutral({name: value.detach() for name, value in parameters.items()})
        for name, strength in self.pull.items():
            if strength > 0 and name in parameters:
                step = parameters[name] - center[name]
                if name in self.scales:
                    step = step / self.scales[name]
                total = total + strength * step.square().sum() / step.shape[0]
        return total

    def loss(self, parameters: Parameters, index: slice | Tensor) -> Float[Tensor, ""]:
        """Cross-entropy of some images plus the pulls."""
        return self.cross_entropy(parameters, index) + self.pull_loss(parameters)

    def value_and_gradient(self, parameters: Parameters) -> tuple[float, Parameters]:
        """The full-batch loss and its gradient, in chunks of images if the features are not held in memory.

        `RunError` if the loss is not finite. Costs two products of image x feature x dim.
        """
        leaves = {name: value.detach().requires_grad_(True) for name, value in parameters.items()}
        gradient = {name: torch.zeros_like(value) for name, value in parameters.items()}
        total = _accumulate(self.pull_loss(leaves), leaves, gradient)
        for start in range(0, len(self), self.features.chunk):
            index = slice(start, min(start + self.features.chunk, len(self)))
            part = self.cross_entropy(leaves, index) * ((index.stop - index.start) / len(self))
            total += _accumulate(part, leaves, gradient)
        check_finite(total)
        return total, gradient

    @torch.no_grad()
    def score(self, parameters: Parameters) -> Score:
        """Accuracy and cross-entropy (without pulls) on these images."""
        loss, correct = 0.0, 0
        for start in range(0, len(self), self.features.chunk):
            index = slice(start, min(start + self.features.chunk, len(self)))
            logits = self.logits(parameters, index)
            loss += self._losses(logits, self.labels[index]).sum().item()
            correct += int((logits.argmax(dim=-1) == self.labels[index]).sum())
        loss /= len(self)
        check_finite(loss)
        return Score(accuracy=correct / len(self), negative_loss=-loss)


def _accumulate(loss: Tensor, leaves: Parameters, gradient: Parameters) -> float:
    """Add the gradient of one part of the loss in place; return the part."""
    if loss.requires_grad:
        parts = torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True)
        for total, part in zip(gradient.values(), parts, strict=True):
            if part is not None:
                total += part
    return loss.item()


def check_finite(loss: float) -> None:
    """`RunError` if a loss is not a finite number."""
    if not math.isfinite(loss):
        raise RunError(
            f"the loss became {loss}: the learning rate may be too large, or the embeddings hold values that are not "
            "finite"
        )


Record = dict[str, Any]


@dataclass(frozen=True)
class Solution:
    """The best validated point of a run.

    epochs: passes over the training images, including line searches and all candidates. chosen: the settings that
    validation chose. history: one record per validation.
    """

    parameters: Parameters
    score: Score
    epochs: int
    learning_rate: float | None
    chosen: Record
    history: tuple[Record, ...]


@dataclass
class Best:
    """The best validated point so far, and how many validations ago it was found."""

    score: Score
    parameters: Parameters
    waited: int = 0

    def see(self, score: Score, parameters: Mapping[str, Tensor]) -> None:
        """Record one validation; keeps a copy of the parameters if it is the best so far."""
        self.waited += 1
        if score > self.score:
            self.score, self.waited = score, 0
            self.parameters = {name: value.detach().clone() for name, value in parameters.items()}
