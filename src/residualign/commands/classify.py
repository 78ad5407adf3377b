"""`residualign classify`: labels for images, and which heads decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from residualign._progress import SILENT, Progress
from residualign.commands._flags import AdapterDir, BatchSize, Encoder, ImagePaths, ModelPath, SkipBad
from residualign.units import Unit

if TYPE_CHECKING:
    from PIL import Image

    from residualign.adapter.adapter import Adapter
    from residualign.adapter.attribution import Attribution

__all__ = ["ClassifyOutcome", "ClassifyRequest", "Decision", "Verdict", "classify_images", "run"]

N_HEADS = 3
N_CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest(Encoder):
    """Label images with an adapter.

    Beside label and probability are the heads that decided, each with its share of the margin between the first two
    classes; a share below zero favors the second. The column `all heads` is the share of all heads together.
    """

    adapter: AdapterDir
    images: ImagePaths
    model: ModelPath = None
    skip_bad: SkipBad = False
    batch_size: BatchSize = 32


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


@dataclass(frozen=True)
class ClassifyOutcome:
    """Verdicts in the order of the images, without the skipped ones."""

    request: ClassifyRequest
    adapter: Adapter
    verdicts: tuple[Verdict, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `classify --json` prints."""
        return {
            "adapter": str(self.request.adapter),
            "model": self.adapter.model_info.get("name"),
            "method": self.adapter.method,
            "n_images": len(self.verdicts),
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "images": [verdict.to_json() for verdict in self.verdicts],
        }


def run(request: ClassifyRequest, progress: Progress = SILENT) -> ClassifyOutcome:
    """Classify image files, and those in folders.

    `BadInputError` for an image that cannot be read, naming it, unless skip_bad; and where none can.
    """
    from residualign._messages import skipped_sentence
    from residualign.adapter.adapter import load_adapter
    from residualign.commands._inputs import expand_images, opened_images
    from residualign.errors import BadInputError

    files = expand_images(request.images)
    adapter = load_adapter(request.adapter, model=request.model, device=request.device, dtype=request.dtype)
    skipped: list[str] = []
    verdicts: list[Verdict] = []
    with progress.task("images") as tick:
        for start in range(0, len(files), request.batch_size):
            batch = files[start : start + request.batch_size]
            opened = list(opened_images(batch, request.skip_bad, skipped))
            if opened:
                verdicts += classify_images(adapter, [str(path) for path, _ in opened], [image for _, image in opened])
            tick(start + len(batch), len(files))
    if not verdicts:
        raise BadInputError(f"none of the {len(files)} images could be read; the first is {skipped[0]!r}")
    if skipped:
        progress.warn(skipped_sentence(skipped))
    return ClassifyOutcome(request, adapter, tuple(verdicts), tuple(skipped))


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
