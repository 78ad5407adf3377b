"""`residualign classify`: labels for images, and the heads that decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import AdapterDir, BatchSize, Encoder, ImagePaths, ModelPath, Quick, SkipBad

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.adapter.verdict import Verdict

__all__ = ["ClassifyOutcome", "ClassifyRequest", "run"]


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest(Encoder):
    """Label images with an adapter.

    Prints the label, its probability, and the heads that decided, each with its share of the margin between the first
    two classes; a negative share favors the second class. The column `all heads` is the share of all heads together.
    With --quick, at most 20 of the images are classified.
    """

    adapter: AdapterDir
    images: ImagePaths
    model: ModelPath = None
    skip_bad: SkipBad = False
    batch_size: BatchSize = 32
    quick: Quick = False


@dataclass(frozen=True, repr=False, eq=False)
class ClassifyOutcome(Result):
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

    `BadInputError` for an image that cannot be read, naming it, unless skip_bad; and if no image can be read.
    """
    from residualign.adapter.adapter import load_adapter
    from residualign.adapter.verdict import classify_images
    from residualign.inputs.images import image_files, read_in_batches

    files = image_files(request.images, request.quick)
    adapter = load_adapter(request.adapter, model=request.model, device=request.device, dtype=request.dtype)
    skipped: list[str] = []
    verdicts: list[Verdict] = []
    for names, images in read_in_batches(files, request.batch_size, request.skip_bad, skipped, progress):
        verdicts += classify_images(adapter, names, images)
    return ClassifyOutcome(request, adapter, tuple(verdicts), tuple(skipped))
