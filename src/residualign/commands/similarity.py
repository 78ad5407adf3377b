"""`residualign similarity`: how similar the components of every unit are between data sets, or between models."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    Files,
    Loading,
    Seed,
    Split,
    UnitLabels,
    VarianceThreshold,
    argument,
    flag,
)

if TYPE_CHECKING:
    from residualign.similarity.sources import Compared, Source

__all__ = ["SimilarityOutcome", "SimilarityRequest", "run"]


@dataclass(frozen=True, kw_only=True)
class SimilarityRequest(Loading, Files):
    """Compare the principal components of every unit between stores, or between data sets of one model.

    Takes two or more stores, or a MODEL and two or more DATA; the first is compared with each of the others. Prints the
    normalized spectral cosine per layer: between 0 and 1, 1 for the same components. Stores of the same images are also
    compared by CKA, which works across models.
    """

    sources: Annotated[
        tuple[str, ...],
        argument(
            "STORE STORE|MODEL DATA DATA",
            "Two or more stores (or spectra files), or a model and two or more data sets.",
        ),
    ]
    split: Split = "train"
    unit: UnitLabels = ()
    variance_threshold: VarianceThreshold = 0.9
    pairs: Annotated[bool, flag("--pairs", METHOD, "Also compare every head with every other head.")] = False
    matching: Annotated[
        Literal["greedy", "optimal"],
        flag(
            "--matching",
            METHOD,
            "How --pairs matches components: greedy as published, or the optimal assignment, which takes longer.",
        ),
    ] = "greedy"
    same_space: Annotated[
        bool,
        flag(
            "--same-space",
            METHOD,
            "Compare models with different weights that share an output space, such as fine-tuned variants of one "
            "model.",
        ),
    ] = False
    anchors: Annotated[
        int,
        flag(
            "--anchors",
            METHOD,
            "Number of images of the first source that relative representations use as anchors; 0 for none.",
            metavar="N",
            min=0,
        ),
    ] = 100
    seed: Seed = 0


@dataclass(frozen=True, repr=False, eq=False)
class SimilarityOutcome(Result):
    """The first source compared with each of the others, and the images that were skipped."""

    request: SimilarityRequest
    compared: tuple[Compared, ...]
    skipped: tuple[str, ...]
    files: tuple[Path, ...] = ()

    @property
    def first(self) -> Source:
        """The source that the others are compared with."""
        return self.compared[0].first

    def to_json(self) -> dict[str, Any]:
        """What `similarity --json` prints."""
        request = self.request
        # the JSON file itself does not list the other files
        files = {"files": [str(path) for path in self.files] or None} if self.files or request.out is None else {}
        return {
            "split": request.split,
            "variance_threshold": request.variance_threshold,
            "anchors": request.anchors,
            "seed": request.seed,
            "same_space": request.same_space,
            "first": self.first.describe(),
            "comparisons": [
                {name: value for name, value in compared.result.to_json().items() if name != "first"}
                | {"second": compared.second.describe()}
                for compared in self.compared
            ],
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            **files,
        }

    @property
    def tables(self) -> dict[str, Any]:
        """`units` and `layers`, and `pairs` where they were asked for, a row for each comparison and unit."""
        tables: dict[str, list[Any]] = {"units": [], "layers": [], "pairs": []}
        for compared in self.compared:
            for name, rows in compared.result.tables.items():
                tables[name] += rows
        return {name: table for name, table in tables.items() if table}

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of `--out`, by file name."""
        from residualign.figures.similarity import similarity_figures

        return similarity_figures(self.tables)


def run(request: SimilarityRequest, progress: Progress = SILENT) -> SimilarityOutcome:
    """Compare the first source with each of the others, and write tables and figures.

    A spectra file can take the place of a store; without activations there are no anchors and no CKA. `BadInputError`
    for sources that are neither, and for models of different weights whose images differ too, unless `same_space`.
    """
    from residualign.errors import BadInputError
    from residualign.inputs.sources import opened_sources
    from residualign.inputs.store import chosen_units
    from residualign.runs.files import check_analysis_files, with_files
    from residualign.similarity.sources import compare_sources

    if not 0 < request.variance_threshold <= 1:
        raise BadInputError(f"--variance-threshold must be above 0 and at most 1, got {request.variance_threshold:g}")
    if request.anchors == 1:
        raise BadInputError("--anchors must be 0 or at least 2: a correlation over one anchor is not defined")
    if request.matching != "greedy" and not request.pairs:
        raise BadInputError("--matching applies to --pairs; give --pairs too")
    check_analysis_files(request.out, request.format, request.overwrite)
    with ExitStack() as opened:
        found = opened_sources(opened, request.sources, request, progress, split=request.split, units=request.unit)
        units = chosen_units(found[0].spectra.units, request.unit)
        compared = compare_sources(found, units, request, progress)
        skipped = {key: None for source in found if source.split is not None for key in source.split.store.skipped}
        outcome = SimilarityOutcome(request, compared, tuple(skipped))
    return with_files(outcome, "similarity")
