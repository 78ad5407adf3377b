"""Which units decided: each one's exact share of the margin between an image's first two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import whole_percent
from residualign._result import Result, Table
from residualign.adapter.adapted import Adapted
from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, ScaledUnit, Scaling

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

"""The label of what belongs to no unit: means put in place of units, the constants of an output map, rounding."""


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Result):
    """How much each unit adds to the difference between the logits of an image's first and second class.

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
        order = self.values[image].abs().argsort(descending=True, stable=True)[:count]
        shares = self.shares[image]
        return [(self.labels[i], float(shares[i])) for i in order.tolist()]

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
        return {
            "labels": list(self.labels),
            "images": [
                {
                    "class": self.class_names[first],
                    "second": self.class_names[second],
                    "margin": margin,
                    "shares": row,
                }
                for first, second, margin, row in zip(
                    self.first.tolist(), self.second.tolist(), self.margin.tolist(), shares, strict=True
                )
            ],
        }

    def _summary(self) -> str:
        if not len(self):
            return "no images"
        first = ", ".join(f"{label} {whole_percent(share)}" for label, share in self.top(0, 2))
        chosen, second = (self.class_names[int(index[0])] for index in (self.first, self.second))
        return f"{len(self):,} images, {len(self.labels) - 1} units; first image: {chosen} over {second}, {first}"


def attribute(adapted: Adapted, coordinates: Coordinates) -> Attribution:
    """Attribute the margins of some images to units, in float64.

    Exact because the adapted embedding is a sum over units and a logit is linear in it once its length is known. For
    a map on the whole embedding (`spectral-output`, `linear`) each unit's contribution goes through that map. Costs
    O(image x coordinate x dim), as much as one adapted embedding in float64. `BadInputError` with fewer than two
    classes. Source: the direct effect of a component on a logit, arXiv 2310.05916 section 3.
    """
    embedded, first, second, direction = _margin(adapted, coordinates)
    margin = (embedded * direction).sum(dim=1)
    parts = unit_parts(adapted, coordinates.to(dtype=torch.float64), direction)
    values = torch.stack([*parts, margin - torch.stack(parts).sum(dim=0)], dim=1)
    return Attribution(
        adapted.classifier.class_names, (*adapted.maps.units.labels, REST), first, second, margin, values
    )


def decision_directions(
    adapted: Adapted, coordinates: Coordinates, labels: Sequence[str]
) -> dict[str, Float[Tensor, "image dim"]]:
    """The direction along which each unit's own contribution, before adapting, decided each image's class; float64.

    A contribution times its direction is the unit's part of the margin (`attribute`) but for the unit's mean, which is
    no image's. Errors: those of `attribute`, and `BadInputError` for a label the tower has not.
    """
    direction = _before_output(adapted, _margin(adapted, coordinates)[3])
    scaling, lambdas = adapted.scaling, adapted.lambdas
    scaled = {unit.label: unit for unit in scaling.units}
    found = {}
    for label in labels:
        name = adapted.maps.units.get(label).label
        if name in scaled:
            found[name] = _scaled_direction(direction, scaled[name], lambdas[name].to(direction), scaling)
        elif scaling.rest == "keep" or OUTPUT in scaled:
            found[name] = direction
        else:
            found[name] = torch.zeros_like(direction)
    return found


