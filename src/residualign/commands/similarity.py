"""Comparing stores, spectra files, or several data sets of one model: the first with each of the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residualign._progress import Progress
from residualign.commands._inputs import Machine, analysed_split, analysed_store, chosen_units
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.similarity import (
    CkaPairs,
    Comparison,
    HeadPairs,
    MeanSimilarity,
    RelativeMeans,
    SpectraSimilarity,
    UnitCka,
    cka_by_unit,
    cka_pairs,
    compare_heads,
    compare_means,
    compare_spectra,
    draw_anchors,
    relative_means,
)
from residualign.similarity.cka import same_images
from residualign.similarity.result import Matching
from residualign.spectrum import Spectra
from residualign.store import StoreSplit
from residualign.units import Unit

__all__ = [
    "Compared",
    "Settings",
    "SimilarityOutcome",
    "Source",
    "run_similarity",
    "similarity_payload",
    "similarity_tables",
]


@dataclass(frozen=True)
class Settings:
    """What is compared and how; `unit_labels` None stands for all units."""

    split: str = "train"
    variance_threshold: float = 0.9
    pairs: bool = False
    matching: Matching = "greedy"
    same_space: bool = False
    anchors: int = 100
    seed: int = 0
    unit_labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """One set of images of one model: its components, and its coordinates unless it is a spectra file."""

    name: str
    typed: str
    model: str
    spectra: Spectra
    split: StoreSplit | None

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "source": self.spectra.source,
            "model": self.model,
            "model_fingerprint": self.spectra.model_fingerprint,
            "n_images": self.spectra.n_samples,
        }


@dataclass(frozen=True)
class Compared:
    """The first source beside one other. None: what cannot be said of the two, or was not asked for.

    spectral, means: only of one space. cka: only of the same images, by unit where both towers have the same units, and
    of the output, which comes last.
    pairs, pairs_cka: heads of the first (rows) with heads of the second (columns).
    """

    first: Source
    second: Source
    units: tuple[Unit, ...]
    spectral: SpectraSimilarity | None
    means: tuple[MeanSimilarity, ...] | None
    cka: tuple[UnitCka, ...] | None
    pairs: HeadPairs | None
    pairs_cka: CkaPairs | None

    @property
    def result(self) -> Comparison:
        """What was found, without the sources."""
        alike = self.first.spectra.units == self.second.spectra.units
        return Comparison(
            first=self.first.name,
            second=self.second.name,
            units=self.units if alike else (),
            spectral=self.spectral,
            means=self.means,
            cka=self.cka,
            pairs=self.pairs,
            pairs_cka=self.pairs_cka,
        )


@dataclass(frozen=True)
class SimilarityOutcome:
    """What `similarity` found."""

    settings: Settings
    compared: tuple[Compared, ...]
    skipped: tuple[str, ...]

    @property
    def first(self) -> Source:
        """What the others are compared with."""
        return self.compared[0].first


def run_similarity(
    sources: Sequence[str],
    machine: Machine,
    settings: Settings,
    *,
    stream: bool = False,
    skip_bad: bool = False,
    progress: Progress,
) -> SimilarityOutcome:
    """Compare STORE STORE..., or the data sets of MODEL DATA DATA...: the first with each other one.

    A spectra file may stand for a store; without activations there are no anchors and no CKA. Raises `BadInputError`
    for sources that are neither, and for models of other weights whose images differ too, unless `same_space` vouches
    for them.
    """
    if not 0 < settings.variance_threshold <= 1:
        raise BadInputError(f"--variance is a share above 0 and at most 1, got {settings.variance_threshold:g}")
    if settings.anchors == 1:
        raise BadInputError("--anchors is 0 or at least 2: a correlation over one anchor says nothing")
    with ExitStack() as opened:
        found = _sources(opened, sources, machine, settings, stream, skip_bad, progress)
        first = found[0]
        for other in found[1:]:
            _check_comparable(first, other, settings)
        units = chosen_units(first.spectra.units, settings.unit_labels)
        relative = _relative_means(found, settings, progress)
        compared = tuple(
            _compare(first, other, units, (relative[0], means), settings, progress)
            for other, means in zip(found[1:], relative[1:], strict=True)
        )
        skipped = {key: None for source in found if source.split is not None for key in source.split.store.skipped}
    return SimilarityOutcome(settings, compared, tuple(skipped))


def _sources(
    opened: ExitStack,
    typed: Sequence[str],
    machine: Machine,
    settings: Settings,
    stream: bool,
    skip_bad: bool,
    progress: Progress,
) -> list[Source]:
    of_model = not _is_made(typed[0])
    if len(typed) < (3 if of_model else 2):
        raise BadInputError(
            f"similarity compares two or more stores (or spectra files), or two or more data sets of one model, MODEL "
            f"DATA DATA; got {' '.join(map(repr, typed))}"
        )
    given = typed[1:] if of_model else typed
    parts: list[StoreSplit | Spectra] = []
    for source in given:
        if not of_model and _is_spectra_file(source):
            parts.append(Spectra.load(source))
            continue
        model_or_store, data = (typed[0], source) if of_model else (source, None)
        context = analysed_store(
            model_or_store,
            data,
            machine,
            stream=stream,
            skip_bad=skip_bad,
            units=settings.unit_labels or None,
            progress=progress,
        )
        store, _ = opened.enter_context(context)
        parts.append(analysed_split(store, settings.split))
    names = _names(given, parts)
    found = []
    with progress.task("principal components") as tick:
        for i, (name, source, part) in enumerate(zip(names, given, parts, strict=True)):
            if isinstance(part, Spectra):
                found.append(Source(name, source, "unknown", part, None))
            else:
                spectra = fit_spectrum(part.store, split=settings.split)
                found.append(Source(name, source, str(part.store.model["name"]), spectra, part))
            tick(i + 1, len(given))
    return found


def _is_spectra_file(source: str) -> bool:
    return source.endswith(".safetensors") and Path(source).expanduser().is_file()


def _is_made(source: str) -> bool:
    """Whether this is a store or a spectra file, and no model."""
    here = Path(source).expanduser()
    holds_store = any((here / name).exists() for name in ("manifest.json", "unfinished.json"))
    return "://" in source or holds_store or _is_spectra_file(source)


def _names(typed: Sequence[str], parts: Sequence[StoreSplit | Spectra]) -> list[str]:
    """The data's own name where that tells the sources apart, else what was typed."""
    own = [part.source if isinstance(part, Spectra) else str(part.store.data["name"]) for part in parts]
    for names in (own, list(typed)):
        short = [os.path.basename(name.rstrip("/")) or name for name in names]
        for candidates in (short, names):
            if len(set(candidates)) == len(candidates):
                return list(candidates)
    return [f"{i + 1}: {name}" for i, name in enumerate(own)]


