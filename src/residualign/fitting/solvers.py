"""Which solver a method is fitted with, and what L-BFGS lets validation choose from.

Both solvers minimize the same objective, are deterministic given the seed, keep the best validated point and record
every validation.
"""

from __future__ import annotations

import math
from dataclasses import replace

from residualign.errors import BadInputError
from residualign.fitting.lbfgs import LBFGS, Candidate
from residualign.fitting.methods import Method
from residualign.fitting.objective import Solution
from residualign.fitting.schedule_free import ScheduleFree

__all__ = ["LBFGS", "Candidate", "ScheduleFree", "Solution", "Solver", "default_solver"]

Solver = ScheduleFree | LBFGS


def default_solver(method: Method, solver: Solver | str | None = None) -> Solver:
    """The solver asked for, by name or as it is; the method's default where none is."""
    if isinstance(solver, ScheduleFree | LBFGS):
        return solver
    if solver == "schedule-free":
        return ScheduleFree()
    if solver not in (None, "lbfgs"):
        raise BadInputError(f"solver is 'lbfgs' or 'schedule-free', got {solver!r}")
    return LBFGS(_candidates(method))


def _candidates(method: Method) -> tuple[Candidate, ...]:
    """What validation chooses from by default; docs/solver_study.md has the figures.

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


SCALING_CANDIDATES = ((0.5, 0.0), (0.25, 0.0), (0.25, 0.1), (0.0, 1.0))
"""(whitening, pull of the lambdas); the one that most often wins, and is fastest, sets the pace of the others."""
JOINT_CANDIDATES = ((0.5, 0.0, 0.0), (0.5, 0.0, 0.01), (0.25, 0.1, 0.01))
"""(whitening, pull of the lambdas, pull of the class residuals). Without a pull class vectors go far: what class means
need that are far from good, and what few shots must not do."""
MAP_PULLS = (0.0, 1e-3, 1e-2, 1e-1)
