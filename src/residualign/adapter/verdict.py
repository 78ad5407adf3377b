"""What an adapter says of one image: label, probabilities, and the heads that decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from residualign.adapter.adapter import Adapter
from residualign.adapter.attribution import Attribution
from residualign.units import Unit

__all__ = ["Decision", "Verdict", "classify_images"]

N_HEADS = 3
N_CLASSES = 3


@dataclass(frozen=True)
class Decision:
    """A head's share of the margin between the first two classes; a negative one speaks for the second."""

    head: str
    share: float | None


@dataclass(frozen=True)
class Verdict:
    """One image's answer.

    first: the classes with the largest probabilities, in order, with these. margin: by how much the logit of the first
    exceeds that of the second. decided_by: the heads with the largest shares of it, whichever class they speak for.
    kinds: the shares of all heads, of all MLPs, and of the rest (embedding and constants) together; they add up to one.
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
    coordinates = adapter.take_apart(images)
    probabilities = adapter.predict_proba(coordinates)
    attribution = adapter.attribution(coordinates)
    top = probabilities.topk(min(N_CLASSES, len(adapter.class_names)), dim=-1)
    return [
        Verdict(
            image=name,
            label=adapter.class_names[top.indices[i][0]],
            probability=float(top.values[i][0]),
            first=tuple(
                (adapter.class_names[j], value)
                for j, value in zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True)
            ),
            margin=float(attribution.margin[i]),
            decided_by=_largest_heads(attribution, i),
            kinds=_kinds(attribution, i),
        )
        for i, name in enumerate(names)
    ]


def _largest_heads(attribution: Attribution, image: int) -> tuple[Decision, ...]:
    heads = [
        (label, share) for label, share in attribution.top(image, len(attribution.labels)) if _kind(label) == "heads"
    ]
    return tuple(Decision(label, _finite(share)) for label, share in heads[:N_HEADS])


def _kinds(attribution: Attribution, image: int) -> dict[str, float | None]:
    totals = {"heads": 0.0, "mlps": 0.0, "rest": 0.0}
    for label, share in zip(attribution.labels, attribution.shares[image].tolist(), strict=True):
        totals[_kind(label)] += share
    return {kind: _finite(total) for kind, total in totals.items()}


def _kind(label: str) -> str:
    # constants have a share too, and no unit
    if label == "rest":
        return "rest"
    return {"head": "heads", "mlp": "mlps", "embedding": "rest"}[Unit.parse(label).kind]


def _finite(share: float) -> float | None:
    """None where the margin is exactly zero: there is then nothing to share."""
    return share if math.isfinite(share) else None
