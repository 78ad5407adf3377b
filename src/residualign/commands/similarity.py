"""`residualign similarity`: how similar the components of every unit are between data sets, or between models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    Files,
    Inputs,
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
    from residualign.spectrum import Spectra
    from residualign.store import StoreSplit

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
    from residualign.commands._outcome import check_files, with_files
    from residualign.errors import BadInputError
    from residualign.inputs.store import chosen_units
    from residualign.similarity.sources import compare_sources

    if not 0 < request.variance_threshold <= 1:
        raise BadInputError(f"--variance-threshold must be above 0 and at most 1, got {request.variance_threshold:g}")
    if request.anchors == 1:
        raise BadInputError("--anchors must be 0 or at least 2: a correlation over one anchor is not defined")
    if request.matching != "greedy" and not request.pairs:
        raise BadInputError("--matching applies to --pairs; give --pairs too")
    check_files(request)
    with ExitStack() as opened:
        found = _sources(opened, request, progress)
        units = chosen_units(found[0].spectra.units, request.unit)
        compared = compare_sources(found, units, request, progress)
        skipped = {key: None for source in found if source.split is not None for key in source.split.store.skipped}
        outcome = SimilarityOutcome(request, compared, tuple(skipped))
    return with_files(outcome, request, "similarity")


def _sources(opened: ExitStack, request: SimilarityRequest, progress: Progress) -> list[Source]:
    """Every source with its components; stores made from data are removed when `opened` closes."""
    from residualign.errors import BadInputError
    from residualign.extraction import fit_spectrum
    from residualign.similarity.sources import Source
    from residualign.spectrum import Spectra

    typed = request.sources
    of_model = not _is_made(typed[0])
    if len(typed) < (3 if of_model else 2):
        raise BadInputError(
            "similarity compares two or more stores (or spectra files), or two or more data sets of one model, MODEL "
            f"DATA DATA; got {' '.join(map(repr, typed))}"
        )
    given = typed[1:] if of_model else typed
    parts: list[StoreSplit | Spectra] = []
    for source in given:
        if not of_model and _is_spectra_file(source):
            parts.append(Spectra.load(source))
        else:
            model_or_store, data = (typed[0], source) if of_model else (source, None)
            parts.append(_split(opened, request, model_or_store, data, progress))
    names = _names(given, parts)
    found = []
    with progress.task("principal components") as tick:
        for i, (name, source, part) in enumerate(zip(names, given, parts, strict=True)):
            if isinstance(part, Spectra):
                found.append(Source(name, source, "unknown", part, None))
            else:
                spectra = fit_spectrum(part.store, split=request.split)
                found.append(Source(name, source, str(part.store.model["name"]), spectra, part))
            tick(i + 1, len(given))
    return found


def _split(
    opened: ExitStack, request: SimilarityRequest, source: str, data: str | None, progress: Progress
) -> StoreSplit:
    """The images of a store, or of one made from a model and data."""
    from residualign.inputs.store import analyzed_split, analyzed_store

    loading = {one.name: getattr(request, one.name) for one in fields(Loading)}
    inputs = Inputs(source=source, data=data, **loading)
    store, _ = opened.enter_context(analyzed_store(inputs, progress, units=request.unit))
    return analyzed_split(store, request.split)


def _is_spectra_file(source: str) -> bool:
    return source.endswith(".safetensors") and Path(source).expanduser().is_file()


def _is_made(source: str) -> bool:
    """Whether this is a store or a spectra file rather than a model."""
    here = Path(source).expanduser()
    holds_store = any((here / name).exists() for name in ("manifest.json", "unfinished.json"))
    return "://" in source or holds_store or _is_spectra_file(source)


def _names(typed: Sequence[str], parts: Sequence[StoreSplit | Spectra]) -> list[str]:
    """The data's own name if that tells the sources apart, else what was given."""
    from residualign.spectrum import Spectra

    own = [part.source if isinstance(part, Spectra) else str(part.store.data["name"]) for part in parts]
    for names in (own, list(typed)):
        short = [os.path.basename(name.rstrip("/")) or name for name in names]
        for candidates in (short, names):
            if len(set(candidates)) == len(candidates):
                return list(candidates)
    return [f"{i + 1}: {name}" for i, name in enumerate(own)]
