"""`residualign sweep`: a resumable grid of fits from one store, in one table with standard deviations."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    OUTPUT,
    REPEATED,
    Formats,
    Inputs,
    Mean,
    Overwrite,
    Reference,
    Rest,
    Seed,
    Shots,
    Words,
    flag,
)
from residualign.commands._request import KEEPS_WORK

if TYPE_CHECKING:
    from residualign.classification.classifier import Classifier
    from residualign.fitting.sweep import FactorLevel, Run, Setting, SettingSummary
    from residualign.spectrum import Spectra
    from residualign.store import Store

__all__ = ["SweepOutcome", "SweepRequest", "run"]

_QUICK_SHOTS = 10


@dataclass(frozen=True, kw_only=True)
class SweepRequest(Inputs, Words):
    """Fit a grid of settings, all from the same store: MODEL and DATA, or a STORE.

    With --out, each run is saved as it ends: the same command resumes, and a larger grid reuses a smaller one.
    """

    keep_components: Annotated[
        tuple[str, ...],
        flag(
            "--keep-components",
            METHOD,
            "Components of each unit that are scaled: a count, those that explain a share of its variance, or all"
            + REPEATED
            + ". By default 50%, 90% and all; with --quick 90% and all.",
            metavar="N|N%|all",
        ),
    ] = ()
    scaled: Annotated[
        tuple[Literal["heads", "mlps", "both"], ...],
        flag(
            "--scaled",
            METHOD,
            "Units that are scaled" + REPEATED + ". By default all three; with --quick heads and both.",
        ),
    ] = ()
    basis: Annotated[
        tuple[Literal["reference", "target"], ...],
        flag(
            "--basis",
            METHOD,
            "Principal components of the reference images or of the training images" + REPEATED + ". By default "
            "target, and reference where there is one.",
        ),
    ] = ()
    start: Annotated[
        tuple[Literal["ones", "randn"], ...],
        flag(
            "--start",
            METHOD,
            "Initial lambdas: ones, or 1 + N(0, 1)" + REPEATED + ". By default both; with --quick ones.",
        ),
    ] = ()
    learning_rate: Annotated[
        tuple[str, ...],
        flag(
            "--learning-rate",
            METHOD,
            "Learning rate of Schedule-Free AdamW; auto searches for one, none fits with L-BFGS" + REPEATED + ". By "
            "default none and 0.8; with --quick none.",
            metavar="RATE|auto|none",
        ),
    ] = ()
    repeats: Annotated[
        int | None,
        flag(
            "--repeats",
            METHOD,
            "Number of seeds per setting, from --seed on. By default 3; with --quick 1.",
            metavar="N",
            min=1,
        ),
    ] = None
    mean: Mean = None
    rest: Rest = "keep"
    shots: Shots = None
    reference: Reference = None
    seed: Seed = 0
    out: Annotated[
        Path | None,
        flag("--out", OUTPUT, "Output directory for runs, tables and figures.", metavar="DIR"),
        KEEPS_WORK,
    ] = None
    format: Formats = ()
    overwrite: Overwrite = False

    @property
    def few(self) -> int | None:
        """Training images per class; None takes all."""
        return self.shots or (_QUICK_SHOTS if self.quick else None)

    @property
    def scaled_mean(self) -> str:
        """Whether the means of scaled units are dropped or kept, the same for all settings; kept by default."""
        return self.mean or "keep"

    def settings(self, bases: tuple[str, ...]) -> tuple[Setting, ...]:
        """The grid on these bases. `BadInputError` for a level that does not exist."""
        from residualign.fitting.sweep import QUICK_GRID, USUAL_GRID, settings_of

        usual = QUICK_GRID if self.quick else USUAL_GRID
        return settings_of(
            self.keep_components or usual.components,
            self.scaled or usual.scaled,
            bases,
            self.start or usual.starts,
            self.learning_rate or usual.learning_rates,
            range(self.seed, self.seed + (self.repeats or usual.repeats)),
            seeds_always_matter=self.few is not None,
        )


@dataclass(frozen=True, repr=False, eq=False)
class SweepOutcome(Result):
    """The results of a grid. bases: source of the components of each basis. resumed: number of runs from before."""

    request: SweepRequest
    model: str
    data: str
    classifier: str
    zero_shot: float | None
    sizes: dict[str, int]
    bases: dict[str, str]
    runs: tuple[Run, ...]
    resumed: int
    seconds: float
    files: tuple[Path, ...] = ()

    @property
    def summaries(self) -> tuple[SettingSummary, ...]:
        """One per setting."""
        from residualign.fitting.sweep import summarize_runs

        return summarize_runs(self.runs)

    @property
    def levels(self) -> tuple[FactorLevel, ...]:
        """One per level of a factor."""
        from residualign.fitting.sweep import factor_levels

        return factor_levels(self.summaries)

    @property
    def best(self) -> SettingSummary:
        """The setting with the best validation accuracy; of equal ones that with the fewest parameters."""
        return max(self.summaries, key=lambda one: (one.val, -one.parameters))

    def to_json(self) -> dict[str, Any]:
        """What `sweep --json` prints."""
        from residualign.runs.results import BEFORE

        return {
            "model": self.model,
            "data": self.data,
            **{f"n_{name}": size for name, size in self.sizes.items()},
            "classifier": self.classifier,
            "zero_shot": self.zero_shot,
            "zero_shot_is": BEFORE[self.classifier],
            "bases": self.bases,
            "mean": self.request.scaled_mean,
            "rest": self.request.rest,
            "shots": self.request.few,
            "seed": self.request.seed,
            "n_runs": len(self.runs),
            "resumed": self.resumed,
            "seconds": self.seconds,
            "best": self.best.row,
            "factors": [one.row for one in self.levels],
            "settings": [one.row for one in self.summaries],
            "runs": [run.to_json() for run in self.runs],
            "out": None if self.request.out is None else str(self.request.out),
        }

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of `--out`, by file name."""
        return {
            "sweep_settings": [one.row for one in self.summaries],
            "sweep_factors": [one.row for one in self.levels],
            "sweep_runs": [run.to_json() for run in self.runs],
        }

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of `--out`, by file name."""
        from residualign.figures.fitting import sweep_figures

        title = self.data.rstrip("/").rsplit("/", 1)[-1]
        return sweep_figures(self.tables["sweep_settings"], title, self.zero_shot, name="sweep_factors")


def run(request: SweepRequest, progress: Progress = SILENT) -> SweepOutcome:
    """Fit the grid. With `out`, runs are saved as they end, and the same request resumes.

    A larger grid reuses the runs of a smaller one; what all runs share (store, components, mean, rest, shots,
    classifier) has to be the same. Bad input is refused before images are read where possible.
    """
    from residualign._files import DirectoryLock
    from residualign.inputs.classifier import chosen_classifier, classifier_kind
    from residualign.inputs.spectra import spectra_of_bases
    from residualign.inputs.store import analyzed_split, analyzed_store
    from residualign.runs.files import with_files
    from residualign.runs.folder import STORE_NAME, RunLog

    _check_out(request)
    # unknown levels are refused before the pass
    request.settings(request.basis or ("target",))
    inside = None if request.out is None or request.data is None else str(request.out / STORE_NAME)
    with (
        nullcontext() if request.out is None else DirectoryLock(request.out),
        analyzed_store(request, progress, keep=inside, uses_text=request.classifier != "means") as (store, subject),
    ):
        began = time.perf_counter()
        store = store.in_memory()
        for name in ("train", "val"):
            analyzed_split(store, name)
        spectra = spectra_of_bases(request.basis, store, subject, request.reference, progress, seed=request.seed)
        classifier = chosen_classifier(request, subject, store, progress)
        log = RunLog(request.out, _common(request, store, spectra, classifier), overwrite=request.overwrite)
        runs, resumed = _fitted(request, store, spectra, classifier, log, progress)
        outcome = SweepOutcome(
            request=request,
            model=str(store.model["name"]),
            data=str(store.data["name"]),
            classifier=classifier_kind(classifier, store),
            zero_shot=runs[0].zero_shot,
            sizes={name: len(store.split(name)) for name in store.splits},
            bases={name: one.source for name, one in spectra.items()},
            runs=runs,
            resumed=resumed,
            seconds=time.perf_counter() - began,
        )
    return with_files(outcome, "sweep")


def _fitted(
    request: SweepRequest,
    store: Store,
    spectra: dict[str, Spectra],
    classifier: Classifier | str | None,
    log: Any,
    progress: Progress,
) -> tuple[tuple[Run, ...], int]:
    """The runs of the grid, and how many of them are from an earlier run."""
    from residualign.fitting.sweep import Run, run_setting

    settings = request.settings(tuple(spectra))
    known = {one.setting: one for one in map(Run.from_json, log.records)}
    resumed = sum(setting in known for setting in settings)
    with progress.task("runs") as tick:
        for i, setting in enumerate(settings):
            if setting not in known:
                known[setting] = run_setting(
                    store,
                    spectra,
                    setting,
                    classifier=classifier,
                    mean=request.scaled_mean,
                    rest=request.rest,
                    shots=request.few,
                )
                log.add(known[setting].to_json())
            tick(i + 1, len(settings))
    return tuple(known[setting] for setting in settings), resumed


def _check_out(request: SweepRequest) -> None:
    """A folder with runs is resumed; other content is refused, as for any analysis."""
    from residualign.runs.files import check_analysis_files
    from residualign.runs.folder import RUNS_NAME, STORE_NAME

    begun = request.out is not None and (request.out / RUNS_NAME).is_file()
    unfinished = request.out is not None and (request.out / STORE_NAME).is_dir()
    check_analysis_files(request.out, request.format, request.overwrite or begun or unfinished)


def _common(
    request: SweepRequest, store: Store, spectra: dict[str, Spectra], classifier: Classifier | str | None
) -> dict[str, Any]:
    """What all runs of one file have in common."""
    from residualign.inputs.classifier import classifier_kind

    words: dict[str, Any] = {"classes": str(request.classes)} if request.classes is not None else {}
    words |= {"template": list(request.template)} if request.template else {}
    return {
        "store": store.fingerprint,
        "mean": request.scaled_mean,
        "rest": request.rest,
        "shots": request.few,
        "classifier": classifier_kind(classifier, store),
        # a model and data have both in the fingerprint of their store
        **(words if request.data is None else {}),
        **({"quick": True} if request.quick and request.data is None else {}),
        **{f"{name} basis": one.fingerprint for name, one in spectra.items()},
    }
