"""What a command works on: a model and data, or an existing store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from residualign._progress import Progress
from residualign.data import ImageData, load_data
from residualign.errors import BadInputError
from residualign.inputs.options import LoadingOptions, PromptOptions
from residualign.inputs.sample import sample_of_data, sample_of_store
from residualign.load import load_model, load_named_by_file
from residualign.store import Store

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = ["Subject", "holds_store", "load_subject", "names_apart", "open_store", "open_store_like"]


@dataclass
class Subject:
    """A model and data, or a finished store alone.

    loading: how images are read and the encoder runs. recorded: whether the name of the model is the one in the store.
    """

    model_name: str
    loading: LoadingOptions
    data: ImageData | None = None
    store: Store | None = None
    recorded: bool = False
    _model: VisionModel | None = field(default=None, repr=False)

    def model(self) -> VisionModel:
        """The model, loaded when it is first needed; `BadInputError` if the store was made with different weights."""
        if self._model is None:
            how = {"device": self.loading.device, "dtype": self.loading.dtype}
            if self.recorded:
                model = load_named_by_file(self.model_name, "the store", **how)
            else:
                model = load_model(self.model_name, **how)
            if self.store is not None and model.fingerprint != self.store.model["fingerprint"]:
                raise BadInputError(
                    f"model {self.model_name!r} does not have the weights that the store {self.store.path} was made "
                    "with; give the right one with --model"
                )
            self._model = model
        return self._model


def load_subject(
    source: str, data: str | None, loading: LoadingOptions, progress: Progress, *, model: str | None = None
) -> Subject:
    """Open and check what was given as `STORE`, or as `MODEL DATA`; images are not read yet.

    loading: how images are read; its class names and templates, if any, replace those of the data. model: new
    location of a store's model. Raises `BadInputError` for what cannot be used.
    """
    if data is None:
        store = open_store(source)
        if loading.quick:
            store = sample_of_store(store)
        subject = Subject(model or str(store.model["name"]), loading, store=store, recorded=model is None)
        if model is not None:
            # what was named must be right even where nothing else needs it: its spectra and dictionary come with it
            subject.model()
        return subject
    if model is not None:
        raise BadInputError(
            f"--model {model} is the new location of a store's or adapter's model; the model is already given: {source}"
        )
    words = loading if isinstance(loading, PromptOptions) else PromptOptions()
    found = load_data(
        data, classes=words.classes, templates=words.templates, stream=loading.stream, skip_bad=loading.skip_bad
    )
    for note in found.notes:
        progress.warn(note)
    if loading.quick:
        found = sample_of_data(found)
    subject = Subject(source, loading, data=found)
    subject.model()
    return subject


def open_store(path: str) -> Store:
    """Open a store that was given alone; the error says what was expected."""
    if "://" not in path and not holds_store(path):
        inside = os.path.join(path, "store")
        hint = f" (did you mean {inside!r}?)" if holds_store(inside) else ""
        raise BadInputError(
            f"{path!r} is not a store{hint}; expected a store made by `residualign extract`, or MODEL and DATA"
        )
    return Store.open(path)


def open_store_like(first: Store, path: str) -> Store:
    """Open a store to compare with another; `BadInputError` for one made with different weights."""
    store = open_store(path)
    if store.model["fingerprint"] != first.model["fingerprint"]:
        raise BadInputError(
            f"the stores {path!r} and {first.path!r} were made with different weights; selections are compared for "
            "one model only"
        )
    return store


def names_apart(stores: Sequence[Store]) -> list[str]:
    """Names of the stores' data, with their paths where two have the same name."""
    names = [str(store.data["name"]) for store in stores]
    return [
        f"{name} ({store.path})" if names.count(name) > 1 else name for name, store in zip(names, stores, strict=True)
    ]


def holds_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has a finished or an unfinished store."""
    return any((Path(path) / name).exists() for name in ("manifest.json", "unfinished.json"))
