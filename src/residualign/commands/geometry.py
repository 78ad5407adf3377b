"""`residualign geometry`: the dimensions of every unit over one split of a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._messages import plural
from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    Files,
    Inputs,
    Reference,
    Seed,
    Split,
    UnitLabels,
    VarianceThreshold,
    flag,
)

if TYPE_CHECKING:
    from residualign.geometry import Geometry

__all__ = ["GeometryOutcome", "GeometryRequest", "run"]

_FEW = 200


@dataclass(frozen=True, kw_only=True)
class GeometryRequest(Inputs, Files):
    """Measure the linear and intrinsic dimension of every unit, and how they change with depth.

    Takes MODEL and DATA, or a STORE. L: number of principal components that explain 0.99 of the variance. N: intrinsic
    dimension (TwoNN). PC 1: share of the variance that the first component explains. PR: participation ratio.
    Intervals are 95 %, from half-samples of the images.
    """

    split: Split = "train"
    unit: UnitLabels = ()
    variance_threshold: VarianceThreshold = 0.99
    fraction: Annotated[
        float,
        flag(
            "--fraction",
            METHOD,
            "Share of the points, smallest distance ratios first, that TwoNN is fitted to.",
            metavar="SHARE",
        ),
    ] = 0.9
    subsamples: Annotated[
        int,
        flag(
            "--subsamples",
            METHOD,
            "Number of half-sample resamples for confidence intervals, an even number; 0 for none.",
            metavar="N",
            min=0,
        ),
    ] = 100
    reference: Reference = None
    seed: Seed = 0


@dataclass(frozen=True, repr=False, eq=False)
class GeometryOutcome(Result):
    """What was measured, on what, and the files that were written. components: where the components are from."""

    request: GeometryRequest
    geometry: Geometry
    model: str
    data: str
    components: dict[str, Any]
    skipped: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `geometry --json` prints."""
        return {
            "model": self.model,
            "data": self.data,
            "split": self.request.split,
            "spectra": self.components,
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            **self.geometry.to_json(),
            "out": None if self.request.out is None else str(self.request.out),
        }

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of `--out`, by file name."""
        return self.geometry.tables

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of `--out`, by file name."""
        from residualign.figures.geometry import geometry_figures

        title = f"{Path(self.model).name} on {Path(self.data).name}, {plural(self.geometry.n_images, 'image')}"
        return geometry_figures(self.tables, title, self.geometry.variance_threshold)


def run(request: GeometryRequest, progress: Progress = SILENT) -> GeometryOutcome:
    """Measure a split, and write tables and figures. Bad input is refused before any image is read where possible."""
    from residualign.extraction import spectra_of_split
    from residualign.geometry import measure_geometry
    from residualign.geometry.measure import Settings
    from residualign.inputs.spectra import choose_spectra
    from residualign.inputs.store import analyzed_split, analyzed_store, chosen_units
    from residualign.runs.files import check_analysis_files, with_files

    # refuses numbers that are out of range
    Settings(request.variance_threshold, request.fraction, request.subsamples, request.seed)
    check_analysis_files(request.out, request.format, request.overwrite)
    with analyzed_store(request, progress, units=request.unit) as (store, subject):
        part = analyzed_split(store, request.split)
        chosen = chosen_units(store.units, request.unit) if request.unit else None
        if len(part) < _FEW:
            progress.warn(
                f"intrinsic dimensions from {len(part)} images are coarse and too low; use several hundred images"
            )
        if request.reference is None:
            spectra, kind = spectra_of_split(part, every_component=True), "the images themselves"
        else:
            found = choose_spectra(store, subject, request.reference, progress, seed=request.seed)
            spectra, kind = found.spectra, found.kind
        with progress.task("units") as tick:
            geometry = measure_geometry(
                part,
                spectra=spectra,
                units=chosen,
                variance_threshold=request.variance_threshold,
                fraction=request.fraction,
                subsamples=request.subsamples,
                seed=request.seed,
                progress=tick,
            )
        outcome = GeometryOutcome(
            request,
            geometry,
            model=str(store.model["name"]),
            data=str(store.data["name"]),
            components={"kind": kind, "source": spectra.source, "n_images": spectra.n_samples},
            skipped=tuple(store.skipped),
        )
    return with_files(outcome, "geometry")
