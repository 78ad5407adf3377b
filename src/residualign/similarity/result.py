"""What comparisons find: spectral cosines, agreement of means and CKA, by unit, by layer and for all pairs of heads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor

from residualign._files import plain
from residualign._messages import plural
from residualign._result import Result, Table
from residualign.errors import BadInputError
from residualign.units import Unit, UnitKind

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = [
    "COSINES",
    "MEANS",
    "CkaPairs",
    "HeadPairs",
    "LayerSimilarity",
    "Matching",
    "MeanSimilarity",
    "SpectraSimilarity",
    "SpectralCosine",
    "TwoSets",
    "UnitCka",
    "UnitSimilarity",
    "pair_rows",
    "pairs_json",
]

Matching = Literal["greedy", "optimal"]

Row = dict[str, Any]

COSINES = ("weighted", "unweighted", "weighted_optimal", "unweighted_optimal")
MEANS = ("cosine", "pearson", "spearman", "euclidean", "relative_cosine", "relative_pearson", "relative_spearman")


@dataclass(frozen=True, repr=False, eq=False)
class TwoSets(Result):
    """What was found about two sets of images, whose names are in every table.

    A subclass says its rows in `_rows` and its JSON in `_content`, without the names.
    """

    first: str
    second: str

    def _rows(self) -> dict[str, list[Row]]:
        raise NotImplementedError

    def _content(self) -> Row:
        raise NotImplementedError

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that have rows: `units` (and the output), `layers` and `pairs` of heads."""
        who = {"first": self.first, "second": self.second}
        return {name: [who | row for row in rows] for name, rows in self._rows().items() if rows}

    @property
    def figures(self) -> dict[str, Figure]:
        """`heads`, `layers` and `pairs`, where there are such tables."""
        from residualign.figures.similarity import similarity_figures

        return similarity_figures(self.tables)

    def to_json(self) -> Row:
        """As JSON types; NaN becomes None."""
        content: Row = plain({"first": self.first, "second": self.second, **self._content()})
        return content


class _OneUnit(Result):
    """What was found about one unit: one row."""

    _table = "units"

    @property
    def row(self) -> Row:
        """As one row of a table."""
        fields: Row = asdict(self)  # type: ignore[call-overload]
        return fields

    @property
    def tables(self) -> dict[str, Table]:
        """One table of one row."""
        return {self._table: [self.row]}

    def to_json(self) -> Row:
        """As JSON types; NaN becomes None."""
        content: Row = plain(self.row)
        return content


@dataclass(frozen=True, repr=False)
class SpectralCosine:
    """The four similarities of two bases, each in [0, 1]; NaN where one of them has no component.

    weighted, unweighted: greedy matching, as published. *_optimal: the matching with the largest value.
    """

    weighted: float
    unweighted: float
    weighted_optimal: float
    unweighted_optimal: float

    def __repr__(self) -> str:
        return f"SpectralCosine({', '.join(f'{name} {value:.3f}' for name, value in asdict(self).items())})"


@dataclass(frozen=True, repr=False)
class UnitSimilarity(_OneUnit):
    """One unit on two sets of images; kind "output" is the model's output.

    n_components: of the first and of the second basis, after the cut.
    """

    label: str
    kind: UnitKind | Literal["output"]
    layer: int | None
    head: int | None
    n_components: tuple[int, int]
    cosine: SpectralCosine

    def _summary(self) -> str:
        return f"{self.label}: weighted {self.cosine.weighted:.3f}, unweighted {self.cosine.unweighted:.3f}"

    @property
    def row(self) -> Row:
        """As one row of a table."""
        first, second = self.n_components
        unit = {"label": self.label, "kind": self.kind, "layer": self.layer, "head": self.head}
        return unit | {"n_components_first": first, "n_components_second": second} | asdict(self.cosine)


@dataclass(frozen=True, repr=False)
class LayerSimilarity:
    """Means over the units of one kind in one layer, of those that vary."""

    layer: int
    kind: UnitKind
    cosine: SpectralCosine

    def __repr__(self) -> str:
        cosine = self.cosine
        return (
            f"LayerSimilarity(layer {self.layer}, {self.kind}: weighted {cosine.weighted:.3f}, "
            f"unweighted {cosine.unweighted:.3f})"
        )

    @property
    def row(self) -> Row:
        """As one row of a table."""
        return {"layer": self.layer, "kind": self.kind, **asdict(self.cosine)}


@dataclass(frozen=True, repr=False)
class SpectraSimilarity(TwoSets):
    """Similarity of the components of every unit on two sets of images.

    Attributes
    ----------
    first, second : str
        The sets of images.
    units : tuple of UnitSimilarity
        In unit order.
    output : UnitSimilarity
        The model's output.
    variance_threshold : float
        Share of the variance at which each basis is cut.
    """

    units: tuple[UnitSimilarity, ...]
    output: UnitSimilarity
    variance_threshold: float

    def __getitem__(self, label: str) -> UnitSimilarity:
        """One unit, or "output", by its label; `BadInputError` for others."""
        found = next((unit for unit in (*self.units, self.output) if unit.label == label), None)
        if found is None:
            raise BadInputError(f"no unit {label!r} among those compared")
        return found

    def layers(self, kind: UnitKind = "head") -> tuple[LayerSimilarity, ...]:
        """Means layer by layer, for heads or MLPs; the MLP of an attention pooling belongs to no layer."""
        found: dict[int, list[SpectralCosine]] = {}
        for unit in self.units:
            if unit.kind == kind and unit.layer is not None:
                found.setdefault(unit.layer, []).append(unit.cosine)
        return tuple(LayerSimilarity(layer, kind, _mean(cosines)) for layer, cosines in sorted(found.items()))

    def _summary(self) -> str:
        heads = _mean(unit.cosine for unit in self.units if unit.kind == "head")
        return (
            f"{self.first!r} and {self.second!r}, {plural(len(self.units), 'unit')}: mean of heads weighted "
            f"{heads.weighted:.3f}, unweighted {heads.unweighted:.3f}"
        )

    def _rows(self) -> dict[str, list[Row]]:
        return {"units": [one.row for one in (*self.units, self.output)], "layers": self.layer_rows()}

    def layer_rows(self) -> list[Row]:
        """One row per layer, of heads and then of MLPs."""
        kinds: tuple[UnitKind, ...] = ("head", "mlp")
        return [one.row for kind in kinds for one in self.layers(kind)]

    def _content(self) -> Row:
        return {
            "variance_threshold": self.variance_threshold,
            "units": [one.row for one in self.units],
            "output": self.output.row,
            "layers": self.layer_rows(),
        }


