"""The results of `adapt`: of the whole run, and of every method it fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._files import check_file_name
from residualign._messages import plural
from residualign._result import Result
from residualign.fitting.coefficients import OUTPUT
from residualign.fitting.fit import Accuracy, FitRecord, Fitted
from residualign.units import Unit

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.classification.classifier import LinearProbe
    from residualign.inputs.spectra import ChosenSpectra
    from residualign.spectrum import Spectra
    from residualign.store import Store

__all__ = [
    "BEFORE",
    "AdaptOutcome",
    "MethodResult",
    "UnitScale",
    "VarianceShare",
    "head_shares",
    "method_result",
    "variance_shares",
]


BEFORE = {"text": "zero-shot: class vectors from text", "means": "class means of the training images"}
"""What `accuracy.zero_shot` is, by classifier."""


Confusion = tuple[tuple[int, int, int], ...]
"""(true class, predicted class, images), as indices and in ascending order: at most one entry per test image, while a
matrix would grow with the square of the classes."""


@dataclass(frozen=True)
class UnitScale:
    """The variance of one unit, over the images of the spectrum, before and after its lambdas are applied."""

    label: str
    n_lambdas: int
    variance_before: float
    variance_after: float

    @property
    def is_head(self) -> bool:
        """Whether it is an attention head; the embedding as a whole is not a unit."""
        return self.label != OUTPUT and Unit.parse(self.label).kind == "head"


@dataclass(frozen=True, repr=False)
class MethodResult(FitRecord):
    """One fitted method, as in `summary.json`: the record of the fit, and how test images were classified.

    classifier: "text" or "means". confusion_before, confusion_after: how often each pair of true and predicted class
    occurs on the test split, by the classifier before and after adapting; pairs that do not occur are left out.
    """

    classifier: str
    confusion_before: Confusion
    confusion_after: Confusion
    units: tuple[UnitScale, ...]

    @property
    def n_test(self) -> int:
        """Number of test images."""
        return sum(count for _, _, count in self.confusion_after)

    def headline(self) -> dict[str, Any]:
        """The entry of a method in `adapt --json`."""
        return {"seconds_fit" if name == "seconds" else name: value for name, value in self.record.to_json().items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        pairs = {name: {"pairs": [list(pair) for pair in getattr(self, name)]} for name in _CONFUSIONS}
        return asdict(self) | {"units": [asdict(unit) for unit in self.units]} | pairs

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MethodResult:
        """The inverse of `to_json`; `KeyError`, `TypeError` or `BadInputError` for anything else."""
        # the folder of its adapter is named after it
        check_file_name(content["method"], "method")
        units = tuple(UnitScale(**unit) for unit in content["units"])
        pairs = {name: _read_confusion(content[name]) for name in _CONFUSIONS}
        return cls(**{**content, **pairs, "accuracy": Accuracy.of(content["accuracy"]), "units": units})


_CONFUSIONS = ("confusion_before", "confusion_after")


def _read_confusion(content: Any) -> Confusion:
    """The pairs; older runs have a matrix, whose rows are the true classes."""
    if isinstance(content, list):
        return tuple(
            (true, predicted, int(count))
            for true, row in enumerate(content)
            for predicted, count in enumerate(row)
            if count
        )
    return tuple((int(true), int(predicted), int(count)) for true, predicted, count in content["pairs"])


@dataclass(frozen=True, repr=False, eq=False)
class AdaptOutcome(Result):
    """The result of a run.

    command: the equivalent command line, in words. results: one per method, in the order given; chosen: the one with
    the best validation accuracy. probe: the linear probe on the same images, if it could be fitted. seconds: of
    `extract`, `spectrum` and the fit that was chosen.
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
        return f"{str(self.out)!r}, {plural(len(self.results), 'method')}, chosen {self.chosen.method!r}"

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


@dataclass(frozen=True)
class VarianceShare:
    """A unit's share of the variance of several units, before and after adapting, in [0, 1].

    Shares, because a common factor of all lambdas does not change a cosine.
    """

    label: str
    before: float
    after: float


def variance_shares(units: Sequence[UnitScale]) -> list[VarianceShare]:
    """The share of each unit among these."""
    before = sum(unit.variance_before for unit in units) or 1.0
    after = sum(unit.variance_after for unit in units) or 1.0
    return [VarianceShare(unit.label, unit.variance_before / before, unit.variance_after / after) for unit in units]


def head_shares(result: MethodResult) -> list[VarianceShare]:
    """The heads that a method scales, from the largest gain of share to the largest loss."""
    shares = variance_shares([unit for unit in result.units if unit.is_head])
    return sorted(shares, key=lambda share: share.before - share.after)


def method_result(
    result: Fitted,
    spectra: Spectra,
    labels: Int[Tensor, " image"],
    logits: Float[Tensor, "image class"],
    base_logits: Float[Tensor, "image class"],
) -> MethodResult:
    """The record of a fit. logits, base_logits: of the test images after and before adapting."""
    n_classes = len(result.classifier.class_names)
    return MethodResult(
        **vars(result.record),
        classifier=result.base_classifier.kind,
        confusion_before=_confusion(labels, base_logits.argmax(dim=-1), n_classes),
        confusion_after=_confusion(labels, logits.argmax(dim=-1), n_classes),
        units=_unit_scales(result, spectra),
    )


def _confusion(labels: Int[Tensor, " image"], predicted: Int[Tensor, " image"], n_classes: int) -> Confusion:
    pairs, counts = torch.unique(labels * n_classes + predicted, return_counts=True)
    return tuple((*divmod(pair, n_classes), n) for pair, n in zip(pairs.tolist(), counts.tolist(), strict=True))


def _unit_scales(result: Fitted, spectra: Spectra) -> tuple[UnitScale, ...]:
    scales = []
    for label, lambdas in result.lambdas.items():
        spectrum = spectra.output if label == OUTPUT else spectra[label]
        whole = next(unit for unit in result.scaling.units if unit.label == label).components is None
        variance = spectrum.explained_variance.double()
        variance = variance.sum()[None] if whole else variance[: len(lambdas)]
        after = (lambdas.double().cpu().square() * variance).sum()
        scales.append(UnitScale(label, len(lambdas), float(variance.sum()), float(after)))
    return tuple(scales)
