"""Several sets of images side by side: the first compared with each of the others, by every measure that applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from residualign._progress import Progress
from residualign.errors import BadInputError
from residualign.similarity.cka import cka_by_unit, cka_pairs, same_images
from residualign.similarity.comparison import Comparison
from residualign.similarity.means import RelativeMeans, compare_means, draw_anchors, relative_means
from residualign.similarity.spectral import compare_heads, compare_spectra
from residualign.spectrum import Spectra
from residualign.store import StoreSplit
from residualign.units import Unit

__all__ = ["Compared", "Source", "compare_sources"]


@runtime_checkable
class Measures(Protocol):
    """What is measured, as the request of the command says it."""

    @property
    def variance_threshold(self) -> float: ...
    @property
    def pairs(self) -> bool: ...
    @property
    def matching(self) -> Any: ...
    @property
    def same_space(self) -> bool: ...
    @property
    def anchors(self) -> int: ...
    @property
    def seed(self) -> int: ...


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
    """The first source and one other, and what was found: None where it cannot be said, or was not asked for."""

    first: Source
    second: Source
    result: Comparison


def compare_sources(
    found: Sequence[Source], units: tuple[Unit, ...], measures: Measures, progress: Progress
) -> tuple[Compared, ...]:
    """The first source beside each of the others. `BadInputError` for sources that nothing can compare."""
    first = found[0]
    for other in found[1:]:
        _check_comparable(first, other, measures)
    relative = _relative_means(found, measures, progress)
    return tuple(
        _compare(first, other, units, (relative[0], means), measures, progress)
        for other, means in zip(found[1:], relative[1:], strict=True)
    )


def _in_one_space(first: Source, other: Source, measures: Measures) -> bool:
    # spectra of an older file may not say whose they are: then the user's choice of files is taken as the answer
    known = (first.spectra.model_fingerprint, other.spectra.model_fingerprint)
    return measures.same_space or not all(known) or known[0] == known[1]


def _same_images(first: Source, other: Source) -> bool:
    return first.split is not None and other.split is not None and same_images(first.split, other.split)


def _check_comparable(first: Source, other: Source, measures: Measures) -> None:
    if not (_in_one_space(first, other, measures) or _same_images(first, other)):
        raise BadInputError(
            f"{first.typed} and {other.typed} come from models with different weights; add --same-space if these are "
            "fine-tuned variants of one model, or give stores of the same images in the same order, which CKA compares"
        )


def _relative_means(found: Sequence[Source], measures: Measures, progress: Progress) -> list[RelativeMeans | None]:
    """Of every source that shares the first one's space; all None where the first has no images, or none is asked."""
    first = found[0]
    if first.split is None or measures.anchors == 0:
        return [None] * len(found)
    anchors = draw_anchors(first.split, measures.anchors, measures.seed)
    relative: list[RelativeMeans | None] = []
    with progress.task("relative to anchors") as tick:
        for i, source in enumerate(found):
            alike = source.spectra.units == first.spectra.units and source.spectra.dim == first.spectra.dim
            if source.split is not None and alike and _in_one_space(first, source, measures):
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
    measures: Measures,
    progress: Progress,
) -> Compared:
    a, b, same_space = first.spectra, other.spectra, measures.same_space
    spectral, means, pairs, by_unit, pairs_cka = None, None, None, None, None
    threshold = measures.variance_threshold
    if _in_one_space(first, other, measures):
        spectral = compare_spectra(a, b, variance_threshold=threshold, same_space=same_space)
        both = None if relative[0] is None or relative[1] is None else (relative[0], relative[1])
        means = compare_means(a, b, both, same_space=same_space)
        if measures.pairs:
            pairs = compare_heads(a, b, variance_threshold=threshold, matching=measures.matching, same_space=same_space)
    if _same_images(first, other):
        assert first.split is not None
        assert other.split is not None
        # of other towers only the output has a counterpart
        by_unit = cka_by_unit(first.split, other.split, units if a.units == b.units else ())
        if measures.pairs or a.units != b.units:
            with progress.task(f"CKA of heads with {other.name}") as tick:
                pairs_cka = cka_pairs(first.split, other.split, progress=tick)
    listed = units if a.units == b.units else ()
    return Compared(
        first, other, Comparison(first.name, other.name, listed, spectral, means, by_unit, pairs, pairs_cka)
    )
