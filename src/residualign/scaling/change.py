"""Which units made an image change its class: each one's exact share of how far the margin moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign.adapter.adapter import Adapter
from residualign.adapter.attribution import REST, unit_parts
from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError

__all__ = ["ChangeAttribution", "attribute_change"]


@dataclass(frozen=True)
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


def attribute_change(adapter: Adapter, coordinates: Coordinates) -> ChangeAttribution:
    """Attribute the change of margins to units, in float64.

    A margin is linear in the units once the length of the embedding is known, before adapting as after it; a unit's
    part is its part of the margin after less that before. Images whose class did not change have no two classes to
    compare and zeros throughout. Costs two attributions. `BadInputError` with fewer than two classes.
    """
    if len(adapter.class_names) < 2:
        raise BadInputError("a change of class needs two classes; the adapter has one")
    y = coordinates.to(dtype=torch.float64)
    adapted = adapter.embed_coordinates(y)
    old = adapter.base_classifier.logits(y.output).argmax(dim=-1)
    new = adapter.classifier.logits(adapted).argmax(dim=-1)
    direction_after = _direction(adapter.classifier, adapted, new, old)
    direction_before = _direction(adapter.base_classifier, y.output, new, old)
    maps = adapter.maps.to(dtype=torch.float64)
    before = [(maps.contribution(y, unit) * direction_before).sum(dim=1) for unit in maps.units]
    after = unit_parts(adapter, y, direction_after)
    parts = torch.stack(after, dim=1) - torch.stack(before, dim=1)
    change = (adapted * direction_after).sum(dim=1) - (y.output * direction_before).sum(dim=1)
    values = torch.cat([parts, (change - parts.sum(dim=1))[:, None]], dim=1)
    return ChangeAttribution((*maps.units.labels, REST), old, new, change, values)


def _direction(classifier: Classifier, embedded: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """What an embedding is multiplied with to give the logit of the new class less that of the old one."""
    vectors = classifier.vectors.to(embedded)
    length = embedded.norm(dim=1, keepdim=True).clamp_min(torch.finfo(embedded.dtype).tiny)
    direction: Tensor = classifier.logit_scale * (vectors[new] - vectors[old]) / length
    return direction