def _in_one_space(first: Source, other: Source, settings: Settings) -> bool:
    # spectra of an older file may not say whose they are: then the user's choice of files is taken as the answer
    known = (first.spectra.model_fingerprint, other.spectra.model_fingerprint)
    return settings.same_space or not all(known) or known[0] == known[1]


def _same_images(first: Source, other: Source) -> bool:
    return first.split is not None and other.split is not None and same_images(first.split, other.split)


def _check_comparable(first: Source, other: Source, settings: Settings) -> None:
    if not (_in_one_space(first, other, settings) or _same_images(first, other)):
        raise BadInputError(
            f"{first.typed} and {other.typed} come from models with different weights; add --same-space if these are "
            "fine-tuned variants of one model, or give stores of the same images in the same order, which CKA compares"
        )


def _relative_means(found: Sequence[Source], settings: Settings, progress: Progress) -> list[RelativeMeans | None]:
    """Of every source that shares the first one's space; all None where the first has no images, or none is asked."""
    first = found[0]
    if first.split is None or settings.anchors == 0:
        return [None] * len(found)
    anchors = draw_anchors(first.split, settings.anchors, settings.seed)
    relative: list[RelativeMeans | None] = []
    with progress.task("relative to anchors") as tick:
        for i, source in enumerate(found):
            alike = source.spectra.units == first.spectra.units and source.spectra.dim == first.spectra.dim
            if source.split is not None and alike and _in_one_space(first, source, settings):
                relative.append(relative_means(source.split, anchors))
            else:
                relative.append(None)
            tick(i + 1, len(found))
    return relative


def _compare(
    first: Source,
    other: Source,
    units: tuple[Unit, ...],
    relative: tuple[RelativeMeans | None, RelativeMeans | None],
    settings: Settings,
    progress: Progress,
) -> Compared:
    a, b, same_space = first.spectra, other.spectra, settings.same_space
    spectral, means, pairs, by_unit, pairs_cka = None, None, None, None, None
    threshold = settings.variance_threshold
    if _in_one_space(first, other, settings):
        spectral = compare_spectra(a, b, variance_threshold=threshold, same_space=same_space)
        both = None if relative[0] is None or relative[1] is None else (relative[0], relative[1])
        means = compare_means(a, b, both, same_space=same_space)
        if settings.pairs:
            pairs = compare_heads(a, b, variance_threshold=threshold, matching=settings.matching, same_space=same_space)
    if _same_images(first, other):
        assert first.split is not None
        assert other.split is not None
        # of other towers only the output has a counterpart
        by_unit = cka_by_unit(first.split, other.split, units if a.units == b.units else ())
        if settings.pairs or a.units != b.units:
            with progress.task(f"CKA of heads with {other.name}") as tick:
                pairs_cka = cka_pairs(first.split, other.split, progress=tick)
    return Compared(first, other, units, spectral, means, by_unit, pairs, pairs_cka)


Line = dict[str, Any]


def similarity_payload(outcome: SimilarityOutcome) -> Line:
    """The one JSON object."""
    settings = outcome.settings
    return {
        "split": settings.split,
        "variance_threshold": settings.variance_threshold,
        "anchors": settings.anchors,
        "seed": settings.seed,
        "same_space": settings.same_space,
        "first": outcome.first.describe(),
        "comparisons": [
            {name: value for name, value in compared.result.to_json().items() if name != "first"}
            | {"second": compared.second.describe()}
            for compared in outcome.compared
        ],
        "n_skipped": len(outcome.skipped),
        "skipped": list(outcome.skipped),
    }


def similarity_tables(outcome: SimilarityOutcome) -> dict[str, list[Line]]:
    """`units` and `layers`, and `pairs` where they were asked for, a row for each comparison and unit."""
    tables: dict[str, list[Line]] = {"units": [], "layers": [], "pairs": []}
    for compared in outcome.compared:
        for name, rows in compared.result.tables.items():
            tables[name] += map(dict, rows)
    return {name: table for name, table in tables.items() if table}