@dataclass(frozen=True, repr=False, eq=False)
class HeadPairs(TwoSets):
    """Every head of one tower with every head of another, or of the same: rows are the first's, in unit order.

    Attributes
    ----------
    first, second : str
        The sets of images.
    rows, columns : tuple of Unit
    weighted, unweighted : (row, column) tensor
        In [0, 1]; NaN where a head does not vary.
    matching : {"greedy", "optimal"}
    variance_threshold : float
    """

    rows: tuple[Unit, ...]
    columns: tuple[Unit, ...]
    weighted: Float[Tensor, "row column"]
    unweighted: Float[Tensor, "row column"]
    matching: Matching
    variance_threshold: float

    def _summary(self) -> str:
        sizes = f"{len(self.rows)} x {plural(len(self.columns), 'head')}"
        return f"{sizes}, {self.matching} matching, {self.first!r}, {self.second!r}"

    def _rows(self) -> dict[str, list[Row]]:
        return {"pairs": pair_rows(self, None)}

    def _content(self) -> Row:
        return {**pairs_json(self, None), "variance_threshold": self.variance_threshold}


@dataclass(frozen=True, repr=False)
class MeanSimilarity(_OneUnit):
    """The mean contributions of one unit on two sets of images.

    Attributes
    ----------
    cosine, pearson, spearman : float or None
        Over the entries of the two means, in [-1, 1].
    euclidean : float or None
        Distance of the means, in units of the embedding.
    relative_cosine, relative_pearson, relative_spearman : float or None
        The same of the mean relative representations, over the anchors.

    Notes
    -----
    None: was not asked for, or the sets share no space. NaN: a mean is zero (cosine) or constant (correlations).
    """

    _table = "means"

    label: str
    cosine: float | None
    pearson: float | None
    spearman: float | None
    euclidean: float | None
    relative_cosine: float | None = None
    relative_pearson: float | None = None
    relative_spearman: float | None = None

    def _summary(self) -> str:
        numbers = ((name, getattr(self, name)) for name in MEANS[:4])
        return f"{self.label}: " + ", ".join(f"{name} {value:.3f}" for name, value in numbers if value is not None)


@dataclass(frozen=True, repr=False)
class UnitCka(_OneUnit):
    """The CKA of one unit with the same unit of a different model; NaN where it does not vary.

    debiased: also NaN below four images, and where an estimated self-similarity is not positive.
    """

    _table = "cka"

    label: str
    cka: float
    debiased: float

    def _summary(self) -> str:
        return f"{self.label}: CKA {self.cka:.3f}, debiased {self.debiased:.3f}"

    @property
    def row(self) -> Row:
        """As one row of a table."""
        return {"label": self.label, "cka": self.cka, "cka_debiased": self.debiased}


@dataclass(frozen=True, repr=False, eq=False)
class CkaPairs(TwoSets):
    """The CKA of every unit of the first with every unit of the second, (row, column); NaN as in `UnitCka`."""

    rows: tuple[Unit, ...]
    columns: tuple[Unit, ...]
    cka: Float[Tensor, "row column"]
    debiased: Float[Tensor, "row column"]

    def _summary(self) -> str:
        return f"{len(self.rows)} x {plural(len(self.columns), 'unit')}, {self.first!r}, {self.second!r}"

    def _rows(self) -> dict[str, list[Row]]:
        return {"pairs": pair_rows(None, self)}

    def _content(self) -> Row:
        return pairs_json(None, self)


def pair_rows(bases: HeadPairs | None, cka: CkaPairs | None) -> list[Row]:
    """One row per pair of heads of either, or both."""
    if bases is None and cka is None:
        return []
    numbers = pairs_json(bases, cka)
    names = ("weighted", "unweighted", "cka", "cka_debiased")
    return [
        {
            "row": row,
            "column": column,
            **{name: None if numbers[name] is None else numbers[name][i][j] for name in names},
        }
        for i, row in enumerate(numbers["rows"])
        for j, column in enumerate(numbers["columns"])
    ]


def pairs_json(bases: HeadPairs | None, cka: CkaPairs | None) -> Row:
    """Both as lists of lists; None for what is not there."""
    either = bases or cka
    assert either is not None
    return {
        "rows": [unit.label for unit in either.rows],
        "columns": [unit.label for unit in either.columns],
        "matching": None if bases is None else bases.matching,
        "weighted": None if bases is None else bases.weighted.tolist(),
        "unweighted": None if bases is None else bases.unweighted.tolist(),
        "cka": None if cka is None else cka.cka.tolist(),
        "cka_debiased": None if cka is None else cka.debiased.tolist(),
    }


def _mean(cosines: Iterable[SpectralCosine]) -> SpectralCosine:
    found = tuple(cosines)
    return SpectralCosine(*(_mean_of_numbers(getattr(one, name) for one in found) for name in COSINES))


def _mean_of_numbers(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
