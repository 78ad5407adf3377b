"""All comparisons of two sets of images, as one result."""

from __future__ import annotations

from dataclasses import dataclass

from residualign._messages import plural
from residualign.similarity.result import (
    COSINES,
    MEANS,
    CkaPairs,
    HeadPairs,
    MeanSimilarity,
    Row,
    SpectraSimilarity,
    TwoSets,
    UnitCka,
    pair_rows,
    pairs_json,
)
from residualign.units import Unit

__all__ = ["Comparison"]


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(TwoSets):
    """All comparisons of two sets of images: by unit, by layer, and for pairs of heads.

    Attributes
    ----------
    first, second : str
        The sets of images.
    units : tuple of Unit
        The units to list; none where the towers have different units.
    spectral, means
        Of sets in one space, else None.
    cka
        Of the same images, else None: by unit where both towers have the same ones, and of the output, which is last.
    pairs, pairs_cka
        Heads of the first with heads of the second; None where they were not asked for.
    """

    units: tuple[Unit, ...]
    spectral: SpectraSimilarity | None
    means: tuple[MeanSimilarity, ...] | None
    cka: tuple[UnitCka, ...] | None
    pairs: HeadPairs | None
    pairs_cka: CkaPairs | None

    def _summary(self) -> str:
        parts = ("spectral", "means", "cka", "pairs", "pairs_cka")
        there = ", ".join(name for name in parts if getattr(self, name) is not None)
        return f"{self.first!r} and {self.second!r}, {plural(len(self.units), 'unit')}: {there}"

    def _rows(self) -> dict[str, list[Row]]:
        output = self._output()
        return {
            "units": [*self._units(), *([output] if output else [])],
            "layers": [] if self.spectral is None else self.spectral.layer_rows(),
            "pairs": pair_rows(self.pairs, self.pairs_cka),
        }

    def _content(self) -> Row:
        either = self.pairs or self.pairs_cka
        return {
            "output": self._output(),
            "layers": [] if self.spectral is None else self.spectral.layer_rows(),
            "units": self._units(),
            "pairs": None if either is None else pairs_json(self.pairs, self.pairs_cka),
        }

    def _units(self) -> list[Row]:
        if self.spectral is None and self.cka is None:
            return []
        means = {line.label: line for line in self.means or ()}
        cka = {line.label: line for line in self.cka or ()}
        return [
            self._row(Row(label=one.label, kind=one.kind, layer=one.layer, head=one.head), means, cka.get(one.label))
            for one in self.units
        ]

    def _output(self) -> Row | None:
        if self.spectral is None and self.cka is None:
            return None
        output = Row(label="output", kind="output", layer=None, head=None)
        return self._row(output, {}, None if self.cka is None else self.cka[-1])

    def _row(self, unit: Row, means: dict[str, MeanSimilarity], cka: UnitCka | None) -> Row:
        names = ("n_components_first", "n_components_second", *COSINES)
        row = unit | (dict.fromkeys(names) if self.spectral is None else self.spectral[unit["label"]].row)
        mean = means.get(unit["label"])
        row |= {f"mean_{name}": None if mean is None else getattr(mean, name) for name in MEANS}
        return row | ({"cka": None, "cka_debiased": None} if cka is None else cka.row)
