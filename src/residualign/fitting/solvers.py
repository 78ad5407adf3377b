"""The two solvers, and which one a method is fitted with.

Both minimize the same objective, are deterministic given the seed, keep the best validated point and record every
validation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from residualign.errors import BadInputError, RunError
from residualign.fitting.methods import Method
from residualign.fitting.objective import Best, Objective, Parameters, Record, Score, Solution, check_finite

__all__ = ["LBFGS", "Candidate", "ScheduleFree", "Solver", "default_solver", "find_learning_rate"]

LEARNING_RATES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 2))
"""The log grid of the learning-rate finder: two per decade, 1e-4 to 3.2."""

_FINDER_STEPS = 60

_WHITENING_FLOOR = 1e-3

SCALING_CANDIDATES = ((0.5, 0.0), (0.25, 0.0), (0.25, 0.1), (0.0, 1.0))
"""(whitening, pull of the lambdas). The first wins most often, is the fastest, and sets the pace of the others."""

JOINT_CANDIDATES = ((0.5, 0.0, 0.0), (0.5, 0.0, 0.01), (0.25, 0.1, 0.01))
"""(whitening, pull of the lambdas, pull of the class residuals). Without a pull, class vectors move far:
poor class means need that, few-shot fits must not do it."""

MAP_PULLS = (0.0, 1e-3, 1e-2, 1e-1)


def _validated(train_loss: float, score: Score, began: float) -> Record:
    """What every validation adds to its record in the history."""
    seconds = time.perf_counter() - began
    return {"train_loss": train_loss, "val_loss": score.loss, "val_accuracy": score.accuracy, "seconds": seconds}


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
        """Fit from a start. Costs two products of image x feature x dim per epoch, and one for validation."""
        began = time.perf_counter()
        train = replace(train, pull=self.pull)
        history: list[Record] = []
        rate = self.learning_rate
        if rate is None:
            # a rate that needs longer than the patience to pay off would be stopped first
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
            step = {"solver": self.name, "epoch": epoch}
            history.append(step | _validated(sum(losses) / len(losses), score, began))
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
    """The learning rate with the lowest validation cross-entropy after a short run, and the curve as history records.

    Every rate starts from the same point and sees the same batches; the score is taken at the averaged point. A single
    ramp would not work: the Schedule-Free average is weighted by the largest rate so far. Rates whose loss is not
    finite are dropped; `RunError` if all are.
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
    # imported here: only this solver needs the optimizer library
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


