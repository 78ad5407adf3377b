"""`residualign extract`: the one pass over the images, kept in a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    DataName,
    Loading,
    ModelName,
    Overwrite,
    Prompts,
    RequiredStorePath,
)

if TYPE_CHECKING:
    from residualign.store import Store

__all__ = ["ExtractOutcome", "ExtractRequest", "run"]


@dataclass(frozen=True, kw_only=True)
class ExtractRequest(Loading, Prompts):
    """Run every image through the model once and store what all other commands need.

    An unfinished store is resumed; a finished one of the same model and data is reused.
    """

    model: ModelName
    data: DataName
    store: RequiredStorePath
    overwrite: Overwrite = False


@dataclass(frozen=True, repr=False, eq=False)
class ExtractOutcome(Result):
    """The finished store. skipped: keys of unreadable images and of files that are not images."""

    request: ExtractRequest
    store: Store
    skipped: tuple[str, ...]
    seconds: float

    @property
    def sizes(self) -> dict[str, int]:
        """Images of each split."""
        return {name: len(self.store.split(name)) for name in self.store.splits}

    def to_json(self) -> dict[str, Any]:
        """What `extract --json` prints."""
        store = self.store
        return {
            "model": self.request.model,
            "data": self.request.data,
            "store": store.path,
            "classes": len(store.class_names),
            **{f"n_{name}": size for name, size in self.sizes.items()},
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "split_rule": store.data.get("split_rule"),
            "residual_error": store.residual_error,
            "fingerprint": store.fingerprint,
            "seconds": {"extract": self.seconds},
        }


def run(request: ExtractRequest, progress: Progress = SILENT) -> ExtractOutcome:
    """Make, resume or open the store. The errors of `load_subject` and `make_store`."""
    from residualign.inputs.store import make_store
    from residualign.inputs.subject import load_subject

    subject = load_subject(request.model, request.data, request, progress)
    store, seconds = make_store(subject, request.store, progress, overwrite=request.overwrite)
    strays = () if subject.data is None else subject.data.strays
    return ExtractOutcome(request, store, (*store.skipped, *strays), seconds)
