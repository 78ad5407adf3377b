"""What a command works on: a store that is there, or a model and data of which one is made."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from residualign._progress import Progress
from residualign.commands._messages import left_out_sentence, unknown_words_sentence
from residualign.data import ImageData, load_data
from residualign.data.images import has_image_extension, read_image
from residualign.errors import BadInputError
from residualign.extraction import extract
from residualign.load import load_model
from residualign.store import Store, StoreSplit, remove_store
from residualign.units import Unit, Units

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = [
    "FileSource",
    "Machine",
    "Subject",
    "analysed_split",
    "analysed_store",
    "chosen_units",
    "expand_images",
    "load_subject",
    "make_store",
    "open_store",
]


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
    progress: Progress,
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
        progress.warn(note)
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
    progress: Progress,
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
        progress.warn(sentence)
    with progress.task("images") as tick:
        store = extract(
            model,
            data,
            path,
            batch_size=machine.batch_size,
            workers=machine.workers,
            skip_bad=skip_bad,
            dtype=machine.store_dtype,
            progress=tick,
        )
    if store.skipped:
        progress.warn(left_out_sentence(store.skipped))
    return store, time.perf_counter() - began


def _holds_store(path: str | os.PathLike[str]) -> bool:
    return any((Path(path) / name).exists() for name in ("manifest.json", "unfinished.json"))


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
    progress: Progress,
) -> Iterator[tuple[Store, Subject]]:
    """The store of what was typed as `STORE`, or as `MODEL DATA`, and what it was made of.

    store: where a store of a model and data is made, or continued, and kept; without it one lies in a temporary folder
    and is gone when the context ends. units: labels that the analysis will ask for, looked at before the pass over the
    images. Errors: those of `load_subject`, `chosen_units` and `make_store`.
    """
    if data is None and store is not None:
        raise BadInputError("--store says where to put the store of a model and data; here a store is given already")
    subject = load_subject(
        source, data, machine, classes=classes, templates=templates, model_name=model, stream=stream, progress=progress
    )
    if units is not None and subject.data is not None:
        chosen_units(subject.model().units, units)
    with tempfile.TemporaryDirectory(prefix="residualign-") as scratch:
        path = store or os.path.join(scratch, "store")
        made, seconds = make_store(subject, path, skip_bad=skip_bad, uses_text=uses_text, progress=progress)
        subject.store = made
        progress.done(made, seconds)
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


class FileSource:
    """Images whose keys are their paths."""

    def image(self, row: int, key: str) -> Image.Image:
        """The image at the path `key`, in RGB; raises `BadImageError` naming it."""
        return read_image(key)


def expand_images(paths: Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Image files in the order given; a folder is replaced by the images below it, sorted, hidden ones left out.

    A file is taken whatever its name says: opening it will tell. Raises `BadInputError` for a path that does not exist
    and for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_image(file, path))
            if not inside:
                raise BadInputError(f"the folder {str(path)!r} holds no images")
            found += inside
        elif os.path.exists(path):
            found.append(path)
        else:
            raise BadInputError(f"no image at {str(path)!r}: there is no such file or folder")
    return tuple(found)


def _is_image(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and has_image_extension(file.name) and file.is_file()
