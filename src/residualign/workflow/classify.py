"""Label images with an adapter, and say which heads decided."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from residualign.data.images import BadImageError, read_image
from residualign.errors import BadInputError
from residualign.scaling.adapter import Adapter, load_adapter
from residualign.scaling.attribution import attribute
from residualign.workflow.images import expand_images
from residualign.workflow.subject import Machine
from residualign.workflow.watch import Watcher

__all__ = ["ClassifyOutcome", "Decision", "Verdict", "classify_images", "run_classify"]

N_UNITS = 3
N_CLASSES = 3


@dataclass(frozen=True)
class Decision:
    """A unit's share of the margin between the first two classes; a negative one speaks for the second."""

    unit: str
    share: float | None


@dataclass(frozen=True)
class Verdict:
    """One image's answer. first: the classes with the largest probabilities, in order, with these; decided_by: the
    units with the largest shares of the margin, in order of size."""

    image: str
    label: str
    probability: float
    first: tuple[tuple[str, float], ...]
    margin: float
    decided_by: tuple[Decision, ...]

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
    watch: Watcher,
) -> ClassifyOutcome:
    """Classify image files, and those in folders, with the adapter in `folder`.

    model: where the adapter's model has moved to. `BadInputError` for an image that cannot be read, naming it, unless
    skip_bad; and where none can.
    """
    files = expand_images(images)
    adapter = load_adapter(folder, model=model, device=machine.device, dtype=machine.dtype)
    skipped: list[str] = []
    verdicts: list[Verdict] = []
    with watch.progress("images") as progress:
        for start in range(0, len(files), machine.batch_size):
            batch = files[start : start + machine.batch_size]
            opened = list(_opened(batch, skip_bad, skipped))
            if opened:
                verdicts += classify_images(adapter, [str(path) for path, _ in opened], [image for _, image in opened])
            progress(start + len(batch), len(files))
    if not verdicts:
        raise BadInputError(f"none of the {len(files)} images could be read, {skipped[0]!r} first")
    if skipped:
        watch.warn(f"{len(skipped)} images could not be read and were left out, {skipped[0]!r} first")
    return ClassifyOutcome(adapter, tuple(verdicts), tuple(skipped))


def classify_images(adapter: Adapter, names: Sequence[str], images: Sequence[Image.Image]) -> list[Verdict]:
    """Verdicts on one batch of RGB images. One forward pass and one attribution."""
    coordinates = adapter.take_apart(images)
    probabilities = adapter.predict_proba(coordinates)
    attribution = attribute(adapter, coordinates)
    top = probabilities.topk(min(N_CLASSES, len(adapter.class_names)), dim=-1)
    verdicts = []
    for i, name in enumerate(names):
        labels = [adapter.class_names[j] for j in top.indices[i].tolist()]
        first = tuple(zip(labels, top.values[i].tolist(), strict=True))
        # with a margin of exactly zero there is nothing to share
        decided = tuple(Decision(unit, share if share == share else None) for unit, share in attribution.top(i, N_UNITS))
        verdicts.append(Verdict(name, *first[0], first, float(attribution.margin[i]), decided))
    return verdicts


def _opened(paths: Sequence[Path], skip_bad: bool, skipped: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    for path in paths:
        try:
            yield path, read_image(path)
        except BadImageError as error:
            if not skip_bad:
                raise
            skipped.append(error.key)
