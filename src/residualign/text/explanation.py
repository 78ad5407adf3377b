"""What `explain` finds: texts for whole units, and texts and images at both ends of their components."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._files import plain
from residualign._messages import listed, percent, plural
from residualign._result import Result, Table, one_line
from residualign.errors import BadInputError

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["ChosenText", "ComponentWords", "Explanation", "TextMatch", "UnitWords"]


@dataclass(frozen=True)
class ChosenText:
    """A text of a unit. weight: as the method states. explained_variance_ratio: with all texts before it and itself."""

    text: str
    weight: float
    explained_variance_ratio: float


@dataclass(frozen=True)
class TextMatch:
    """A text at one end of a component. score: of `somp` and `textspan` a cosine in (0, 1], of `omp` |weight|."""

    text: str
    score: float


@dataclass(frozen=True, repr=False)
class ComponentWords:
    """What the two ends of one component say, largest first; 0 is the component of the largest variance.

    explained_variance_ratio: the component's share of the unit's variance over the images the components come from.
    images_positive, images_negative: (key, coefficient) of the images that lie furthest along it, from the component's
    own mean; only those that lie on that side.
    """

    index: int
    explained_variance_ratio: float
    positive: tuple[TextMatch, ...]
    negative: tuple[TextMatch, ...]
    images_positive: tuple[tuple[str, float], ...]
    images_negative: tuple[tuple[str, float], ...]

    def __repr__(self) -> str:
        ends = [texts[0].text if texts else "no text" for texts in (self.positive, self.negative)]
        share = percent(self.explained_variance_ratio)
        return one_line(f"ComponentWords({self.index}, {share} of the variance: + {ends[0]}; - {ends[1]})")


@dataclass(frozen=True, repr=False)
class UnitWords:
    """One unit: texts for the whole of it, how well they hang together (`Coherence`), and its components."""

    label: str
    chosen: tuple[ChosenText, ...]
    coherence: float | None
    components: tuple[ComponentWords, ...]

    @property
    def explained(self) -> float:
        """Share of its variance that all its texts explain; 0 without texts."""
        return self.chosen[-1].explained_variance_ratio if self.chosen else 0.0

    def __repr__(self) -> str:
        texts = "; ".join(one.text for one in self.chosen) or "images alone"
        return one_line(f"UnitWords({self.label}, {percent(self.explained)} of its variance: {texts})")


@dataclass(frozen=True, repr=False)
class Explanation(Result):
    """Texts and images that describe the units of a model.

    Attributes
    ----------
    model, data, split : str
        What was looked at.
    n_images : int
        Images in the split.
    source : str
        The images that the principal components were fitted on.
    method : str
        "somp", "textspan" or "omp".
    dictionary : str or None
        Name of the dictionary; None where units are described by images alone.
    n_texts, n_unknown_texts : int
        Texts in the dictionary, and texts that were left out because the text tower does not know all of their words.
    units : tuple of UnitWords
        In the order asked for.
    """

    model: str
    data: str
    split: str
    n_images: int
    source: str
    method: str
    dictionary: str | None
    n_texts: int
    n_unknown_texts: int
    units: tuple[UnitWords, ...]

    def __getitem__(self, label: str) -> UnitWords:
        """One unit by its label; `BadInputError` for one that was not explained."""
        found = next((unit for unit in self.units if unit.label == label), None)
        if found is None:
            raise BadInputError(f"unit {label!r} was not explained; explained were {listed(self.labels)}")
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the units."""
        return tuple(unit.label for unit in self.units)

    def most_telling(self, count: int) -> tuple[UnitWords, ...]:
        """The units whose texts explain the largest share of their variance, best first.

        Without texts: those whose first component explains the largest share.
        """

        def worth(unit: UnitWords) -> float:
            if self.dictionary is not None:
                return unit.explained
            return unit.components[0].explained_variance_ratio if unit.components else 0.0

        return tuple(sorted(self.units, key=worth, reverse=True)[:count])

    def _summary(self) -> str:
        words = "images alone" if self.dictionary is None else f"{self.method}, {plural(self.n_texts, 'text')}"
        sizes = f"{plural(len(self.units), 'unit')}, {plural(self.n_images, 'image')}"
        return f"{sizes}, {words}: {self.model!r} on {self.data!r}"

    @property
    def tables(self) -> dict[str, Table]:
        """`texts` of whole units, `components` (texts at their ends) and `images` (at their ends)."""
        return {"texts": self._texts(), "components": self._components(), "images": self._images()}

    @property
    def figures(self) -> dict[str, Figure]:
        """`explain`: the texts at both ends of the components that texts explain best; none without texts."""
        from residualign.figures.explain import MAX_ROWS, explain_figures

        if self.dictionary is None:
            return {}
        units = [unit.label for unit in self.most_telling(MAX_ROWS)]
        title = f"{Path(self.model).name} on {Path(self.data).name}"
        return explain_figures(self.tables, title, units, dict, self.method)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON types."""
        content: dict[str, Any] = plain(asdict(self))
        for unit in content["units"]:
            for component in unit["components"]:
                for end in ("images_positive", "images_negative"):
                    component[end] = [{"key": key, "coefficient": value} for key, value in component[end]]
        return content

    def _texts(self) -> list[dict[str, Any]]:
        return [
            {"unit": unit.label, "rank": rank, **asdict(text), "coherence": unit.coherence}
            for unit in self.units
            for rank, text in enumerate(unit.chosen, 1)
        ]

    def _components(self) -> list[dict[str, Any]]:
        return [
            {
                "unit": unit.label,
                "component": component.index,
                "explained_variance_ratio": component.explained_variance_ratio,
                "end": end,
                "rank": rank,
                **asdict(match),
            }
            for unit in self.units
            for component in unit.components
            for end, matches in (("positive", component.positive), ("negative", component.negative))
            for rank, match in enumerate(matches, 1)
        ]

    def _images(self) -> list[dict[str, Any]]:
        return [
            {"unit": unit.label, "component": c.index, "end": end, "rank": rank, "key": key, "coefficient": value}
            for unit in self.units
            for c in unit.components
            for end, images in (("positive", c.images_positive), ("negative", c.images_negative))
            for rank, (key, value) in enumerate(images, 1)
        ]
