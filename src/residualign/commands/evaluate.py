"""How good an adapter is on labelled images, beside the classifier it started from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from residualign._progress import Progress
from residualign.adapter.adapter import Adapter, load_adapter
from residualign.adapter.files import refuse_other_model
from residualign.classification.evaluation import Comparison, compare, match_classes
from residualign.commands._inputs import Machine
from residualign.commands._messages import left_out_sentence
from residualign.data import load_data
from residualign.data.batches import pixel_batches
from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.store import Store

__all__ = ["EvaluateOutcome", "run_evaluate"]

_BLOCK = 1024


@dataclass(frozen=True)
class EvaluateOutcome:
    """split_rule: where the test images are from, in words. skipped: images that could not be read."""

    adapter: Adapter
    data: str
    split_rule: str
    comparison: Comparison
    skipped: tuple[str, ...]


@dataclass
class _Test:
    """Test images as (coordinates, labels), and what is known of them; skipped is complete once all were read."""

    batches: Iterator[tuple[Coordinates, list[int]]]
    class_names: tuple[str, ...]
    split_rule: str
    skipped: list[str]


def run_evaluate(
    folder: str | os.PathLike[str],
    data: str,
    machine: Machine,
    *,
    model: str | None = None,
    classes: str | os.PathLike[str] | None = None,
    stream: bool = False,
    skip_bad: bool = False,
    progress: Progress,
) -> EvaluateOutcome:
    """Compare an adapter with its classifier before adapting, on the test split of a data set or a store.

    classes: names for the data's classes, which have to be the adapter's; their order does not matter. Errors: those of
    `load_adapter`, `load_data`, `match_classes` and `compare`.
    """
    adapter = load_adapter(folder, model=model, device=machine.device, dtype=machine.dtype)
    is_store = "://" in data or (Path(data) / "manifest.json").is_file()
    test = (
        _of_store(adapter, data) if is_store else _of_data(adapter, data, machine, classes, stream, skip_bad, progress)
    )
    matched = match_classes(adapter.class_names, test.class_names)
    labels, before, after = [], [], []
    for coordinates, own in test.batches:
        labels.append(matched[torch.tensor(own)])
        before.append(adapter.base_classifier.logits(coordinates.output).cpu())
        after.append(adapter.logits(coordinates).cpu())
    if not labels:
        raise BadInputError(f"the data {data!r} has no test images to evaluate on")
    comparison = compare(torch.cat(before), torch.cat(after), torch.cat(labels), adapter.class_names)
    if test.skipped:
        progress.warn(left_out_sentence(test.skipped))
    return EvaluateOutcome(adapter, data, test.split_rule, comparison, tuple(test.skipped))


def _of_store(adapter: Adapter, path: str) -> _Test:
    store = Store.open(path)
    refuse_other_model(adapter.model_info, store.model)
    split = store.split("test")
    labels = split.labels.tolist()
    starts = range(0, len(split), _BLOCK)
    batches = zip(split.batches(_BLOCK), (labels[start : start + _BLOCK] for start in starts), strict=True)
    # which test images were skipped the store does not tell apart from the others
    return _Test(batches, store.class_names, str(store.data.get("split_rule")), [])


def _of_data(
    adapter: Adapter,
    name: str,
    machine: Machine,
    classes: str | os.PathLike[str] | None,
    stream: bool,
    skip_bad: bool,
    progress: Progress,
) -> _Test:
    data = load_data(name, classes=classes, stream=stream)
    if data.strays and not skip_bad:
        raise BadInputError(f"{data.strays[0]!r} lies among the images and is none; remove it or add --skip-bad")
    skipped = list(data.strays)
    split, model = data.test, adapter.model

    def batches() -> Iterator[tuple[Coordinates, list[int]]]:
        done = 0
        with progress.task("images") as tick:
            for batch in pixel_batches(
                split,
                range(len(split)),
                model.preprocess,
                batch_size=machine.batch_size,
                workers=machine.workers,
                skip_bad=skip_bad,
            ):
                skipped.extend(batch.skipped)
                done += len(batch.positions) + len(batch.skipped)
                tick(done, len(split))
                if batch.pixels is not None:
                    coordinates = trace_coordinates(model.tower, model.pixels(batch.pixels))
                    yield coordinates, [split.labels[position] for position in batch.positions]

    return _Test(batches(), data.class_names, data.split_rule, skipped)
