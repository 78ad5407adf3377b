"""Everything a report says, as plain data: the page, the tables, the figures and a notebook show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "MEASURES",
    "ChangedImage",
    "ComponentLine",
    "CurvePoint",
    "End",
    "Fact",
    "LayerLine",
    "Measure",
    "MethodLine",
    "MovedLine",
    "PutBackPoint",
    "ReportContents",
    "UnitLine",
]


@dataclass(frozen=True)
class Measure:
    """A number that every unit has. scale: "share" in [0, 1], "ratio" around 1 (shown in logarithms) or "number"."""

    name: str
    title: str
    told: str
    scale: str


MEASURES = (
    Measure(
        "change",
        "Amplified or suppressed",
        "The unit's share of the variance of all scaled units, after adapting over before. Above 1 it was amplified.",
        "ratio",
    ),
    Measure(
        "energy",
        "Share after adapting",
        "The unit's share of the variance of all scaled units, each component times its squared lambda.",
        "share",
    ),
    Measure(
        "specialisation",
        "Separates the classes",
        "The share of the unit's variance that lies between the classes of the training images.",
        "share",
    ),
    Measure(
        "evr_first",
        "First component",
        "The share of the unit's variance that its first principal component explains.",
        "share",
    ),
    Measure(
        "linear_dimension",
        "Linear dimension",
        "Principal components that explain 99 % of the unit's variance.",
        "number",
    ),
    Measure(
        "two_nn",
        "Intrinsic dimension",
        "TwoNN: from the distances of every image to its two nearest neighbours in the unit.",
        "number",
    ),
    Measure(
        "ratio",
        "Linear over intrinsic",
        "Linear dimension over intrinsic dimension: the larger, the more curved the unit's representation is.",
        "number",
    ),
)
"""What the map of units can show."""


@dataclass(frozen=True)
class MethodLine:
    """Accuracy of one method on the test images, in [0, 1], with its 95 % interval.

    kind: "before" (the classifier adapting began with), "method", or "probe" (a linear probe beside them).
    """

    name: str
    kind: str
    accuracy: float | None
    interval: tuple[float, float] | None
    parameters: int | None
    seconds: float | None
    is_shown: bool = False


@dataclass(frozen=True)
class End:
    """One end of a component: what it says in words, best first, and the pictures of the images furthest out."""

    texts: tuple[str, ...]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class ComponentLine:
    """One principal component. share: of the unit's variance; scale: its lambda, None where it has none."""

    index: int
    share: float
    scale: float | None
    positive: End | None = None
    negative: End | None = None


@dataclass(frozen=True)
class UnitLine:
    """One head, MLP or the embedding. measures: by the names of `MEASURES`; texts: what all of it is about."""

    label: str
    kind: str
    layer: int | None
    head: int | None
    measures: Mapping[str, float | None]
    two_nn_interval: tuple[float, float] | None
    texts: tuple[str, ...]
    components: tuple[ComponentLine, ...]


@dataclass(frozen=True)
class LayerLine:
    """Mean over the heads of one layer, with the interval its subsamples span."""

    layer: int
    measure: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class MovedLine:
    """A component that adapting moved far. effect: |lambda - 1| times the component's standard deviation."""

    label: str
    index: int
    scale: float
    effect: float
    texts: tuple[str, str]


@dataclass(frozen=True)
class PutBackPoint:
    """Accuracy with the first `count` of the moved components put back to one, by the order they are put back in."""

    order: str
    count: int
    accuracy: float


@dataclass(frozen=True)
class CurvePoint:
    """One validation while fitting. run: which of the candidates that were tried."""

    run: str
    step: int
    accuracy: float
    loss: float | None


@dataclass(frozen=True)
class ChangedImage:
    """A test image that got another class. parts: the units that moved the margin most, new class against old.

    change: how much the margin of the new class over the old one grew, in logits; each part is a unit's share of it in
    logits, and all units' parts sum to it.
    """

    key: str
    picture: str | None
    label: str
    before: str
    after: str
    probability: float
    change: float
    parts: tuple[tuple[str, float], ...]

    @property
    def largest(self) -> float:
        """The largest part either way; 1 where all are zero."""
        return max((abs(value) for _, value in self.parts), default=0.0) or 1.0


@dataclass(frozen=True)
class Fact:
    """One line of "how it was made"."""

    name: str
    value: str


@dataclass(frozen=True)
class ReportContents:
    """A report. pictures: JPEG files by name, as base64 text. scales_of: the method whose lambdas are shown.

    confusion_before, confusion_after: (class, class) counts on the test images, row the true class. findings: what the
    figures say, in sentences. notes: what could not be shown and why.
    """

    title: str
    model: str
    data: str
    method: str
    scales_of: str | None
    n_test: int
    before_is: str
    methods: tuple[MethodLine, ...]
    n_layers: int
    n_heads: int
    units: tuple[UnitLine, ...]
    profiles: tuple[LayerLine, ...]
    moved: tuple[MovedLine, ...]
    put_back: tuple[PutBackPoint, ...]
    curve: tuple[CurvePoint, ...]
    class_names: tuple[str, ...]
    confusion_before: tuple[tuple[int, ...], ...]
    confusion_after: tuple[tuple[int, ...], ...]
    n_changed: int
    changed: tuple[ChangedImage, ...]
    made: tuple[Fact, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, str]

    def to_json(self, pictures: bool = False) -> dict[str, Any]:
        """As JSON types; the pictures themselves only where asked for."""
        content = asdict(self)
        if not pictures:
            del content["pictures"]
        return content
