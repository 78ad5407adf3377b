"""The ablations the paper leaves open: a grid of fits from one store, resumable, as one table with spread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residualign._progress import Progress, Silent
from residualign.commands._inputs import Machine, Subject, analysed_split, analysed_store
from residualign.commands._spectra import choose_spectra
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.figures.sweep import sweep_figures
from residualign.fitting.sweep import (
    FACTORS,
    FactorLevel,
    Run,
    Setting,
    SettingSummary,
    factor_levels,
    run_setting,
    settings_of,
    summarise_runs,
)
from residualign.runs.files import Table, check_analysis_files, write_analysis_files
from residualign.runs.folder import STORE_NAME
from residualign.runs.log import RUNS_NAME, RunLog
from residualign.runs.summary import BEFORE
from residualign.spectrum import Spectra
from residualign.store import DirectoryLock, Store

__all__ = ["AblateOutcome", "AblateRequest", "run_ablate"]

REFERENCE, TARGET = "reference", "target"

_GRID: dict[str, tuple[str, ...]] = {
    "components": ("50%", "90%", "all"),
    "scaled": ("heads", "mlps", "both"),
    "start": ("ones", "randn"),
    "learning_rate": ("none", "0.8"),
}
_QUICK: dict[str, tuple[str, ...]] = {
    "components": ("90%", "all"),
    "scaled": ("heads", "both"),
    "start": ("ones",),
    "learning_rate": ("none",),
}
_REPEATS, _QUICK_REPEATS, _QUICK_SHOTS = 3, 1, 10


@dataclass(frozen=True)
class AblateRequest:
    """Everything `ablate` is told. Levels of factors: see `Setting`; an empty tuple takes the usual ones.

    bases: "reference", "target"; empty takes target, and reference where there is one. repeats: seeds from `seed` on;
    None takes three, one with `quick`. rest, mean: the same for all settings.
    """

    source: str
    data: str | None = None
    components: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    learning_rates: tuple[str, ...] = ()
    repeats: int | None = None
    seed: int = 0
    mean: str = "keep"
    rest: str = "keep"
    shots: int | None = None
    reference: str | None = None
    classifier: str | None = None
    classes: str | None = None
    templates: tuple[str, ...] | None = None
    store: str | None = None
    model: str | None = None
    quick: bool = False
    out: Path | None = None
    formats: tuple[str, ...] | None = None
    stream: bool = False
    skip_bad: bool = False
    overwrite: bool = False
    machine: Machine = field(default_factory=Machine)

    @property
    def few(self) -> int | None:
        """Training images a class; None takes all."""
        return self.shots or (_QUICK_SHOTS if self.quick else None)

    def settings(self, bases: tuple[str, ...]) -> tuple[Setting, ...]:
        """The grid on these bases. `BadInputError` for a level that does not exist."""
        usual = _QUICK if self.quick else _GRID
        repeats = self.repeats or (_QUICK_REPEATS if self.quick else _REPEATS)
        return settings_of(
            self.components or usual["components"],
            self.scaled or usual["scaled"],
            bases,
            self.starts or usual["start"],
            self.learning_rates or usual["learning_rate"],
            range(self.seed, self.seed + repeats),
            seeds_always_matter=self.few is not None,
        )


@dataclass(frozen=True)
class AblateOutcome:
    """What a grid gave. bases: where the components of each basis are from. resumed: runs that were there before."""

    request: AblateRequest
    model: str
    data: str
    classifier: str
    zero_shot: float | None
    sizes: dict[str, int]
    bases: dict[str, str]
    runs: tuple[Run, ...]
    resumed: int
    seconds: float

    @property
    def summaries(self) -> tuple[SettingSummary, ...]:
        """One a setting."""
        return summarise_runs(self.runs)

    @property
    def levels(self) -> tuple[FactorLevel, ...]:
        """One a level of a factor."""
        return factor_levels(self.summaries)

    @property
    def best(self) -> SettingSummary:
        """The setting of best validation accuracy; of equal ones that with the fewest parameters."""
        return max(self.summaries, key=lambda one: (one.val, -one.parameters))

    def to_json(self) -> dict[str, Any]:
        """What `ablate --json` prints."""
        return {
            "model": self.model,
            "data": self.data,
            **{f"n_{name}": size for name, size in self.sizes.items()},
            "classifier": self.classifier,
            "zero_shot": self.zero_shot,
            "zero_shot_is": BEFORE[self.classifier],
            "bases": self.bases,
            "mean": self.request.mean,
            "rest": self.request.rest,
            "shots": self.request.few,
            "seed": self.request.seed,
            "n_runs": len(self.runs),
            "resumed": self.resumed,
            "seconds": self.seconds,
            "best": _summary_row(self.best),
            "factors": _level_rows(self.levels),
            "settings": [_summary_row(one) for one in self.summaries],
            "runs": [run.to_json() for run in self.runs],
            "out": None if self.request.out is None else str(self.request.out),
        }

    def tables(self) -> dict[str, Table]:
        """The tables of `--out`, by file name."""
        return {
            "ablate_settings": [_summary_row(one) for one in self.summaries],
            "ablate_factors": _level_rows(self.levels),
            "ablate_runs": [run.to_json() for run in self.runs],
        }


def run_ablate(request: AblateRequest, progress: Progress | None = None) -> AblateOutcome:
    """Do everything `residualign ablate` does. With `out`, runs are kept as they end and the same request goes on.

    A larger grid goes on from a smaller one; what all runs share (store, components, mean, rest, shots, classifier) has
    to be the same. Bad input is refused before images are read where that is possible.
    """
    progress = progress or Silent()
    _check_out(request)
    # levels that do not exist are found before the pass
    request.settings(request.bases or (TARGET,))
    inside = None if request.out is None or request.data is None else str(request.out / STORE_NAME)
    with (
        _locked(request.out),
        analysed_store(
            request.source,
            request.data,
            request.machine,
            store=request.store or inside,
            classes=request.classes,
            templates=request.templates,
            model=request.model,
            stream=request.stream,
            skip_bad=request.skip_bad,
            uses_text=request.classifier != "means",
            progress=progress,
        ) as (store, subject),
    ):
        began = time.perf_counter()
        store = store.in_memory()
        for name in ("train", "val"):
            analysed_split(store, name)
        spectra = _bases(request, subject, store, progress)
        settings = request.settings(tuple(spectra))
        log = RunLog(request.out, _common(request, store, spectra), overwrite=request.overwrite)
        known = {run.setting: run for run in map(Run.from_json, log.records)}
        resumed = sum(setting in known for setting in settings)
        with progress.task("runs") as tick:
            for i, setting in enumerate(settings):
                if setting not in known:
                    known[setting] = run_setting(
                        store,
                        spectra,
                        setting,
                        classifier=request.classifier,
                        mean=request.mean,
                        rest=request.rest,
                        shots=request.few,
                    )
                    log.add(known[setting].to_json())
                tick(i + 1, len(settings))
        runs = tuple(known[setting] for setting in settings)
        outcome = AblateOutcome(
            request=request,
            model=str(store.model["name"]),
            data=str(store.data["name"]),
            classifier=_kind(request, store),
            zero_shot=runs[0].zero_shot,
            sizes={name: len(store.split(name)) for name in store.splits},
            bases={name: one.source for name, one in spectra.items()},
            runs=runs,
            resumed=resumed,
            seconds=time.perf_counter() - began,
        )
    if request.out is not None:
        tables, title = outcome.tables(), outcome.data.rstrip("/").rsplit("/", 1)[-1]
        figures = sweep_figures(tables["ablate_settings"], title, outcome.zero_shot, name="ablate_factors")
        write_analysis_files(request.out, "ablate", outcome.to_json(), tables, figures, request.formats)
    return outcome


def _check_out(request: AblateRequest) -> None:
    """A folder with runs is gone on with; what else is there is refused as for any analysis."""
    begun = request.out is not None and (request.out / RUNS_NAME).is_file()
    unfinished = request.out is not None and (request.out / STORE_NAME).is_dir()
    check_analysis_files(request.out, request.formats, request.overwrite or begun or unfinished)


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    with nullcontext() if folder is None else DirectoryLock(folder):
        yield


def _bases(request: AblateRequest, subject: Subject, store: Store, progress: Progress) -> dict[str, Spectra]:
    """The spectra by the names of the bases that are wanted."""
    wanted = request.bases or (TARGET, REFERENCE)
    spectra = {}
    for name in dict.fromkeys(wanted):
        if name == TARGET:
            spectra[TARGET] = fit_spectrum(store)
            continue
        chosen = choose_spectra(
            store,
            subject.model,
            request.reference,
            seed=request.seed,
            batch_size=request.machine.batch_size,
            workers=request.machine.workers,
            stream=request.stream,
            skip_bad=request.skip_bad,
            progress=progress,
        )
        if chosen.kind != "training split":
            spectra[REFERENCE] = chosen.spectra
        elif request.bases:
            raise BadInputError(
                "the model ships no spectra; say with --reference which images the reference basis is of"
            )
    return spectra


def _common(request: AblateRequest, store: Store, spectra: dict[str, Spectra]) -> dict[str, Any]:
    """What all runs of one file have in common."""
    return {
        "store": store.fingerprint,
        "mean": request.mean,
        "rest": request.rest,
        "shots": request.few,
        "classifier": _kind(request, store),
        **{f"{name} basis": one.fingerprint for name, one in spectra.items()},
    }


def _kind(request: AblateRequest, store: Store) -> Any:
    return request.classifier or ("means" if store.text_vectors is None else "text")


def _summary_row(one: SettingSummary) -> dict[str, Any]:
    return {
        **dict(zip(FACTORS, one.factors, strict=True)),
        "n_seeds": one.n_seeds,
        "parameters": one.parameters,
        "val": one.val,
        "val_sd": one.val_sd,
        "test": one.test,
        "test_sd": one.test_sd,
        "seconds": one.seconds,
    }


def _level_rows(levels: tuple[FactorLevel, ...]) -> list[dict[str, Any]]:
    return [
        {
            "factor": one.factor,
            "level": one.level,
            "n_settings": one.n_settings,
            "val": one.val,
            "test": one.test,
            **{f"best_{name}": value for name, value in zip(FACTORS, one.best.factors, strict=True)},
            "best_val": one.best.val,
            "best_test": one.best.test,
            "best_test_sd": one.best.test_sd,
        }
        for one in levels
    ]
