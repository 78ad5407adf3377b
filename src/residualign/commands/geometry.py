"""`geometry`: the dimensions of every unit over one split of a store, with tables and figures as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residualign._progress import Progress
from residualign.commands._inputs import Machine, analysed_split, analysed_store, chosen_units
from residualign.commands._spectra import choose_spectra
from residualign.extraction import spectra_of_split
from residualign.figures.geometry import geometry_figures
from residualign.geometry import Geometry, measure_geometry
from residualign.geometry.measure import check_settings
from residualign.runs.files import check_analysis_files, write_analysis_files

__all__ = ["GeometryOutcome", "run_geometry"]

_FEW = 200


@dataclass(frozen=True)
class GeometryOutcome:
    """What was measured, on what, and the files that were written. payload: what `--json` prints."""

    geometry: Geometry
    payload: dict[str, Any]
    files: tuple[Path, ...]


def run_geometry(
    source: str,
    data: str | None,
    machine: Machine,
    *,
    split: str = "train",
    units: Sequence[str] | None = None,
    reference: str | None = None,
    threshold: float = 0.99,
    fraction: float = 0.9,
    subsamples: int = 100,
    seed: int = 0,
    store: str | os.PathLike[str] | None = None,
    model: str | None = None,
    stream: bool = False,
    skip_bad: bool = False,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> GeometryOutcome:
    """The geometry of the units over a split of a store, or of a model and data.

    units: labels or groups as in `chosen_units`; None for all, and the model's output. reference: whose principal
    components L is counted in; None: those of the split itself. The rest as in `measure_geometry`. `BadInputError` for
    what cannot be used, before any image is read where that can be known.
    """
    check_settings(threshold, fraction, subsamples)
    check_analysis_files(out, formats, overwrite)
    with analysed_store(
        source,
        data,
        machine,
        store=store,
        model=model,
        stream=stream,
        skip_bad=skip_bad,
        units=units,
        progress=progress,
    ) as (opened, subject):
        part = analysed_split(opened, split)
        chosen = chosen_units(opened.units, units) if units else None
        if len(part) < _FEW:
            progress.warn(f"intrinsic dimensions from {len(part)} images are coarse, and too low; hundreds are needed")
        if reference is None:
            spectra, described = spectra_of_split(part, every_component=True), {"kind": "the images themselves"}
        else:
            found = choose_spectra(
                opened,
                subject.model,
                reference,
                batch_size=machine.batch_size,
                workers=machine.workers,
                stream=stream,
                skip_bad=skip_bad,
                progress=progress,
            )
            spectra, described = found.spectra, {"kind": found.kind}
        with progress.task("units") as tick:
            geometry = measure_geometry(
                part,
                spectra=spectra,
                units=chosen,
                variance_threshold=threshold,
                fraction=fraction,
                subsamples=subsamples,
                seed=seed,
                progress=tick,
            )
        payload = {
            "model": opened.model["name"],
            "data": opened.data["name"],
            "split": split,
            "spectra": {**described, "source": spectra.source, "n_images": spectra.n_samples},
            "n_skipped": len(opened.skipped),
            "skipped": list(opened.skipped),
            **geometry.to_json(),
            "out": None if out is None else str(out),
        }
    files: tuple[Path, ...] = ()
    if out is not None:
        tables = geometry.tables
        title = f"{Path(str(payload['model'])).name} on {Path(str(payload['data'])).name}, {geometry.n_images:,} images"
        figures = geometry_figures(tables, title, geometry.variance_threshold)
        files = write_analysis_files(out, "geometry", payload, tables, figures, formats)
    return GeometryOutcome(geometry, payload, files)
