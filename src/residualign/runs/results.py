"""The record of a fitted method: figures for the terminal, for JSON, and for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign.fitting.coefficients import OUTPUT
from residualign.fitting.fit import FitRecord, Fitted
from residualign.units import Unit

if TYPE_CHECKING:
    from residualign.spectrum import Spectra

__all__ = ["HeadShare", "MethodResult", "UnitScale", "head_shares", "method_result"]


@dataclass(frozen=True)
class UnitScale:
    """The variance of one unit before and after adapting.

    variance_before: of its scaled components over the spectrum's images; variance_after: with each component's lambda
    applied.
    """

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
    """One fitted method, as `summary.json` has it: the record of the fit and how test images were classified.

    classifier: its kind. confusion_before, confusion_after: (class, class) counts on the test split, row the true
    class, by the classifier before and after adapting.
    """

    classifier: str
    confusion_before: list[list[int]]
    confusion_after: list[list[int]]
    units: tuple[UnitScale, ...]

    @property
    def n_test(self) -> int:
        """Number of test images."""
        return sum(map(sum, self.confusion_after))

    def headline(self) -> dict[str, Any]:
        """The entry of a method in `adapt --json`."""
        return {"seconds_fit" if name == "seconds" else name: value for name, value in vars(self.record).items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"units": [asdict(unit) for unit in self.units]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MethodResult:
        """The inverse of `to_json`; `KeyError` or `TypeError` for anything else."""
        return cls(**{**content, "units": tuple(UnitScale(**unit) for unit in content["units"])})


@dataclass(frozen=True)
class HeadShare:
    """A head's share of the variance of all scaled heads, before and after; each adds up to one over the heads.

    Shares, because a common factor of all scales does not change a cosine.
    """

    label: str
    before: float
    after: float


def head_shares(result: MethodResult) -> list[HeadShare]:
    """The heads that a method scales, from the largest gain of share to the largest loss."""
    heads = [unit for unit in result.units if unit.is_head]
    before = sum(unit.variance_before for unit in heads) or 1.0
    after = sum(unit.variance_after for unit in heads) or 1.0
    shares = [HeadShare(unit.label, unit.variance_before / before, unit.variance_after / after) for unit in heads]
    return sorted(shares, key=lambda share: share.before - share.after)


def method_result(
    result: Fitted,
    spectra: Spectra,
    labels: Int[Tensor, " image"],
    logits: Float[Tensor, "image class"],
    base_logits: Float[Tensor, "image class"],
) -> MethodResult:
    """The record of a fit. labels and logits: of the test images; base_logits: of the classifier before adapting."""
    n_classes = len(result.classifier.class_names)
    return MethodResult(
        **vars(result.record),
        classifier=result.base_classifier.kind,
        confusion_before=_confusion(labels, base_logits.argmax(dim=-1), n_classes),
        confusion_after=_confusion(labels, logits.argmax(dim=-1), n_classes),
        units=_unit_scales(result, spectra),
    )


def _confusion(labels: Int[Tensor, " image"], predicted: Int[Tensor, " image"], n_classes: int) -> list[list[int]]:
    pairs = torch.bincount(labels * n_classes + predicted, minlength=n_classes * n_classes)
    rows: list[list[int]] = pairs.view(n_classes, n_classes).tolist()
    return rows


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
