"""A grid of settings, all fitted from the same store: the choices the paper leaves open."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from statistics import fmean, stdev
from typing import Any, get_args

from residualign.classification.classifier import Classifier
from residualign.errors import BadInputError
from residualign.fitting.coefficients import Scaling
from residualign.fitting.fit import FitSettings, fit_method
from residualign.fitting.methods import StartMode, check_choice, component_scaling
from residualign.fitting.solvers import ScheduleFree, Solver
from residualign.spectrum.spectrum import Spectra
from residualign.store import Store
from residualign.units import UnitKind

__all__ = [
    "FACTORS",
    "QUICK_GRID",
    "SCALED",
    "USUAL_GRID",
    "FactorLevel",
    "Grid",
    "Run",
    "Setting",
    "SettingSummary",
    "factor_levels",
    "run_setting",
    "settings_of",
    "summarize_runs",
]

SCALED: Mapping[str, tuple[UnitKind, ...]] = {"heads": ("head",), "mlps": ("mlp",), "both": ("mlp", "head")}
"""Which units are scaled."""

FACTORS = ("components", "scaled", "basis", "start", "learning_rate")
"""What settings can differ in, apart from the seed."""


@dataclass(frozen=True)
class Grid:
    """Levels of each factor, and the number of seeds."""

    components: tuple[str, ...]
    scaled: tuple[str, ...]
    starts: tuple[str, ...]
    learning_rates: tuple[str, ...]
    repeats: int


USUAL_GRID = Grid(("50%", "90%", "all"), ("heads", "mlps", "both"), ("ones", "randn"), ("none", "0.8"), 3)
QUICK_GRID = Grid(("90%", "all"), ("heads", "both"), ("ones",), ("none",), 1)

_COMPONENTS = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<share>\s*%)?")
_LBFGS, _FINDER = "none", "auto"


@dataclass(frozen=True)
class Setting:
    """One run of the grid.

    components: of each unit, "all", those of a share of its variance ("90%"), or a count ("8"). scaled: a key of
    `SCALED`. basis: whose components, by name. start: of the lambdas, "ones" or "randn". learning_rate:
    Schedule-Free's, "auto" to look for one, or "none" for L-BFGS. seed: decides the start and the batches.
    """

    components: str
    scaled: str
    basis: str
    start: str
    learning_rate: str
    seed: int

    def __post_init__(self) -> None:
        _parse_components(self.components)
        self.solver()
        check_choice("scaled", self.scaled, tuple(SCALED))
        check_choice("start", self.start, get_args(StartMode))

    @property
    def factors(self) -> tuple[str, ...]:
        """Everything but the seed, in the order of `FACTORS`."""
        return tuple(getattr(self, name) for name in FACTORS)

    def scaling(self, spectra: Spectra, mean: str = "keep", rest: str = "keep") -> Scaling:
        """What the lambdas multiply."""
        threshold, count = _parse_components(self.components)
        return component_scaling(spectra, SCALED[self.scaled], threshold, count, mean, rest)

    def solver(self) -> Solver | None:
        """Schedule-Free with the learning rate; None for the default, L-BFGS."""
        if self.learning_rate == _LBFGS:
            return None
        if self.learning_rate == _FINDER:
            return ScheduleFree()
        try:
            rate = float(self.learning_rate)
        except ValueError:
            rate = math.nan
        if not (math.isfinite(rate) and rate > 0):
            raise BadInputError(
                "a learning rate is a positive number, 'auto' (searched for) or 'none' (L-BFGS); "
                f"got {self.learning_rate!r}"
            )
        return ScheduleFree(learning_rate=rate)


@dataclass(frozen=True)
class Run:
    """Result of one setting. Accuracies are shares in [0, 1]; test is None without test images."""

    setting: Setting
    val: float
    test: float | None
    zero_shot: float | None
    parameters: int
    epochs: int
    found_learning_rate: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As one flat mapping."""
        return vars(self.setting) | {name: value for name, value in vars(self).items() if name != "setting"}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Run:
        """The inverse; `KeyError` or `TypeError` where the content is something else."""
        own = dict(content)
        return cls(Setting(**{field.name: own.pop(field.name) for field in fields(Setting)}), **own)


@dataclass(frozen=True)
class SettingSummary:
    """A setting over its seeds; val_sd and test_sd are sample standard deviations, None for a single seed."""

    factors: tuple[str, ...]
    n_seeds: int
    parameters: int
    val: float
    val_sd: float | None
    test: float | None
    test_sd: float | None
    seconds: float

    @property
    def row(self) -> dict[str, Any]:
        """A row of a table."""
        own = {name: value for name, value in vars(self).items() if name != "factors"}
        return dict(zip(FACTORS, self.factors, strict=True)) | own


