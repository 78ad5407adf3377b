"""The result of a run of `adapt`, in memory and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._result import Result

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.classification.probe import LinearProbe
    from residualign.inputs.spectra import ChosenSpectra
    from residualign.runs.results import MethodResult
    from residualign.store import Store

__all__ = ["BEFORE", "AdaptOutcome"]

BEFORE = {"text": "zero-shot: class vectors from text", "means": "class means of the training images"}
"""What `accuracy.zero_shot` is, by classifier."""


@dataclass(frozen=True, repr=False, eq=False)
class AdaptOutcome(Result):
    """The result of a run.

    command: the words of the equivalent command line. results: one per method, in the order asked for; chosen:
    the one with the best validation accuracy; probe: the linear probe on the same images, None where it could not be
    fitted. seconds: of `extract`, `spectrum` and the fit that was chosen.
    """

    command: tuple[str, ...]
    out: Path
    seed: int
    shots: int | None
    store: Store
    spectra: ChosenSpectra
    results: tuple[MethodResult, ...]
    chosen: MethodResult
    adapter: Adapter
    probe: LinearProbe | None
    skipped: tuple[str, ...]
    seconds: dict[str, float]
    resumed: bool

    def _summary(self) -> str:
        return f"{str(self.out)!r}, {len(self.results)} methods, chosen {self.chosen.method!r}"

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images used from each split: with few shots, fewer than the store has."""
        settings = self.chosen.settings
        return {name: settings.get(f"n_{name}", len(self.store.split(name))) for name in self.store.splits}

    def to_json(self) -> dict[str, Any]:
        """What `adapt --json` prints; `methods` only if several were fitted."""
        store, chosen = self.store, self.chosen
        content = {
            "model": store.model["name"],
            "data": store.data["name"],
            "classes": len(self.adapter.class_names),
            **{f"n_{name}": size for name, size in self.sizes.items()},
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "split_rule": store.data.get("split_rule"),
            "reference": self.spectra.spectra.source,
            "reference_kind": self.spectra.kind,
            "n_reference": self.spectra.spectra.n_samples,
            "residual_error": store.residual_error,
            "seconds": self.seconds,
            "classifier": chosen.classifier,
            "zero_shot_is": BEFORE[chosen.classifier],
            **chosen.headline(),
            "linear_probe": None if self.probe is None else self.probe.to_json(),
            "seed": self.seed,
            "shots": self.shots,
            "out": str(self.out),
            "store": store.path,
            "resumed": self.resumed,
        }
        if len(self.results) > 1:
            content["methods"] = [result.headline() for result in self.results]
        return content
