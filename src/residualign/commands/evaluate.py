"""`residualign evaluate`: accuracy of an adapter on labeled images, compared with the classifier before adapting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import AdapterDir, Classes, DataName, Loading, ModelPath

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.classification.evaluation import Comparison
    from residualign.inputs.coordinates import ReadImages

__all__ = ["EvaluateOutcome", "EvaluateRequest", "run"]

_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Loading):
    """Evaluate an adapter on the test images of DATA (or of a store), before and after adapting.

    Prints accuracy with its 95 % interval, mean accuracy over classes, calibration error, and accuracy per class.
    """

    adapter: AdapterDir
    data: DataName
    model: ModelPath = None
    classes: Classes = None


@dataclass(frozen=True, repr=False, eq=False)
class EvaluateOutcome(Result):
    """split_rule: where the test images are from, in words. skipped: images that could not be read."""

    request: EvaluateRequest
    adapter: Adapter
    split_rule: str
    comparison: Comparison
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `evaluate --json` prints."""
        from residualign.runs.results import BEFORE

        kind = self.adapter.classifier.kind
        compared = self.comparison.to_json()
        before, after = compared.pop("before"), compared.pop("after")
        return {
            "adapter": str(self.request.adapter),
            "model": self.adapter.model_info.get("name"),
            "data": self.request.data,
            "method": self.adapter.method,
            "classifier": kind,
            "zero_shot_is": BEFORE[kind],
            "split": "test",
            "split_rule": self.split_rule,
            "n_images": self.comparison.after.n,
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "accuracy": {"zero_shot": before["accuracy"], "adapted": after["accuracy"]},
            **compared,
            "zero_shot": before,
            "adapted": after,
        }


@dataclass
class _Test:
    """Test images, and what is known of them; skipped is complete once all were read."""

    batches: Iterator[ReadImages]
    class_names: tuple[str, ...]
    split_rule: str
    skipped: list[str]


def run(request: EvaluateRequest, progress: Progress = SILENT) -> EvaluateOutcome:
    """Compare an adapter with its classifier before adapting, on the test split of a data set or a store.

    The data's classes (renamed by `classes`) have to be the adapter's; their order does not matter. Errors: those of
    `load_adapter`, `load_data` and `match_classes`.
    """
    import torch

    from residualign._messages import skipped_sentence
    from residualign.adapter.adapter import load_adapter
    from residualign.classification.evaluation import compare, match_classes
    from residualign.errors import BadInputError

    adapter = load_adapter(request.adapter, model=request.model, device=request.device, dtype=request.dtype)
    is_store = "://" in request.data or (Path(request.data) / "manifest.json").is_file()
    test = _of_store(adapter, request) if is_store else _of_data(adapter, request, progress)
    matched = match_classes(adapter.class_names, test.class_names)
    labels, before, after = [], [], []
    for batch in test.batches:
        labels.append(matched[torch.tensor(batch.labels)])
        before.append(adapter.base_classifier.logits(batch.coordinates.output).cpu())
        after.append(adapter.logits(batch.coordinates).cpu())
    if not labels:
        raise BadInputError(f"the data {request.data!r} has no test images to evaluate on")
    comparison = compare(torch.cat(before), torch.cat(after), torch.cat(labels), adapter.class_names)
    if test.skipped:
        progress.warn(skipped_sentence(test.skipped))
    return EvaluateOutcome(request, adapter, test.split_rule, comparison, tuple(test.skipped))


def _of_store(adapter: Adapter, request: EvaluateRequest) -> _Test:
    from residualign.adapter.files import refuse_other_model
    from residualign.data.prompts import read_prompts, rename_classes
    from residualign.inputs.coordinates import coordinates_of_store
    from residualign.inputs.sample import sample_of_store
    from residualign.store import Store

    store = Store.open(request.data)
    refuse_other_model(adapter.model_info, store.model)
    test = (sample_of_store(store) if request.quick else store).split("test")
    names, _ = read_prompts(request.classes, None)
    return _Test(
        coordinates_of_store([test], _BLOCK),
        rename_classes(store.class_names, names),
        f"{store.data.get('split_rule')}{'; a sample (--quick)' if request.quick else ''}",
        list(test.skipped),
    )


def _of_data(adapter: Adapter, request: EvaluateRequest, progress: Progress) -> _Test:
    from residualign.inputs.coordinates import coordinates_of_images, images_to_read

    data = images_to_read(request.data, request, classes=request.classes)
    skipped = list(data.strays)
    batches = coordinates_of_images(adapter.model, [data.test], request, progress, skipped)
    return _Test(batches, data.class_names, data.split_rule, skipped)
