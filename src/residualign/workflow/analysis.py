"""What an analysis works on: a store that was named, or one of a model and data, kept only where that is asked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from residualign._progress import Watcher
from residualign.commands._inputs import Machine, Subject, load_subject, make_store
from residualign.errors import BadInputError
from residualign.store import Store, StoreSplit
from residualign.units import Unit, Units

__all__ = ["analysed_split", "analysed_store", "chosen_units"]


@contextmanager
def analysed_store(
    source: str,
    data: str | None,
    machine: Machine,
    *,
    store: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | None = None,
    templates: Sequence[str] | None = None,
    model: str | None = None,
    stream: bool = False,
    skip_bad: bool = False,
    uses_text: bool = False,
    units: Iterable[str] | None = None,
    watch: Watcher,
) -> Iterator[tuple[Store, Subject]]:
    """The store of what was typed as `STORE`, or as `MODEL DATA`, and what it was made of.

    store: where a store of a model and data is made, or continued, and kept; without it one lies in a temporary folder
    and is gone when the context ends. units: labels that the analysis will ask for, looked at before the pass over the
    images. Errors: those of `load_subject`, `chosen_units` and `make_store`.
    """
    if data is None and store is not None:
        raise BadInputError("--store says where to put the store of a model and data; here a store is given already")
    subject = load_subject(
        source, data, machine, classes=classes, templates=templates, model_name=model, stream=stream, watch=watch
    )
    if units is not None and subject.data is not None:
        chosen_units(subject.model().units, units)
    with tempfile.TemporaryDirectory(prefix="residualign-") as scratch:
        path = store or os.path.join(scratch, "store")
        made, seconds = make_store(subject, path, skip_bad=skip_bad, uses_text=uses_text, watch=watch)
        subject.store = made
        watch.done(made, seconds)
        yield made, subject


def analysed_split(store: Store, name: str) -> StoreSplit:
    """The images of one split; `BadInputError` where there are none."""
    split = store.split(name)
    if not len(split):
        filled = [other for other in store.splits if len(store.split(other))]
        raise BadInputError(f"split {name!r} of {store.path} has no images; --split {' or '.join(filled)} has some")
    return split


def chosen_units(units: Units, labels: Iterable[str] | None, default: str = "all") -> tuple[Unit, ...]:
    """The units named by labels, or by "heads", "mlps", "all", each once and in unit order.

    `BadInputError` for a label the tower has not.
    """
    groups = {"heads": units.of_kind("head"), "mlps": units.of_kind("mlp"), "all": tuple(units)}
    wanted = {
        unit for label in (labels or (default,)) for unit in (groups[label] if label in groups else (units.get(label),))
    }
    return tuple(unit for unit in units if unit in wanted)
