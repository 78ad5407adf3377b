"""Label images with an adapter, and say which heads decided."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from residualign._progress import Progress
from residualign.adapter.adapter import Adapter, load_adapter
from residualign.adapter.attribution import Attribution
from residualign.commands._inputs import Machine, expand_images
from residualign.commands._messages import left_out_sentence
from residualign.data.images import BadImageError, read_image
from residualign.errors import BadInputError

__all__ = ["ClassifyOutcome", "Decision", "Verdict", "classify_images", "opened_images", "run_classify"]

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


@dataclass(frozen=True)
class ClassifyOutcome:
    """Verdicts in the order of the images, without the skipped ones."""

    adapter: Adapter
    verdicts: tuple[Verdict, ...]
    skipped: tuple[str, ...]


def run_classify(
    folder: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    machine: Machine,
    *,
    model: str | None = None,
    skip_bad: bool = False,
    progress: Progress,
) -> ClassifyOutcome:
    """Classify image files, and those in folders, with the adapter in `folder`.

    model: where the adapter's model has moved to. `BadInputError` for an image that cannot be read, naming it, unless
    skip_bad; and where none can.
    """
    files = expand_images(images)
    adapter = load_adapter(folder, model=model, device=machine.device, dtype=machine.dtype)
    skipped: list[str] = []
    verdicts: list[Verdict] = []
    with progress.task("images") as tick:
        for start in range(0, len(files), machine.batch_size):
            batch = files[start : start + machine.batch_size]
            opened = list(opened_images(batch, skip_bad, skipped))
            if opened:
                verdicts += classify_images(adapter, [str(path) for path, _ in opened], [image for _, image in opened])
            tick(start + len(batch), len(files))
    if not verdicts:
        raise BadInputError(f"none of the {len(files)} images could be read, {skipped[0]!r} first")
    if skipped:
        progress.warn(left_out_sentence(skipped))
    return ClassifyOutcome(adapter, tuple(verdicts), tuple(skipped))


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
    heads = [(label, share) for label, share in attribution.top(image, len(attribution.labels)) if ".H" in label]
    return tuple(Decision(label, _finite(share)) for label, share in heads[:N_HEADS])


def _kinds(attribution: Attribution, image: int) -> dict[str, float | None]:
    totals = {"heads": 0.0, "mlps": 0.0, "rest": 0.0}
    for label, share in zip(attribution.labels, attribution.shares[image].tolist(), strict=True):
        totals["heads" if ".H" in label else "mlps" if label.endswith(".mlp") else "rest"] += share
    return {kind: _finite(total) for kind, total in totals.items()}


def _finite(share: float) -> float | None:
    """None where the margin is exactly zero: there is then nothing to share."""
    return share if math.isfinite(share) else None


def opened_images(paths: Sequence[Path], skip_bad: bool, skipped: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Images that can be read, in RGB; with skip_bad the keys of the others go to `skipped`."""
    for path in paths:
        try:
            yield path, read_image(path)
        except BadImageError as error:
            if not skip_bad:
                raise
            skipped.append(error.key)
