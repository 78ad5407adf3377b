"""`residualign lambdas`: what an adapter learned, which components moved and what accuracy they carry."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    AdapterDir,
    Encoder,
    Files,
    GivenStore,
    Loading,
    ModelPath,
    Quick,
    Seed,
    Split,
    Top,
    flag,
)

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.adapter.lambdas import LearningCurve, MovedComponent, PutBackCurve
    from residualign.adapter.stability import Stability, Vary
    from residualign.spectrum import Spectra
    from residualign.store import Store

__all__ = ["LambdasOutcome", "LambdasRequest", "run"]

_N_RANDOM = 5
_VARIED: tuple[Vary, ...] = ("start", "images")


@dataclass(frozen=True, kw_only=True)
class LambdasRequest(Encoder, Files):
    """Show what an adapter learned: which components moved, and what accuracy they carry.

    Prints the components that moved the embedding most, how accuracy falls as lambdas are reset to 1, and with --seeds
    how well fits with different seeds agree. The store is by default the one of the run that DIR belongs to; with
    --quick, a sample of its images is measured and fitted.
    """

    adapter: AdapterDir
    store: GivenStore = None
    split: Split = "test"
    seeds: Annotated[
        int,
        flag(
            "--seeds",
            METHOD,
            "Number of fits to compare, with seeds from --seed on; 1 compares none.",
            metavar="N",
            min=1,
        ),
    ] = 1
    top: Top = 20
    quick: Quick = False
    seed: Seed = 0
    model: ModelPath = None


@dataclass(frozen=True, repr=False, eq=False)
class LambdasOutcome(Result):
    """moved: every lambda, largest effect first. put_back: largest first, smallest first, and random orders.

    stability: by what the seed changed, the start or the training images; empty unless several seeds were asked for.
    """

    request: LambdasRequest
    adapter: Adapter
    store: str
    moved: tuple[MovedComponent, ...]
    put_back: tuple[PutBackCurve, ...]
    curves: tuple[LearningCurve, ...]
    stability: dict[Vary, tuple[Stability, ...]]
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `lambdas --json` prints: the `top` components that moved most; the files have all of them."""
        request = self.request
        return {
            "adapter": os.fspath(request.adapter),
            "model": self.adapter.model_info.get("name"),
            "method": self.adapter.method,
            "store": self.store,
            "split": request.split,
            "n_images": self.put_back[0].n_images,
            "n_lambdas": len(self.moved),
            "scale_free": self.adapter.full_scaling.scale_free,
            "top": request.top,
            "moved": [one.to_json() for one in self.moved[: request.top]],
            "put_back": [curve.to_json() for curve in self.put_back],
            "lambdas_that_carry": {
                f"{100 - 100 * share:.0f} %": self.put_back[0].needed_for(share) for share in (0.5, 0.1)
            },
            "seeds": request.seeds,
            "stability": {name: [one.to_json() for one in found] for name, found in self.stability.items()},
            "learning_curves": [row for curve in self.curves for row in curve.rows()],
        }

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of `--out`, by file name; `stability` where several seeds were compared."""
        tables: dict[str, Any] = {
            "moved": [one.to_json() for one in self.moved],
            "put_back": [
                {"order": curve.order, "seed": curve.seed, "put_back": n, "accuracy": accuracy}
                for curve in self.put_back
                for n, accuracy in zip(curve.put_back, curve.accuracy, strict=True)
            ],
            "learning_curves": [row for curve in self.curves for row in curve.rows()],
        }
        if self.stability:
            tables["stability"] = [
                {"varied": vary, **one.to_json()} for vary, found in self.stability.items() for one in found
            ]
        return tables

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of `--out`, by file name."""
        from residualign.figures.fitting import lambda_figures

        return lambda_figures(
            self.tables,
            n_images=self.put_back[0].n_images,
            scale_free=self.adapter.full_scaling.scale_free,
            top=self.request.top,
        )


