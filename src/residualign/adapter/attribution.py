"""Which units decided: each one's exact share of the margin between an image's first two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import plural, whole_percent
from residualign._result import Result, Table
from residualign.adapter.fold import Adapted
from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT

__all__ = [
    "REST",
    "Attribution",
    "ChangeAttribution",
    "attribute",
    "attribute_change",
    "decision_directions",
    "unit_parts",
]

REST = "rest"

"""The label of what belongs to no unit: means that replace units, the constants of an output map, rounding."""


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Result):
    """How much each unit adds to the difference between the logits of an image's top two classes.

    labels: the units in unit order, then `REST`. first, second: indices of the two classes. margin: difference of
    their logits, at least zero. values: each label's part of it; a row sums to the margin. A negative part favors
    the second class.
    """

    class_names: tuple[str, ...]
    labels: tuple[str, ...]
    first: Int[Tensor, " image"]
    second: Int[Tensor, " image"]
    margin: Float[Tensor, " image"]
    values: Float[Tensor, "image label"]

    @property
    def shares(self) -> Float[Tensor, "image label"]:
        """Parts of the margin; a row sums to one. NaN where both classes have the same logit."""
        return self.values / self.margin[:, None]

    def top(self, image: int, count: int = 5) -> list[tuple[str, float]]:
        """The labels with the largest shares of one image, whichever class they favor, and their shares."""
        return [(self.labels[i], float(self.shares[image, i])) for i in _largest(self.values[image], count)]

    def __len__(self) -> int:
        return len(self.margin)

    @property
    def tables(self) -> dict[str, Table]:
        """`images`: one row per image, with the units of the largest shares; `units`: one per image and unit."""
        images = [
            {
                "image": i,
                "class": self.class_names[int(self.first[i])],
                "second": self.class_names[int(self.second[i])],
                "margin": float(self.margin[i]),
                "units": ", ".join(f"{label} {whole_percent(share)}" for label, share in self.top(i, 3)),
            }
            for i in range(len(self))
        ]
        units = [
            {"image": i, "unit": label, "margin": float(value), "share": float(share)}
            for i in range(len(self))
            for label, value, share in zip(self.labels, self.values[i], self.shares[i], strict=True)
        ]
        return {"images": images, "units": units}

    def to_json(self) -> dict[str, Any]:
        """As JSON types; a share is null where both classes have the same logit."""
        shares = [[None if value != value else value for value in row] for row in self.shares.tolist()]
        first, second = ([self.class_names[i] for i in index.tolist()] for index in (self.first, self.second))
        rows = zip(first, second, self.margin.tolist(), shares, strict=True)
        images = [{"class": one, "second": other, "margin": m, "shares": row} for one, other, m, row in rows]
        return {"labels": list(self.labels), "images": images}

    def _summary(self) -> str:
        if not len(self):
            return "no images"
        first = ", ".join(f"{label} {whole_percent(share)}" for label, share in self.top(0, 2))
        chosen, second = (self.class_names[int(index[0])] for index in (self.first, self.second))
        sizes = f"{plural(len(self), 'image')}, {plural(len(self.labels) - 1, 'unit')}"
        return f"{sizes}; first image: {chosen} over {second}, {first}"


def attribute(adapted: Adapted, coordinates: Coordinates) -> Attribution:
    """Attribute the margins of some images to units, in float64.

    Exact because the adapted embedding is a sum over units and a logit is linear in it once its length is known. For
    a map on the whole embedding (`spectral-output`, `linear`) each unit's contribution goes through that map. Costs
    O(image x coordinate x dim), as much as one adapted embedding in float64. `BadInputError` for fewer than two
    classes. Source: the direct effect of a component on a logit, arXiv 2310.05916 section 3.
    """
    embedded, first, second, direction = _margin(adapted, coordinates)
    margin = (embedded * direction).sum(dim=1)
    parts = unit_parts(adapted, coordinates.to(dtype=torch.float64), direction)
    values = torch.stack([*parts, margin - torch.stack(parts).sum(dim=0)], dim=1)
    labels = (*adapted.maps.units.labels, REST)
    return Attribution(adapted.classifier.class_names, labels, first, second, margin, values)


def decision_directions(
    adapted: Adapted, coordinates: Coordinates, labels: Sequence[str]
) -> dict[str, Float[Tensor, "image dim"]]:
    """The direction along which each unit's own contribution, before adapting, decided each image's class; float64.

    A contribution times its direction is the unit's part of the margin (`attribute`), except for the part of the unit's
    mean, which is the same for all images. Errors: those of `attribute`, and `BadInputError` for an unknown label.
    """
    names = [adapted.maps.units.get(label).label for label in labels]
    directions = _Directions(adapted, _margin(adapted, coordinates)[3])
    return {name: directions.of(name) for name in names}


def _margin(adapted: Adapted, coordinates: Coordinates) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Adapted embeddings, top two classes, and the direction whose product with the embedding is the margin."""
    if len(adapted.classifier.class_names) < 2:
        raise BadInputError("attribution compares the first two classes; the adapter has one class")
    embedded = adapted.embed(coordinates.to(dtype=torch.float64))
    logits = adapted.classifier.logits(embedded)
    top = logits.topk(2, dim=-1)
    first, second = top.indices.unbind(dim=1)
    return embedded, first, second, _direction(adapted.classifier, embedded, first, second)