@dataclass(frozen=True)
class FactorLevel:
    """All settings with one level of one factor.

    val, test: means over the settings (each the mean over its seeds). best: the setting with the best validation
    accuracy among them (ties: the fewest parameters).
    """

    factor: str
    level: str
    n_settings: int
    val: float
    test: float | None
    best: SettingSummary

    @property
    def row(self) -> dict[str, Any]:
        """A row of a table."""
        own = {name: getattr(self, name) for name in ("factor", "level", "n_settings", "val", "test")}
        of_best = (*FACTORS, "val", "test", "test_sd")
        return own | {f"best_{name}": self.best.row[name] for name in of_best}


def settings_of(
    components: Sequence[str],
    scaled: Sequence[str],
    basis: Sequence[str],
    start: Sequence[str],
    learning_rate: Sequence[str],
    seeds: Sequence[int],
    *,
    seeds_always_matter: bool = False,
) -> tuple[Setting, ...]:
    """Every combination once, with the seed varying fastest.

    L-BFGS from ones gives the same result for every seed and runs only with the first, unless seeds_always_matter (few
    shots, which the seed draws). `BadInputError` for a level that does not exist.
    """
    settings = []
    levels = product(*map(dict.fromkeys, (components, scaled, basis, start, learning_rate)))
    for kept, units, spectra, begin, rate in levels:
        first = Setting(kept, units, spectra, begin, rate, seeds[0])
        random = seeds_always_matter or first.start != "ones" or first.learning_rate != _LBFGS
        settings += [replace(first, seed=seed) for seed in (seeds if random else seeds[:1])]
    return tuple(settings)


def run_setting(
    store: Store,
    spectra: Mapping[str, Spectra],
    setting: Setting,
    *,
    classifier: Classifier | str | None = None,
    mean: str = "keep",
    rest: str = "keep",
    shots: int | None = None,
) -> Run:
    """Fit one setting. spectra: by the names of bases. Every other argument, cost and errors: see `fit_method`."""
    own = spectra[setting.basis]
    result = fit_method(
        store,
        "residual",
        own,
        classifier=classifier,
        settings=FitSettings(solver=setting.solver(), start=setting.start, shots=shots, seed=setting.seed),
        scaling=setting.scaling(own, mean, rest),
    )
    return Run(
        setting,
        val=result.accuracy.val or 0.0,
        test=result.accuracy.adapted,
        zero_shot=result.accuracy.zero_shot,
        parameters=result.parameters,
        epochs=result.epochs,
        found_learning_rate=result.learning_rate,
        seconds=result.seconds,
    )


def summarize_runs(runs: Sequence[Run]) -> tuple[SettingSummary, ...]:
    """One summary per setting, in the order in which they first appear."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting.factors, []).append(run)
    summaries = []
    for factors, group in groups.items():
        _, val_sd = _mean_and_spread([run.val for run in group])
        test, test_sd = _mean_and_spread([run.test for run in group])
        val, seconds = fmean(run.val for run in group), fmean(run.seconds for run in group)
        parameters = group[0].parameters
        summaries.append(SettingSummary(factors, len(group), parameters, val, val_sd, test, test_sd, seconds))
    return tuple(summaries)


def factor_levels(summaries: Sequence[SettingSummary]) -> tuple[FactorLevel, ...]:
    """Every level of every factor, in the order in which they first appear."""
    found = []
    for i, factor in enumerate(FACTORS):
        for level in dict.fromkeys(one.factors[i] for one in summaries):
            group = [one for one in summaries if one.factors[i] == level]
            best = max(group, key=lambda one: (one.val, -one.parameters))
            test, _ = _mean_and_spread([one.test for one in group])
            found.append(FactorLevel(factor, level, len(group), fmean(one.val for one in group), test, best))
    return tuple(found)


def _mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation of the values that are known; None where there are too few."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None, stdev(known) if len(known) > 1 else None


def _parse_components(text: str) -> tuple[float, int | None]:
    """(share of variance, count)."""
    if text == "all":
        return 1.0, None
    found = _COMPONENTS.fullmatch(text)
    if found is not None:
        number = float(found["number"])
        if found["share"] is not None and 0 < number <= 100:
            return number / 100, None
        if found["share"] is None and number == int(number) and number >= 1:
            return 1.0, int(number)
    raise BadInputError(f"components are 'all', a share of variance like 90%, or a count like 8; got {text!r}")
