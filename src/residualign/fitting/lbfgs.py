"""L-BFGS on the full batch, validated at every outer iteration."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from residualign.errors import BadInputError
from residualign.fitting.objective import Best, Objective, Parameters, Record, Score, Solution

__all__ = ["LBFGS", "Candidate"]

_WHITENING_FLOOR = 1e-3


@dataclass(frozen=True)
class Candidate:
    """One way L-BFGS may run, among which validation chooses.

    pull: strength by group of parameters; infinite freezes the group at its start. whitening: the lambda of a component
    with second moment m steps, and is pulled, in units of m^-whitening: 0 treats all lambdas alike, 0.5 all directions
    of the data alike. baseline: see `LBFGS`.
    """

    pull: Mapping[str, float] = field(default_factory=dict)
    whitening: float = 0.0
    baseline: bool = True

    def describe(self) -> Record:
        """For the history; a frozen group reads "frozen"."""
        pull = {name: strength if math.isfinite(strength) else "frozen" for name, strength in self.pull.items()}
        return {"pull": pull, "whitening": self.whitening}


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS on the full batch, validated at every outer iteration, the best point kept.

    Runs once for every candidate, each from the start, and keeps the best by validation: of the baseline candidates
    the most accurate (ties: lower cross-entropy); a different one only if it is at least as accurate and has a lower
    cross-entropy, because on few validation images accuracy alone picks richer models by luck. A run ends after
    `patience` outer iterations without a better validation score, at convergence, or when it has lost the race: every
    `race` outer iterations a run is compared with what the best run before it had found by then, and given up where it
    is worse in accuracy and in cross-entropy. `race=None` runs every candidate to its end.
    """

    candidates: Sequence[Candidate] = (Candidate(),)
    max_iterations: int = 150
    patience: int = 15
    race: int | None = 10

    name = "lbfgs"

    def solve(self, train: Objective, val: Objective, start: Parameters, seed: int = 0) -> Solution:
        """Fit from a start; the seed changes nothing. Costs two products of image x feature x dim an iteration."""
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
            # so that the run is bit for bit the one of a method without class residuals
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
            history.append(
                {
                    "solver": self.name,
                    **candidate.describe(),
                    "iteration": len(history) + 1,
                    "train_loss": float(intermediate_result.fun),
                    "val_loss": score.loss,
                    "val_accuracy": score.accuracy,
                    "seconds": time.perf_counter() - began,
                }
            )
            if best.waited >= self.patience or self._lost(best.score, len(history), pace):
                raise StopIteration

        options = {"maxiter": self.max_iterations, "maxcor": 10, "ftol": 1e-9, "gtol": 1e-6}
        zero = np.zeros(steps.size)
        minimize(value, zero, jac=True, method="L-BFGS-B", callback=validate, options=options)
        return Solution(
            {**whole, **best.parameters}, best.score, evaluations, None, candidate.describe(), tuple(history)
        )

    def _lost(self, score: Score, iteration: int, pace: Sequence[Score]) -> bool:
        """Whether a run is far enough behind the best one before it to be given up."""
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
    """The best baseline, or what is as accurate and has the lowest cross-entropy of all."""
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