def _margin(adapted: Adapted, coordinates: Coordinates) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Adapted embeddings, first and second class, and the direction whose product with them is the margin."""
    if len(adapted.classifier.class_names) < 2:
        raise BadInputError("attribution compares the first two classes; the adapter has one class")
    embedded = adapted.embed(coordinates.to(dtype=torch.float64))
    logits = adapted.classifier.logits(embedded)
    top = logits.topk(2, dim=-1)
    first, second = top.indices.unbind(dim=1)
    vectors = adapted.classifier.vectors.to(embedded)
    length = embedded.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    direction = adapted.classifier.logit_scale * (vectors[first] - vectors[second]) / length
    return embedded, first, second, direction


def _before_output(adapted: Adapted, direction: Tensor) -> Tensor:
    """The direction seen before what is done to the whole embedding."""
    weight = adapted.learned.get("map")
    if weight is not None:
        # e M . v = e . M v: the map goes to the direction once instead of to every unit
        direction = direction @ weight.to(direction).T
    for unit in adapted.scaling.units:
        if unit.label == OUTPUT:
            direction = _scaled_direction(direction, unit, adapted.lambdas[OUTPUT].to(direction), adapted.scaling)
    return direction


def unit_parts(adapted: Adapted, coordinates: Coordinates, direction: Tensor) -> list[Tensor]:
    """Each unit's adapted contribution along its image's direction, (image,), in unit order.

    direction: (image, dim), float64. What belongs to no unit (see `REST`) is what they lack of the whole.
    """
    scaling, lambdas = adapted.scaling, adapted.lambdas
    scaled = {unit.label: unit for unit in scaling.units}
    whole_embedding = scaled.get(OUTPUT)
    direction = _before_output(adapted, direction)
    maps = adapted.maps.to(dtype=torch.float64)
    parts = []
    for unit in maps.units:
        contribution = maps.contribution(coordinates, unit)
        if unit.label in scaled:
            factor = lambdas[unit.label].to(direction)
            contribution = _scaled_contribution(contribution, scaled[unit.label], factor, scaling)
        elif scaling.rest != "keep" and whole_embedding is None:
            # left out, or replaced by a constant that belongs to REST
            contribution = torch.zeros_like(contribution)
        parts.append((contribution * direction).sum(dim=1))
    return parts


def _scaled_contribution(contribution: Tensor, unit: ScaledUnit, lambdas: Tensor, scaling: Scaling) -> Tensor:
    """What a scaled unit adds to the adapted embedding, its mean included where that is kept."""
    if unit.components is None:
        return lambdas * contribution
    components, mean = unit.components.to(contribution), unit.mean.to(contribution)
    coefficients = (contribution - mean) @ components.T
    if scaling.rest == "keep":
        total = contribution + (coefficients * (lambdas - 1)) @ components
        return total if scaling.mean == "keep" else total - mean
    total = (coefficients * lambdas) @ components
    return total + mean if scaling.mean == "keep" else total


def _scaled_direction(direction: Tensor, unit: ScaledUnit, lambdas: Tensor, scaling: Scaling) -> Tensor:
    """The direction seen before a unit (or the embedding) is scaled; what is constant goes to REST."""
    if unit.components is None:
        return lambdas * direction
    components = unit.components.to(direction)
    if scaling.rest == "keep":
        return direction + (direction @ components.T * (lambdas - 1)) @ components
    return (direction @ components.T * lambdas) @ components


@dataclass(frozen=True, eq=False)
class ChangeAttribution:
    """How adapting moved the margin between two classes, unit by unit.

    labels: the units in unit order, then `REST`. before, after: indices of the class before and after adapting. change:
    the logit of the new class over that of the old one, after adapting, less the same before adapting: positive
    wherever the class changed. values: each label's part of it; a row sums to the change.
    """

    labels: tuple[str, ...]
    before: Int[Tensor, " image"]
    after: Int[Tensor, " image"]
    change: Float[Tensor, " image"]
    values: Float[Tensor, "image label"]

    def top(self, image: int, count: int = 5) -> tuple[tuple[str, float], ...]:
        """The labels that moved one image's margin most, either way, and by how many logits."""
        order = self.values[image].abs().argsort(descending=True, stable=True)[:count]
        return tuple((self.labels[i], float(self.values[image, i])) for i in order.tolist())


def attribute_change(adapted: Adapted, coordinates: Coordinates) -> ChangeAttribution:
    """Attribute the change of margins to units, in float64.

    A margin is linear in the units once the length of the embedding is known, before adapting as after it; a unit's
    part is its part of the margin after less that before. Images whose class did not change have no two classes to
    compare and zeros throughout. Costs two attributions. `BadInputError` with fewer than two classes.
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


def _direction(classifier: Classifier, embedded: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """What an embedding is multiplied with to give the logit of the new class less that of the old one."""
    vectors = classifier.vectors.to(embedded)
    length = embedded.norm(dim=1, keepdim=True).clamp_min(torch.finfo(embedded.dtype).tiny)
    direction: Tensor = classifier.logit_scale * (vectors[new] - vectors[old]) / length
    return direction
