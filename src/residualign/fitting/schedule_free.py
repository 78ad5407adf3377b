"""Schedule-Free AdamW with early stopping, and the search for its learning rate."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from residualign.errors import BadInputError, RunError
from residualign.fitting.objective import Best, Objective, Parameters, Record, Solution, check_finite

__all__ = ["ScheduleFree", "find_learning_rate"]

LEARNING_RATES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 2))
"""The log grid of the learning-rate finder: two per decade, 1e-4 to 3.2."""

_FINDER_STEPS = 60


@dataclass(frozen=True)
class ScheduleFree:
    """Schedule-Free AdamW on mini-batches, without decay or warm-up, evaluated at the averaged point.

    learning_rate: None searches for one (`find_learning_rate`); the paper's released settings are 0.8 for scalings and
    1e-3 for the linear and output-level adapters. Class residuals, entries of unit vectors, learn at
    `learning_rate / sqrt(dim)`. Stops after `patience` epochs without a better validation score; the start counts as
    epoch 0, so the result never validates worse than not fitting. Source: arXiv 2411.00246 section 5 and appendix.
    """

    learning_rate: float | None = None
    batch_size: int = 64
    max_epochs: int = 30
    patience: int = 5
    pull: Mapping[str, float] = field(default_factory=dict)

    name = "schedule-free"

    def solve(self, train: Objective, val: Objective, start: Parameters, seed: int = 0) -> Solution:
        """Fit from a start. Costs two products of image x feature x dim an epoch, and one for validation."""
        began = time.perf_counter()
        train = replace(train, pull=self.pull)
        history: list[Record] = []
        rate = self.learning_rate
        if rate is None:
            # a rate that needs longer than the patience to pay would be stopped before it did
            steps = min(_FINDER_STEPS, self.patience * math.ceil(len(train) / self.batch_size))
            rate, history = find_learning_rate(train, val, start, seed, self.batch_size, steps)
        parameters, optimizer = _optimizer(start, rate)
        best = Best(val.score(parameters), {name: value.detach().clone() for name, value in parameters.items()})
        generator = torch.Generator().manual_seed(seed)
        epoch = 0
        while epoch < self.max_epochs and best.waited < self.patience:
            epoch += 1
            optimizer.train()
            losses = [
                _step(train, parameters, optimizer, index) for index in _batches(train, self.batch_size, generator)
            ]
            optimizer.eval()
            score = val.score(parameters)
            best.see(score, parameters)
            history.append(
                {
                    "solver": "schedule-free",
                    "epoch": epoch,
                    "train_loss": sum(losses) / len(losses),
                    "val_loss": score.loss,
                    "val_accuracy": score.accuracy,
                    "seconds": time.perf_counter() - began,
                }
            )
        return Solution(best.parameters, best.score, epoch, rate, {"pull": dict(self.pull)}, tuple(history))


def find_learning_rate(
    train: Objective,
    val: Objective,
    start: Parameters,
    seed: int = 0,
    batch_size: int = 64,
    steps: int = _FINDER_STEPS,
    grid: Sequence[float] = LEARNING_RATES,
) -> tuple[float, list[Record]]:
    """The learning rate of least validation cross-entropy after a short run, and the curve as history records.

    Every rate starts from the same point and sees the same batches; the score is taken at the averaged point. A single
    ramp would not do: the Schedule-Free average is weighted by the largest rate so far. Rates whose loss is not finite
    lose; `RunError` where all do.
    """
    curve: list[Record] = []
    for rate in grid:
        began = time.perf_counter()
        try:
            loss = _short_run(train, val, start, rate, seed, batch_size, steps)
        except RunError:
            loss = math.inf
        record = {"solver": "learning-rate-finder", "learning_rate": rate, "steps": steps}
        seconds = time.perf_counter() - began
        curve.append({**record, "val_loss": loss if math.isfinite(loss) else None, "seconds": seconds})
    finite = [record for record in curve if record["val_loss"] is not None]
    if not finite:
        raise RunError("no learning rate gave a finite loss: the embeddings may hold values that are not finite")
    return min(finite, key=lambda record: record["val_loss"])["learning_rate"], curve


def _optimizer(start: Parameters, rate: float) -> tuple[Parameters, Any]:
    """Fresh parameters at the start, in the dtype of the start, and their optimizer."""
    # imported here: the package alone must not cost its users an optimizer library
    from schedulefree import AdamWScheduleFree

    if not (math.isfinite(rate) and rate > 0):
        raise BadInputError(f"the learning rate must be a positive number, got {rate}")
    parameters = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
    groups = [
        {"params": [value], "lr": rate / value.shape[1] ** 0.5 if name == "class_residual" else rate}
        for name, value in parameters.items()
    ]
    return parameters, AdamWScheduleFree(groups, lr=rate, weight_decay=0.0, warmup_steps=0)


def _batches(train: Objective, size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """One epoch of shuffled batches; the last may be smaller."""
    order = torch.randperm(len(train), generator=generator).to(train.labels.device)
    return [order[i : i + size] for i in range(0, len(order), size)]


def _step(train: Objective, parameters: Parameters, optimizer: Any, index: Tensor) -> float:
    """One optimizer step on one batch; returns its loss."""
    optimizer.zero_grad(set_to_none=True)
    loss = train.loss(parameters, index)
    check_finite(value := loss.item())
    loss.backward()
    optimizer.step()
    return value


def _short_run(
    train: Objective, val: Objective, start: Parameters, rate: float, seed: int, batch_size: int, steps: int
) -> float:
    """Validation cross-entropy at the averaged point after some steps."""
    parameters, optimizer = _optimizer(start, rate)
    generator = torch.Generator().manual_seed(seed)
    optimizer.train()
    taken = 0
    while taken < steps:
        for index in _batches(train, batch_size, generator)[: steps - taken]:
            _step(train, parameters, optimizer, index)
            taken += 1
    optimizer.eval()
    return val.score(parameters).loss
