"""What an adapter learned, read back: which components moved, what they are worth, how stable they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residualign._progress import Progress
from residualign.adapter.adapter import Adapter, load_adapter
from residualign.adapter.lambdas import (
    LearningCurve,
    MovedComponent,
    PutBackCurve,
    learning_curve,
    put_back_curve,
)
from residualign.adapter.stability import Stability, Vary, fit_seeds, lambda_stability
from residualign.classification.evaluation import match_classes
from residualign.commands._inputs import Machine, Subject, analysed_split
from residualign.commands._spectra import choose_spectra
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.fitting.fit import FitSettings, Fitted
from residualign.runs.files import check_analysis_files, write_analysis_files
from residualign.runs.folder import METHODS_NAME
from residualign.runs.opened import store_of_run
from residualign.store import Store

__all__ = ["LambdasOutcome", "run_lambdas"]

N_RANDOM = 5
VARIED: tuple[Vary, ...] = ("start", "images")


@dataclass(frozen=True)
class LambdasOutcome:
    """moved: every lambda, largest effect first. put_back: largest first, smallest first, and random orders.

    stability: by what a seed decided, the start or the training images; empty unless several seeds were asked for.
    """

    adapter: Adapter
    folder: str
    store: str
    split: str
    moved: tuple[MovedComponent, ...]
    put_back: tuple[PutBackCurve, ...]
    curves: tuple[LearningCurve, ...]
    stability: dict[Vary, tuple[Stability, ...]]
    seeds: int
    top: int

    def to_json(self) -> dict[str, Any]:
        """What `lambdas --json` prints: the `top` components that moved most; the files have all of them."""
        return {
            "adapter": self.folder,
            "model": self.adapter.model_info.get("name"),
            "method": self.adapter.method,
            "store": self.store,
            "split": self.split,
            "n_images": self.put_back[0].n_images,
            "n_lambdas": len(self.moved),
            "scale_free": self.adapter.full_scaling.scale_free,
            "top": self.top,
            "moved": [one.to_json() for one in self.moved[: self.top]],
            "put_back": [curve.to_json() for curve in self.put_back],
            "lambdas_that_carry": {
                f"{100 - 100 * share:.0f} %": self.put_back[0].needed_for(share) for share in (0.5, 0.1)
            },
            "seeds": self.seeds,
            "stability": {name: [one.to_json() for one in found] for name, found in self.stability.items()},
            "learning_curves": [row for curve in self.curves for row in curve.rows()],
        }


def run_lambdas(
    folder: str | os.PathLike[str],
    machine: Machine,
    *,
    store: str | None = None,
    split: str = "test",
    seeds: int = 1,
    top: int = 20,
    seed: int = 0,
    model: str | None = None,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> LambdasOutcome:
    """Do everything `residualign lambdas` does.

    store: the coordinates to read the lambdas on; None finds the one of the run the adapter lies in. seeds: above one,
    so many further fits for each of `VARIED`. `BadInputError` for an adapter without lambdas and where no store is at
    hand.
    """
    check_analysis_files(out, formats, overwrite)
    adapter = load_adapter(folder, device=machine.device, dtype=machine.dtype)
    if "lambdas" not in adapter.learned:
        raise BadInputError(f"method {adapter.method!r} has no lambdas to read; {folder} holds no other adapter")
    found = _store_of(Path(folder), store).in_memory()
    adapter.attach_store(found)
    part = analysed_split(found, split)
    coordinates = part.coordinates()
    # both may list the same classes in another order
    labels = match_classes(adapter.class_names, found.class_names)[part.labels]
    spectra = fit_spectrum(found)
    curves = []
    plans = [("largest", 0), ("smallest", 0), *(("random", seed + i) for i in range(N_RANDOM))]
    with progress.task("orders") as tick:
        for i, (order, own_seed) in enumerate(plans):
            curves.append(
                put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra, order=order, seed=own_seed)
            )
            tick(i + 1, len(plans))
    outcome = LambdasOutcome(
        adapter=adapter,
        folder=os.fspath(folder),
        store=found.path,
        split=split,
        moved=adapter.moved(spectra).components,
        put_back=tuple(curves),
        curves=learning_curve(adapter.history),
        stability=_stability(adapter, found, machine, model, seed, seeds, progress) if seeds > 1 else {},
        seeds=seeds,
        top=top,
    )
    if out is not None:
        _write(outcome, out, formats)
    return outcome


def _stability(
    adapter: Adapter, store: Store, machine: Machine, model: str | None, seed: int, seeds: int, progress: Progress
) -> dict[Vary, tuple[Stability, ...]]:
    """Fits with the settings of the adapter, and how their lambdas correlate."""
    settings = adapter.settings
    subject = Subject(model or str(store.model["name"]), machine, store=store)
    spectra = choose_spectra(store, subject.model, None, progress=progress).spectra
    # class means are made anew from the images at hand, each time
    classifier = "means" if adapter.base_classifier.kind == "means" else adapter.base_classifier
    names = {"threshold": "variance_threshold"}
    chosen = FitSettings(
        **{
            names.get(name, name): settings[name]
            for name in ("mean", "rest", "shots", "threshold", "loss")
            if settings.get(name)
        }
    )
    found: dict[Vary, tuple[Stability, ...]] = {}
    with progress.task("fits") as tick:
        for i, vary in enumerate(VARIED):
            fits: list[Fitted] = []
            for k in range(seeds):
                fits += fit_seeds(
                    store, [seed + k], adapter.method, spectra, vary=vary, classifier=classifier, settings=chosen
                )
                tick(i * seeds + k + 1, len(VARIED) * seeds)
            found[vary] = lambda_stability(fits, spectra)
    return found


def _store_of(folder: Path, given: str | None) -> Store:
    """The store that was named, or that of the run the adapter lies in: one of several methods lies a level deeper."""
    if given is not None:
        return Store.open(given)
    return store_of_run(folder.parent.parent if folder.parent.name == METHODS_NAME else folder)


def _write(outcome: LambdasOutcome, out: str | os.PathLike[str], formats: Sequence[str] | None) -> None:
    from residualign.figures.lambdas import lambda_figures

    tables = {
        "moved": [one.to_json() for one in outcome.moved],
        "put_back": [
            {"order": curve.order, "seed": curve.seed, "put_back": n, "accuracy": accuracy}
            for curve in outcome.put_back
            for n, accuracy in zip(curve.put_back, curve.accuracy, strict=True)
        ],
        "learning_curves": [row for curve in outcome.curves for row in curve.rows()],
    }
    if outcome.stability:
        tables["stability"] = [
            {"varied": vary, **one.to_json()} for vary, found in outcome.stability.items() for one in found
        ]
    figures = lambda_figures(
        tables,
        n_images=outcome.put_back[0].n_images,
        scale_free=outcome.adapter.full_scaling.scale_free,
        top=outcome.top,
    )
    write_analysis_files(out, "lambdas", outcome.to_json(), tables, figures, formats)
