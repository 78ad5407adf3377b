"""What a command works on: a store that is there, or a model and data of which one is made."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from residualign._progress import Watcher
from residualign.data import ImageData, load_data
from residualign.errors import BadInputError
from residualign.extraction import extract
from residualign.load import load_model
from residualign.store import Store, remove_store
from residualign.workflow.words import left_out_sentence, unknown_words_sentence

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = ["Machine", "Subject", "load_subject", "make_store", "open_store"]


@dataclass(frozen=True)
class Machine:
    """Where and how the encoder runs; none of it is meant to change a result beyond rounding, but for dtype."""

    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 32
    workers: int = 2

    @property
    def store_dtype(self) -> Literal["float32", "float64"]:
        """What is written for an encoder that runs in this dtype: contributions of half types are float32."""
        return "float64" if self.dtype == "float64" else "float32"


@dataclass
class Subject:
    """A model and data, or a finished store and nothing else."""

    model_name: str
    machine: Machine
    data: ImageData | None = None
    store: Store | None = None
    _model: VisionModel | None = field(default=None, repr=False)

    def model(self) -> VisionModel:
        """The model, loaded when it is first needed; `BadInputError` where the store was made with another one."""
        if self._model is None:
            model = load_model(self.model_name, device=self.machine.device, dtype=self.machine.dtype)
            if self.store is not None and model.fingerprint != self.store.model["fingerprint"]:
                raise BadInputError(
                    f"model {self.model_name!r} has other weights than the store {self.store.path} was made with; "
                    "give the right one with --model"
                )
            self._model = model
        return self._model


def load_subject(
    source: str,
    data: str | None,
    machine: Machine,
    *,
    classes: str | os.PathLike[str] | None = None,
    templates: Sequence[str] | None = None,
    model_name: str | None = None,
    stream: bool = False,
    watch: Watcher,
) -> Subject:
    """What was typed as `STORE`, or as `MODEL DATA`, opened and checked; images are not read yet.

    model_name: where a store's model has moved to. stream: as in `load_data`. Raises `BadInputError` for what cannot be
    used.
    """
    if data is None:
        store = open_store(source)
        return Subject(model_name or str(store.model["name"]), machine, store=store)
    if model_name is not None:
        raise BadInputError(
            f"--model {model_name} says where a store's or adapter's model is; here it is already {source}"
        )
    # a single one may be a file of templates, which load_data finds out
    told = templates[0] if templates is not None and len(templates) == 1 else templates
    found = load_data(data, classes=classes, templates=told, stream=stream)
    for note in found.notes:
        watch.warn(note)
    subject = Subject(source, machine, data=found)
    subject.model()
    return subject


def open_store(path: str) -> Store:
    """The store that was typed alone; the error says what else would do."""
    if "://" not in path and not _holds_store(path):
        raise BadInputError(f"{path!r} is no store; expected a store that `extract` made, or MODEL and DATA")
    return Store.open(path)


def make_store(
    subject: Subject,
    path: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    uses_text: bool = True,
    watch: Watcher,
) -> tuple[Store, float]:
    """The store of a subject and the seconds the pass took: begun, continued, or opened where it is finished.

    overwrite removes a store that is there first. uses_text: whether class names will be read by the text tower, and
    unknown words matter. The errors of `extract`.
    """
    began = time.perf_counter()
    if subject.store is not None:
        return subject.store, 0.0
    assert subject.data is not None
    if overwrite and _holds_store(path):
        remove_store(path)
    model, data, machine = subject.model(), subject.data, subject.machine
    if uses_text and (sentence := unknown_words_sentence(model, data.class_names)) is not None:
        watch.warn(sentence)
    with watch.progress("images") as progress:
        store = extract(
            model,
            data,
            path,
            batch_size=machine.batch_size,
            workers=machine.workers,
            skip_bad=skip_bad,
            dtype=machine.store_dtype,
            progress=progress,
        )
    if store.skipped:
        watch.warn(left_out_sentence(store.skipped))
    return store, time.perf_counter() - began


def _holds_store(path: str | os.PathLike[str]) -> bool:
    return any((Path(path) / name).exists() for name in ("manifest.json", "unfinished.json"))