@dataclass(frozen=True)
class Candidate:
    """One configuration of L-BFGS, among which validation chooses.

    pull: strength of the regularization by group of parameters; infinite freezes the group at its start. whitening:
    the lambda of a component with second moment m is stepped, and pulled, in units of m^-whitening: 0 treats all
    lambdas alike, 0.5 all directions of the data alike. baseline: see `LBFGS`.
    """

    pull: Mapping[str, float] = field(default_factory=dict)
    whitening: float = 0.0
    baseline: bool = True

    def describe(self) -> Record:
        """As it is written to the history; an infinite pull reads "frozen"."""
        pull = {name: strength if math.isfinite(strength) else "frozen" for name, strength in self.pull.items()}
        return {"pull": pull, "whitening": self.whitening}


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS on the full batch, validated at every outer iteration, the best point kept.

    Runs once per candidate, each from the start, and keeps the best by validation: the most accurate baseline candidate
    (ties: lower cross-entropy), or a non-baseline one if it is at least as accurate and has a lower cross-entropy,
    because with few validation images accuracy alone picks richer models by luck. A run ends after `patience` outer
    iterations without a better validation score, at convergence, or when it has lost the race: every `race` outer
    iterations a run is compared with what the best earlier run had found by then, and stopped if it is worse in both
    accuracy and cross-entropy. `race=None` runs every candidate to its end.
    """

    candidates: Sequence[Candidate] = (Candidate(),)
    max_iterations: int = 150
    patience: int = 15
    race: int | None = 10

    name = "lbfgs"

    def solve(self, train: Objective, val: Objective, start: Parameters, seed: int = 0) -> Solution:
        """Fit from a start; the seed changes nothing. Costs two products of image x feature x dim per iteration."""
        if not self.candidates:
            raise BadInputError("L-BFGS needs at least one candidate to try, got none")
        began = time.perf_counter()
        moment = train.features.second_moment() if "lambdas" in start else torch.zeros(0)
        solutions: list[Solution] = []
        for candidate in self.candidates:
            pace = _pace(max(solutions, key=lambda one: one.score)) if solutions else []
            solutions.append(self._one(train, val, start, candidate, moment, began, pace))
        best = _choose(solutions, [candidate.baseline for candidate in self.candidates])
        history = tuple(record for solution in solutions for record in solution.history)
        return replace(best, history=history, epochs=sum(solution.epochs for solution in solutions))

    def _one(
        self,
        train: Objective,
        val: Objective,
        start: Parameters,
        candidate: Candidate,
        moment: Tensor,
        began: float,
        pace: Sequence[Score],
    ) -> Solution:
        scales = _scales(start, candidate.whitening, moment)
        whole = start
        if _frozen_at_zero("class_residual", start, candidate):
            # so that the run is bit for bit that of a method without class residuals
            start = {name: value for name, value in start.items() if name != "class_residual"}
        finite = {name: strength for name, strength in candidate.pull.items() if math.isfinite(strength)}
        train = replace(train, pull=finite, scales=scales)
        free = [name for name in start if math.isfinite(candidate.pull.get(name, 0.0))]
        steps = _Steps({name: start[name] for name in free}, scales)
        evaluations = 0

        def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal evaluations
            evaluations += 1
            loss, gradient = train.value_and_gradient({**start, **steps.parameters(flat)})
            return loss, steps.gradient(gradient)

        best = Best(val.score(start), start)
        history: list[Record] = []

        # scipy passes the result under exactly this keyword
        def validate(intermediate_result: OptimizeResult) -> None:
            parameters = {**start, **steps.parameters(intermediate_result.x)}
            score = val.score(parameters)
            best.see(score, parameters)
            step = {"solver": self.name, **candidate.describe(), "iteration": len(history) + 1}
            history.append(step | _validated(float(intermediate_result.fun), score, began))
            if best.waited >= self.patience or self._lost(best.score, len(history), pace):
                raise StopIteration

        options = {"maxiter": self.max_iterations, "maxcor": 10, "ftol": 1e-9, "gtol": 1e-6}
        zero = np.zeros(steps.size)
        minimize(value, zero, jac=True, method="L-BFGS-B", callback=validate, options=options)
        return Solution(
            {**whole, **best.parameters}, best.score, evaluations, None, candidate.describe(), tuple(history)
        )

    def _lost(self, score: Score, iteration: int, pace: Sequence[Score]) -> bool:
        """Whether a run is so far behind the best earlier one that it is stopped."""
        if self.race is None or iteration % self.race or not pace:
            return False
        leader = pace[min(iteration, len(pace)) - 1]
        return score.accuracy < leader.accuracy and score.loss > leader.loss


def _pace(solution: Solution) -> list[Score]:
    """The best validated score of a run by each of its outer iterations."""
    scores = (Score(record["val_accuracy"], -record["val_loss"]) for record in solution.history)
    return list(accumulate(scores, max))


def _frozen_at_zero(group: str, start: Parameters, candidate: Candidate) -> bool:
    return group in start and math.isinf(candidate.pull.get(group, 0.0)) and not bool(start[group].any())


def _choose(solutions: Sequence[Solution], baseline: Sequence[bool]) -> Solution:
    """The best baseline, or what is at least as accurate and has the lowest cross-entropy of all."""
    pairs = list(zip(solutions, baseline, strict=True))
    best = max((one for one, simple in pairs if simple), key=lambda one: one.score, default=solutions[0])
    richer = [one for one, simple in pairs if not simple and one.score.accuracy >= best.score.accuracy]
    return min([best, *richer], key=lambda one: one.score.loss)


@dataclass(frozen=True)
class _Steps:
    """The flat float64 vector L-BFGS works on: steps from the start in units of the scales."""

    start: Parameters
    scales: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        return sum(value.numel() for value in self.start.values())

    def parameters(self, flat: NDArray[np.float64]) -> Parameters:
        ends = np.cumsum([value.numel() for value in self.start.values()])[:-1]
        parts = np.split(flat, ends)
        parameters = {}
        for (name, value), part in zip(self.start.items(), parts, strict=True):
            step = torch.from_numpy(np.array(part)).reshape(value.shape).to(value)
            parameters[name] = value + (step * self.scales[name] if name in self.scales else step)
        return parameters

    def gradient(self, gradient: Parameters) -> NDArray[np.float64]:
        parts = [
            (gradient[name] * self.scales[name] if name in self.scales else gradient[name]).flatten()
            for name in self.start
        ]
        return np.asarray(torch.cat(parts).double().cpu().numpy())


def _scales(start: Parameters, whitening: float, moment: Tensor) -> Parameters:
    """One step of every group, in its own units.

    Lambdas: `moment^-whitening`, of root mean square one; the floor spares directions without variance. Class
    residuals beside lambdas: 1 / sqrt(lambdas), because an entry of a unit vector moves a logit as much as that many
    lambdas do together; with equal steps the lambdas would stay where they are.
    """
    lambdas = start.get("lambdas")
    if lambdas is None or len(lambdas) == 0:
        return {}
    relative = moment / moment.mean() + _WHITENING_FLOOR
    scale = relative.pow(-whitening)
    scales = {"lambdas": (scale / scale.square().mean().sqrt()).to(lambdas)}
    if "class_residual" in start:
        scales["class_residual"] = torch.full_like(start["class_residual"], len(lambdas) ** -0.5)
    return scales


Solver = ScheduleFree | LBFGS


def default_solver(method: Method, solver: Solver | str | None = None) -> Solver:
    """The solver given, by name or ready-made; the method's default if it is None."""
    if isinstance(solver, ScheduleFree | LBFGS):
        return solver
    if solver == "schedule-free":
        return ScheduleFree()
    if solver not in (None, "lbfgs"):
        raise BadInputError(f"solver is 'lbfgs' or 'schedule-free', got {solver!r}")
    return LBFGS(_candidates(method))


def _candidates(method: Method) -> tuple[Candidate, ...]:
    """What validation chooses from by default; see docs/solver_study.md.

    `joint` tries what `residual` tries (the baseline, with the class vectors frozen), then both together.
    """
    if method.learns == ("map",):
        return tuple(Candidate({"map": pull, "bias": pull}) for pull in MAP_PULLS)
    scalings = [Candidate({"lambdas": pull}, whitening) for whitening, pull in SCALING_CANDIDATES]
    if "class_residual" not in method.learns:
        return tuple(scalings)
    alone = [replace(one, pull={**one.pull, "class_residual": math.inf}) for one in scalings]
    both = [
        Candidate({"lambdas": pull, "class_residual": class_pull}, whitening, baseline=False)
        for whitening, pull, class_pull in JOINT_CANDIDATES
    ]
    return (*alone, *both)