class _Directions:
    """The direction of the adapted embedding, traced back through the adapter to each unit's own contribution."""

    def __init__(self, adapted: Adapted, direction: Float[Tensor, "image dim"]) -> None:
        self.scaling, self.lambdas = adapted.scaling, adapted.lambdas
        self.scaled = {unit.label: unit for unit in self.scaling.units}
        weight = adapted.learned.get("map")
        # e M . v = e . M v: the map goes to the direction once instead of to every unit
        self.output = direction if weight is None else direction @ weight.to(direction).T
        if OUTPUT in self.scaled:
            self.output = self._through(OUTPUT)

    def of(self, label: str) -> Float[Tensor, "image dim"]:
        """The direction at a unit's contribution; zero if the unit is left out, or replaced by a constant (`REST`)."""
        if label in self.scaled:
            return self._through(label)
        return self.output if self.scaling.rest == "keep" or OUTPUT in self.scaled else torch.zeros_like(self.output)

    def _through(self, label: str) -> Tensor:
        unit, lambdas = self.scaled[label], self.lambdas[label].to(self.output)
        if unit.components is None:
            return lambdas * self.output
        components = unit.components.to(self.output)
        if self.scaling.rest == "keep":
            return self.output + (self.output @ components.T * (lambdas - 1)) @ components
        return (self.output @ components.T * lambdas) @ components


def unit_parts(adapted: Adapted, coordinates: Coordinates, direction: Tensor) -> list[Tensor]:
    """Each unit's adapted contribution along its image's direction, (image,), in unit order.

    direction: (image, dim), float64. What they lack of the whole belongs to no unit (see `REST`).
    """
    directions, maps = _Directions(adapted, direction), adapted.maps.to(dtype=torch.float64)
    parts = []
    for unit in maps.units:
        contribution = maps.contribution(coordinates, unit)
        own = directions.scaled.get(unit.label)
        if own is not None:
            contribution = contribution - own.mean.to(contribution)
        part = (contribution * directions.of(unit.label)).sum(dim=1)
        if own is not None and adapted.scaling.mean == "keep":
            part = part + directions.output @ own.mean.to(contribution)
        parts.append(part)
    return parts


@dataclass(frozen=True, eq=False)
class ChangeAttribution:
    """How adapting moved the margin between two classes, unit by unit.

    labels: the units in unit order, then `REST`. before, after: indices of the class before and after adapting. change:
    the logit of the new class minus that of the old one, after adapting minus before: positive if the class changed.
    values: each label's part of it; a row sums to the change.
    """

    labels: tuple[str, ...]
    before: Int[Tensor, " image"]
    after: Int[Tensor, " image"]
    change: Float[Tensor, " image"]
    values: Float[Tensor, "image label"]

    def top(self, image: int, count: int = 5) -> tuple[tuple[str, float], ...]:
        """The labels that moved one image's margin most, in either direction, and by how many logits."""
        return tuple((self.labels[i], float(self.values[image, i])) for i in _largest(self.values[image], count))


def attribute_change(adapted: Adapted, coordinates: Coordinates) -> ChangeAttribution:
    """Attribute the change of margins to units, in float64.

    A margin is linear in the units once the length of the embedding is known, before and after adapting; a unit's part
    is its part of the margin after minus that before. Images whose class did not change have zeros throughout. Costs
    two attributions. `BadInputError` for fewer than two classes.
    """
    if len(adapted.classifier.class_names) < 2:
        raise BadInputError("a change of class needs two classes; the adapter has one")
    y = coordinates.to(dtype=torch.float64)
    embedded = adapted.embed(y)
    old = adapted.base_classifier.logits(y.output).argmax(dim=-1)
    new = adapted.classifier.logits(embedded).argmax(dim=-1)
    direction_after = _direction(adapted.classifier, embedded, new, old)
    direction_before = _direction(adapted.base_classifier, y.output, new, old)
    maps = adapted.maps.to(dtype=torch.float64)
    before = [(maps.contribution(y, unit) * direction_before).sum(dim=1) for unit in maps.units]
    after = unit_parts(adapted, y, direction_after)
    parts = torch.stack(after, dim=1) - torch.stack(before, dim=1)
    change = (embedded * direction_after).sum(dim=1) - (y.output * direction_before).sum(dim=1)
    values = torch.cat([parts, (change - parts.sum(dim=1))[:, None]], dim=1)
    return ChangeAttribution((*maps.units.labels, REST), old, new, change, values)


def _direction(classifier: Classifier, embedded: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """What an embedding is multiplied by to give the logit of one class minus that of the other."""
    vectors = classifier.vectors.to(embedded)
    length = embedded.norm(dim=1, keepdim=True).clamp_min(torch.finfo(embedded.dtype).tiny)
    direction: Tensor = classifier.logit_scale * (vectors[one] - vectors[other]) / length
    return direction


def _largest(values: Float[Tensor, " label"], count: int) -> list[int]:
    order: list[int] = values.abs().argsort(descending=True, stable=True)[:count].tolist()
    return order