def run(request: LambdasRequest, progress: Progress = SILENT) -> LambdasOutcome:
    """Read the lambdas on one split, and write tables and figures.

    `BadInputError` for an adapter without lambdas and if no store is found.
    """
    from residualign.adapter.adapter import load_adapter
    from residualign.adapter.lambdas import learning_curve
    from residualign.errors import BadInputError
    from residualign.extraction import fit_spectrum
    from residualign.runs.files import check_analysis_files, with_files

    check_analysis_files(request.out, request.format, request.overwrite)
    adapter = load_adapter(request.adapter, model=request.model, device=request.device, dtype=request.dtype)
    if "lambdas" not in adapter.learned:
        raise BadInputError(
            f"method {adapter.method!r} has no lambdas; {request.adapter} contains no other adapter; give the DIR of "
            "a method that learns them"
        )
    store = _store_of(request).in_memory()
    adapter.attach_store(store)
    spectra = fit_spectrum(store)
    outcome = LambdasOutcome(
        request,
        adapter=adapter,
        store=store.path,
        moved=adapter.moved(spectra).components,
        put_back=_put_back(request, adapter, store, spectra, progress),
        curves=learning_curve(adapter.history),
        stability=_stability(request, adapter, store, progress) if request.seeds > 1 else {},
    )
    return with_files(outcome, "lambdas")


def _put_back(
    request: LambdasRequest, adapter: Adapter, store: Store, spectra: Spectra, progress: Progress
) -> tuple[PutBackCurve, ...]:
    """Accuracy as lambdas are reset to 1: largest effect first, smallest first, and in random orders."""
    from residualign.adapter.lambdas import put_back_curve
    from residualign.classification.evaluation import match_classes
    from residualign.inputs.store import analyzed_split

    part = analyzed_split(store, request.split)
    coordinates = part.coordinates()
    # adapter and store may list the classes in a different order
    labels = match_classes(adapter.class_names, store.class_names)[part.labels]
    plans = [("largest", 0), ("smallest", 0), *(("random", request.seed + i) for i in range(_N_RANDOM))]
    curves = []
    with progress.task("orders") as tick:
        for i, (order, seed) in enumerate(plans):
            curves.append(put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra, order=order, seed=seed))
            tick(i + 1, len(plans))
    return tuple(curves)


def _stability(
    request: LambdasRequest, adapter: Adapter, store: Store, progress: Progress
) -> dict[Vary, tuple[Stability, ...]]:
    """Fits with the settings of the adapter, and how their lambdas correlate."""
    from residualign.adapter.stability import fit_seeds, lambda_stability
    from residualign.fitting.fit import FitSettings
    from residualign.inputs.spectra import choose_spectra
    from residualign.inputs.subject import Subject

    settings = adapter.settings
    loading = Loading(device=request.device, dtype=request.dtype)
    subject = Subject(request.model or str(store.model["name"]), loading, store=store, recorded=request.model is None)
    spectra = choose_spectra(
        store, subject, None, progress, shots=settings.get("shots"), seed=settings.get("seed", 0)
    ).spectra
    if adapter.spectra.get("fingerprint") not in (None, spectra.fingerprint):
        progress.warn(
            f"the fits to compare use components of {spectra.source}; those of the adapter are of "
            f"{adapter.spectra.get('source')}"
        )
    # class means are recomputed from the images of the store
    classifier = "means" if adapter.base_classifier.kind == "means" else adapter.base_classifier
    found: dict[Vary, tuple[Stability, ...]] = {}
    with progress.task("fits") as tick:
        for i, vary in enumerate(_VARIED):
            fits: list[Any] = []
            for k in range(request.seeds):
                fits += fit_seeds(
                    store,
                    [request.seed + k],
                    adapter.method,
                    spectra,
                    vary=vary,
                    classifier=classifier,
                    settings=FitSettings.of_record(settings),
                )
                tick(i * request.seeds + k + 1, len(_VARIED) * request.seeds)
            found[vary] = lambda_stability(fits, spectra)
    return found


def _store_of(request: LambdasRequest) -> Store:
    """The given store or that of the adapter's run, or a sample of it. A method's own folder is two levels deeper."""
    from residualign.inputs.sample import sample_of_store
    from residualign.runs.folder import METHODS_NAME
    from residualign.runs.opened import store_of_run
    from residualign.store import Store

    if request.store is not None:
        store = Store.open(request.store)
    else:
        folder = request.adapter
        store = store_of_run(folder.parent.parent if folder.parent.name == METHODS_NAME else folder)
    return sample_of_store(store) if request.quick else store
