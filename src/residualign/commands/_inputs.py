"""What a command works on: an existing store, or a model and data to make one from."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from residualign._messages import listed, skipped_sentence
from residualign._progress import Progress
from residualign.classification.classifier import Classifier, ClassifierKind, text_classifier, zero_shot_vectors
from residualign.commands._flags import Inputs, Loading, Prompts, Sampled, Words
from residualign.data import ImageData, load_data
from residualign.data.prompts import DEFAULT_TEMPLATE, read_prompts, rename_classes
from residualign.errors import BadInputError
from residualign.extraction import extract
from residualign.load import load_model
from residualign.store import Store, StoreSplit, remove_store
from residualign.units import Unit, Units

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = [
    "Subject",
    "analysed_split",
    "analysed_store",
    "chosen_classifier",
    "chosen_units",
    "load_subject",
    "make_store",
    "open_store",
    "refuse_store_for_store",
]


@dataclass
class Subject:
    """A model and data, or a finished store alone. loading: how images are read and the encoder runs."""

    model_name: str
    loading: Loading
    data: ImageData | None = None
    store: Store | None = None
    _model: VisionModel | None = field(default=None, repr=False)

    def model(self) -> VisionModel:
        """The model, loaded when it is first needed; `BadInputError` if the store was made with different weights."""
        if self._model is None:
            model = load_model(self.model_name, device=self.loading.device, dtype=self.loading.dtype)
            if self.store is not None and model.fingerprint != self.store.model["fingerprint"]:
                raise BadInputError(
                    f"model {self.model_name!r} does not have the weights that the store {self.store.path} was made "
                    "with; give the right one with --model"
                )
            self._model = model
        return self._model


def load_subject(
    source: str, data: str | None, request: Loading, progress: Progress, *, model: str | None = None
) -> Subject:
    """Open and check what was given as `STORE`, or as `MODEL DATA`; images are not read yet.

    request: how images are read; its class names and templates, if any, replace those of the data. model: new
    location of a store's model. Raises `BadInputError` for what cannot be used.
    """
    if data is None:
        store = open_store(source)
        if isinstance(request, Sampled) and request.quick:
            rows = {name: _sample_rows(store.split(name).labels.tolist()) for name in store.splits}
            store = store.subset({name: torch.tensor(own, dtype=torch.int64) for name, own in rows.items()})
        subject = Subject(model or str(store.model["name"]), request, store=store)
        if model is not None:
            # what was named must be right even where nothing else needs it: its spectra and dictionary come with it
            subject.model()
        return subject
    if model is not None:
        raise BadInputError(
            f"--model {model} is the new location of a store's or adapter's model; the model is already given: {source}"
        )
    words = request if isinstance(request, Prompts) else Prompts()
    found = load_data(data, classes=words.classes, templates=_templates(words), stream=request.stream)
    for note in found.notes:
        progress.warn(note)
    if isinstance(request, Sampled) and request.quick:
        found = _sample(found)
    subject = Subject(source, request, data=found)
    subject.model()
    return subject


def open_store(path: str) -> Store:
    """Open a store that was given alone; the error says what was expected."""
    if "://" not in path and not _holds_store(path):
        inside = os.path.join(path, "store")
        hint = f" (did you mean {inside}?)" if _holds_store(inside) else ""
        raise BadInputError(
            f"{path!r} is not a store{hint}; expected a store made by `residualign extract`, or MODEL and DATA"
        )
    return Store.open(path)


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
    if overwrite and _holds_store(path):
        remove_store(path)
    model, data, loading = subject.model(), subject.data, subject.loading
    if uses_text:
        _warn_of_unknown_words(model, data.class_names, progress)
    with progress.task("images") as tick:
        store = extract(
            model,
            data,
            path,
            batch_size=loading.batch_size,
            workers=loading.workers,
            skip_bad=loading.skip_bad,
            dtype=_store_dtype(loading.dtype),
            progress=tick,
        )
    subject.store = store
    if store.skipped:
        progress.warn(skipped_sentence(store.skipped))
    return store, time.perf_counter() - began


@contextmanager
def analysed_store(
    request: Inputs,
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


def refuse_store_for_store(request: Inputs) -> None:
    """`BadInputError` for `--store` beside a STORE."""
    if request.data is None and request.store is not None:
        raise BadInputError("--store is where the store of MODEL and DATA is kept; a store is already given")


def analysed_split(store: Store, name: str) -> StoreSplit:
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


def chosen_classifier(
    request: Words, subject: Subject, store: Store, progress: Progress
) -> Classifier | ClassifierKind | None:
    """The classifier asked for: its kind, or, with new words for a store, one made by the text tower.

    New words for a model and data are already in the store that was made of them.
    """
    if subject.data is not None or (request.classes is None and not request.template):
        return request.classifier
    if request.classifier == "means":
        raise BadInputError(
            "--classes and --template change class vectors from text; they cannot be combined with --classifier means "
            "on a store"
        )
    names, templates = read_prompts(request.classes, _templates(request))
    class_names = rename_classes(store.class_names, names)
    model = subject.model()
    if model.logit_scale is None:
        raise BadInputError(f"model {model.name!r} has no text tower, so --classes and --template have no effect")
    _warn_of_unknown_words(model, class_names, progress)
    vectors = zero_shot_vectors(model.encode_text, class_names, templates or store.templates or (DEFAULT_TEMPLATE,))
    return text_classifier(vectors, class_names, model.logit_scale, model.logit_bias)


def _templates(words: Prompts) -> str | tuple[str, ...] | None:
    # a single one may be a file of templates, which the reader checks
    return words.template[0] if len(words.template) == 1 else words.template or None


QUICK_EACH, QUICK_MOST = 20, 1000
"""At most this many images per class and split with `--quick`, and about this many per split."""


def _sample(data: ImageData) -> ImageData:
    """A small sample of every split, the same each time."""
    train, val, test = (split.take(_sample_rows(split.labels)) for split in data.splits)
    return replace(data, train=train, val=val, test=test, split_rule=f"{data.split_rule}; a sample (--quick)")


def _sample_rows(labels: Sequence[int]) -> list[int]:
    """Equally spaced images of each class, in their order: neighbors in a folder are often similar."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    each = max(1, min(QUICK_EACH, QUICK_MOST // max(1, len(rows))))
    chosen = [own[i * len(own) // each] for own in rows.values() for i in range(min(each, len(own))) if len(own) > each]
    return sorted([*chosen, *(row for own in rows.values() if len(own) <= each for row in own)])


def _holds_store(path: str | os.PathLike[str]) -> bool:
    return any((Path(path) / name).exists() for name in ("manifest.json", "unfinished.json"))


def _store_dtype(dtype: str) -> Literal["float32", "float64"]:
    """The type a store is written in: contributions of half-precision encoders are stored as float32."""
    return "float64" if dtype == "float64" else "float32"


def _warn_of_unknown_words(model: VisionModel, class_names: Sequence[str], progress: Progress) -> None:
    unknown = model.unknown_words(list(class_names))
    if unknown:
        progress.warn(
            f"the text tower of {model.name!r} does not know {len(unknown)} of {len(class_names)} class names "
            f"({listed(unknown)}); consider --classifier means"
        )
