"""Several sources to compare: stores and spectra files, or data sets of one model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from residualign._progress import Progress
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.inputs.options import InputOptions, LoadingOptions
from residualign.inputs.store import analyzed_split, analyzed_store
from residualign.inputs.subject import holds_store
from residualign.similarity.sources import Source
from residualign.spectrum import Spectra
from residualign.store import StoreSplit

__all__ = ["opened_sources"]


def opened_sources(
    opened: ExitStack,
    typed: Sequence[str],
    loading: LoadingOptions,
    progress: Progress,
    *,
    split: str,
    units: Sequence[str] = (),
) -> list[Source]:
    """Every source with its components; stores made from data are removed when `opened` closes.

    typed: stores and spectra files, or a model and data sets. units: labels that will be asked for, checked before the
    pass over the images.
    """
    of_model = not _is_made(typed[0])
    if len(typed) < (3 if of_model else 2):
        raise BadInputError(
            "similarity compares two or more stores (or spectra files), or two or more data sets of one model, MODEL "
            f"DATA DATA; got {' '.join(map(repr, typed))}"
        )
    given = typed[1:] if of_model else typed
    options = {one.name: getattr(loading, one.name) for one in fields(LoadingOptions)}
    parts: list[StoreSplit | Spectra] = []
    for source in given:
        if not of_model and _is_spectra_file(source):
            parts.append(Spectra.load(source))
        else:
            model_or_store, data = (typed[0], source) if of_model else (source, None)
            inputs = InputOptions(source=model_or_store, data=data, **options)
            store, _ = opened.enter_context(analyzed_store(inputs, progress, units=units))
            parts.append(analyzed_split(store, split))
    found = []
    with progress.task("principal components") as tick:
        for i, (name, source, part) in enumerate(zip(_names(given, parts), given, parts, strict=True)):
            if isinstance(part, Spectra):
                found.append(Source(name, source, "unknown", part, None))
            else:
                spectra = fit_spectrum(part.store, split=split)
                found.append(Source(name, source, str(part.store.model["name"]), spectra, part))
            tick(i + 1, len(given))
    return found


def _is_spectra_file(source: str) -> bool:
    return source.endswith(".safetensors") and Path(source).expanduser().is_file()


def _is_made(source: str) -> bool:
    """Whether this is a store or a spectra file rather than a model."""
    return "://" in source or holds_store(Path(source).expanduser()) or _is_spectra_file(source)


def _names(typed: Sequence[str], parts: Sequence[StoreSplit | Spectra]) -> list[str]:
    """The data's own name if that tells the sources apart, else what was given."""
    own = [part.source if isinstance(part, Spectra) else str(part.store.data["name"]) for part in parts]
    for names in (own, list(typed)):
        short = [os.path.basename(name.rstrip("/")) or name for name in names]
        for candidates in (short, names):
            if len(set(candidates)) == len(candidates):
                return list(candidates)
    return [f"{i + 1}: {name}" for i, name in enumerate(own)]
