"""The store of what was given: made, resumed or opened; its split and units that an analysis asks for."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from residualign._messages import skipped_sentence
from residualign._progress import Progress
from residualign.errors import BadInputError
from residualign.extraction import extract
from residualign.inputs.classifier import warn_of_unknown_words
from residualign.inputs.options import InputOptions
from residualign.inputs.subject import Subject, holds_store, load_subject
from residualign.store import Store, StoreSplit, remove_store
from residualign.store.plan import MANIFEST_NAME
from residualign.units import Unit, Units

__all__ = ["analyzed_split", "analyzed_store", "chosen_units", "make_store", "refuse_store_for_store"]


def make_store(
    subject: Subject,
    path: str | os.PathLike[str],
    progress: Progress,
    *,
    overwrite: bool = False,
    uses_text: bool = True,
) -> tuple[Store, float]:
    """The store of a subject, made, resumed, or opened if it is finished; and the seconds the pass took.

    overwrite removes an existing store first. uses_text: whether class names will be read by the text tower, so
    that unknown words matter. The errors of `extract`.
    """
    began = time.perf_counter()
    if subject.store is not None:
        return subject.store, 0.0
    assert subject.data is not None
    if overwrite and holds_store(path):
        remove_store(path)
    model, data, loading = subject.model(), subject.data, subject.loading
    was_complete = (Path(path) / MANIFEST_NAME).is_file()
    if uses_text:
        warn_of_unknown_words(model, data.class_names, data.templates, progress)
    with progress.task("images") as tick:
        store = extract(
            model,
            data,
            path,
            batch_size=loading.batch_size,
            workers=loading.workers,
            skip_bad=loading.skip_bad,
            # contributions of half-precision encoders are stored as float32
            dtype="float64" if loading.dtype == "float64" else "float32",
            progress=tick,
        )
    subject.store = store
    if was_complete:
        progress.note(f"the store {store.path} was already complete; no image was read")
    if store.skipped:
        progress.warn(skipped_sentence(store.skipped))
    return store, time.perf_counter() - began


@contextmanager
def analyzed_store(
    request: InputOptions,
    progress: Progress,
    *,
    keep: str | os.PathLike[str] | None = None,
    uses_text: bool = False,
    units: Iterable[str] = (),
) -> Iterator[tuple[Store, Subject]]:
    """The store of what was given as `STORE`, or as `MODEL DATA`, and what it was made of.

    The store of a model and data is kept at `--store`, or else at `keep`; with neither it is in a temporary folder and
    removed when the context ends. units: labels that the analysis will ask for, checked before the pass over the
    images. Errors: those of `load_subject`, `chosen_units` and `make_store`.
    """
    refuse_store_for_store(request)
    subject = load_subject(request.source, request.data, request, progress, model=request.model)
    if subject.data is not None:
        chosen_units(subject.model().units, units)
    with tempfile.TemporaryDirectory(prefix="residualign-") as scratch:
        path = request.store or keep or os.path.join(scratch, "store")
        made, seconds = make_store(subject, path, progress, uses_text=uses_text)
        progress.done(made, seconds)
        yield made, subject


def refuse_store_for_store(request: InputOptions) -> None:
    """`BadInputError` for `--store` beside a STORE."""
    if request.data is None and request.store is not None:
        raise BadInputError("--store is where the store of MODEL and DATA is kept; a store is already given")


def analyzed_split(store: Store, name: str) -> StoreSplit:
    """The images of one split; `BadInputError` where there are none."""
    split = store.split(name)
    if not len(split):
        filled = [other for other in store.splits if len(store.split(other))]
        raise BadInputError(f"split {name!r} of {store.path} has no images; use --split {' or '.join(filled)}")
    return split


def chosen_units(units: Units, labels: Iterable[str], default: str = "all") -> tuple[Unit, ...]:
    """The units named by labels, or by "heads", "mlps", "all", each once and in unit order.

    `BadInputError` for a label that the tower does not have.
    """
    groups = {"heads": units.of_kind("head"), "mlps": units.of_kind("mlp"), "all": tuple(units)}
    wanted = {
        unit
        for label in (tuple(labels) or (default,))
        for unit in (groups[label] if label in groups else (units.get(label),))
    }
    return tuple(unit for unit in units if unit in wanted)
