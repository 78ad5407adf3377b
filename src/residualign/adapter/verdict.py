"""What an adapter says about one image: label, probabilities, and the heads that decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from residualign.adapter.adapter import Adapter
from residualign.adapter.attribution import REST, Attribution
from residualign.units import Unit

__all__ = ["Decision", "Verdict", "classify_images"]

N_HEADS = 3
N_CLASSES = 3


@dataclass(frozen=True)
class Decision:
    """A head's share of the margin between the top two classes; a negative one favors the second."""

    head: str
    share: float | None


@dataclass(frozen=True)
class Verdict:
    """The answer for one image.

    first: the classes with the largest probabilities, in order, with their probabilities. margin: by how much the logit
    of the first class exceeds that of the second. decided_by: the heads with the largest shares of the margin,
    whichever class they favor. kinds: the shares of all heads, of all MLPs, and of the rest (embedding and constants)
    together; they sum to one.
    """

    image: str
    label: str
    probability: float
    first: tuple[tuple[str, float], ...]
    margin: float
    decided_by: tuple[Decision, ...]
    kinds: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"first": [{"label": label, "probability": share} for label, share in self.first]}


def classify_images(adapter: Adapter, names: Sequence[str], images: Sequence[Image.Image]) -> list[Verdict]:
    """Verdicts on one batch of RGB images. One forward pass and one attribution."""
    coordinates = adapter.take_apart(images, names=names)
    probabilities = adapter.predict_proba(coordinates)
    attribution = adapter.attribution(coordinates)
    top = probabilities.topk(min(N_CLASSES, len(adapter.class_names)), dim=-1)
    verdicts = []
    for i, (name, indices, values) in enumerate(zip(names, top.indices.tolist(), top.values.tolist(), strict=True)):
        first = tuple((adapter.class_names[j], value) for j, value in zip(indices, values, strict=True))
        label, probability = first[0]
        margin, heads = float(attribution.margin[i]), _largest_heads(attribution, i)
        verdicts.append(Verdict(name, label, probability, first, margin, heads, _kinds(attribution, i)))
    return verdicts


def _largest_heads(attribution: Attribution, image: int) -> tuple[Decision, ...]:
    everything = attribution.top(image, len(attribution.labels))
    heads = [Decision(label, _finite(share)) for label, share in everything if _kind(label) == "heads"]
    return tuple(heads[:N_HEADS])


def _kinds(attribution: Attribution, image: int) -> dict[str, float | None]:
    totals = {"heads": 0.0, "mlps": 0.0, "rest": 0.0}
    for label, share in zip(attribution.labels, attribution.shares[image].tolist(), strict=True):
        totals[_kind(label)] += share
    return {kind: _finite(total) for kind, total in totals.items()}


def _kind(label: str) -> str:
    # constants have a share too, but are not a unit
    if label == REST:
        return "rest"
    return {"head": "heads", "mlp": "mlps", "embedding": "rest"}[Unit.parse(label).kind]


def _finite(share: float) -> float | None:
    """None if the margin is exactly zero: there is nothing to share then."""
    return share if math.isfinite(share) else None
