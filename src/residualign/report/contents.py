"""Everything a report shows, as plain data: the page, the tables, the figures and notebooks read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from residualign._messages import plural
from residualign._result import Table, one_line

__all__ = [
    "MEASURES",
    "ChangedImage",
    "ComponentLine",
    "End",
    "Fact",
    "Measure",
    "MethodLine",
    "MovedLine",
    "ReportContents",
    "UnitLine",
]


@dataclass(frozen=True)
class Measure:
    """A number of a unit. scale: "share" in [0, 1], "ratio" around 1 (shown in logarithms) or "number".

    told: what it means. absent: why a unit may not have it.
    """

    name: str
    title: str
    told: str
    scale: str
    absent: str


MEASURES = (
    Measure(
        "change",
        "Amplified or suppressed",
        "The unit's share of the variance of all scaled units, after adapting divided by before. Above 1 the unit was "
        "amplified. This is its weight as a whole: a lambda multiplies one of its components, and a large lambda on a "
        "component with little variance changes it only a little.",
        "ratio",
        "the method does not scale them",
    ),
    Measure(
        "energy",
        "Share after adapting",
        "The unit's share of the variance of all scaled units, each component's variance times its squared lambda.",
        "share",
        "the method does not scale them",
    ),
    Measure(
        "specialisation",
        "Separates the classes",
        "The share of the unit's variance that is between the classes of the training images.",
        "share",
        "they do not vary over the training images",
    ),
    Measure(
        "evr_first",
        "First component",
        "The share of the unit's variance that its first principal component explains.",
        "share",
        "they do not vary over the training images",
    ),
    Measure(
        "linear_dimension",
        "Linear dimension",
        "How many principal components explain 99 % of the unit's variance.",
        "number",
        "they do not vary over the training images",
    ),
    Measure(
        "two_nn",
        "Intrinsic dimension",
        "TwoNN estimate, from the distances of every image to its two nearest neighbors in the unit.",
        "number",
        "too few of their images differ",
    ),
    Measure(
        "ratio",
        "Linear over intrinsic",
        "Linear dimension divided by intrinsic dimension: the larger, the more curved the unit's representation.",
        "number",
        "too few of their images differ",
    ),
)
"""The measures that the map of units can show."""


@dataclass(frozen=True)
class MethodLine:
    """Accuracy of one method, in [0, 1], on the test images with its 95 % interval, and on the validation images.

    kind: "before" (the classifier that adapting starts from), "method", or "probe" (a linear probe for comparison).
    is_chosen: whether it is the method of the saved adapter, the best on the validation images.
    """

    name: str
    kind: str
    accuracy: float | None
    interval: tuple[float, float] | None
    parameters: int | None
    seconds: float | None
    val_accuracy: float | None = None
    is_chosen: bool = False


@dataclass(frozen=True)
class End:
    """One end of a component: texts that match it, best first, and pictures of the images furthest along it."""

    texts: tuple[str, ...]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class ComponentLine:
    """One principal component. share: of the unit's variance; scale: its lambda, if it has one."""

    index: int
    share: float
    scale: float | None
    positive: End | None = None
    negative: End | None = None


@dataclass(frozen=True)
class UnitLine:
    """One head, MLP or the embedding. measures: by the names of `MEASURES`; texts: for the unit as a whole."""

    label: str
    kind: str
    layer: int | None
    head: int | None
    measures: Mapping[str, float | None]
    two_nn_interval: tuple[float, float] | None
    texts: tuple[str, ...]
    components: tuple[ComponentLine, ...]


@dataclass(frozen=True)
class MovedLine:
    """A component whose lambda moved far. index: None for a unit that is scaled as a whole.

    scale: its lambda. effect: root mean square length of the change of the embedding. texts: of its two ends.
    """

    label: str
    index: int | None
    scale: float
    effect: float
    texts: tuple[str, str]


@dataclass(frozen=True)
class ChangedImage:
    """A test image whose predicted class changed.

    probability: of the new class. change: growth of the margin of the new class over the old one, in logits. parts: the
    units that contributed most to it; the contributions of all units sum to the change.
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
    def kind(self) -> str:
        """`corrected`, `newly wrong` or `still wrong`."""
        if self.after == self.label:
            return "corrected"
        return "newly wrong" if self.before == self.label else "still wrong"

    @property
    def largest(self) -> float:
        """The largest absolute part; 1 where all are zero."""
        return max((abs(value) for _, value in self.parts), default=0.0) or 1.0


@dataclass(frozen=True)
class Fact:
    """One line of "how it was made"."""

    name: str
    value: str


@dataclass(frozen=True, repr=False)
class ReportContents:
    """Everything a report shows.

    method: of the adapter. scales_of: the method whose lambdas are shown. scale_free: whether they are divided by their
    root mean square, because a common factor changes no prediction. rest: what becomes of directions without a lambda,
    "keep" or "zero". components_of: the images that the components with lambdas come from; "" where none has a lambda.
    before_is: the classifier that adapting starts from, in words. profiles: the table
    `geometry_profiles` of the quantities on the page. put_back: test accuracy as lambdas are reset to 1, largest or
    smallest effect first or in random order. curve: every validation while fitting. n_changed: number of test images
    whose class changed; changed: some of them. confusion: one row per pair of true and predicted class that occurs on
    the test images, before or after. findings: what the numbers say, in sentences. notes: what could not be shown, and
    why. pictures: JPEG files by name, as base64 text.
    """

    title: str
    model: str
    data: str
    method: str
    scales_of: str | None
    scale_free: bool
    rest: str | None
    components_of: str
    n_test: int
    before_is: str
    methods: tuple[MethodLine, ...]
    n_layers: int
    n_heads: int
    units: tuple[UnitLine, ...]
    profiles: Table
    moved: tuple[MovedLine, ...]
    put_back: Table
    curve: Table
    class_names: tuple[str, ...]
    confusion: Table
    n_changed: int
    changed: tuple[ChangedImage, ...]
    made: tuple[Fact, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, str]

    def __repr__(self) -> str:
        sizes = f"{plural(len(self.units), 'unit')}, {plural(len(self.findings), 'finding')}"
        return one_line(f"ReportContents({self.title!r}, {sizes})")

    def to_json(self) -> dict[str, Any]:
        """As JSON types, without the pictures."""
        content = asdict(self)
        del content["pictures"]
        return content
