"""`residualign demo`: the whole method on the bundled model and real digits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import Overwrite, Quick, RunOut, Seed
from residualign.commands._request import command_words
from residualign.commands.adapt import AdaptRequest, Origin, run_as, run_key

if TYPE_CHECKING:
    from PIL import Image

    from residualign.adapter.verdict import Verdict
    from residualign.runs.results import AdaptOutcome

__all__ = ["DATA", "MODEL", "DemoOutcome", "DemoRequest", "Example", "run"]

MODEL, DATA = "mini", "digits"
_QUICK_METHODS = ("residual-heads", "residual")
_N_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """Adapt the bundled model to real handwritten digits: zero-shot accuracy, every method, an adapter you can use.

    Needs no network. Takes about a minute. With --quick, only two methods are fitted.
    """

    out: RunOut = Path("residualign-demo")
    quick: Quick = False
    seed: Seed = 0
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Example:
    """One test image: its picture, its true class, the answer before adapting, and the adapter's verdict."""

    image: Image.Image
    truth: str
    before: str
    verdict: Verdict


@dataclass(frozen=True, repr=False, eq=False)
class DemoOutcome(Result):
    """Everything that the demo prints."""

    adapted: AdaptOutcome
    examples: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """What `demo --json` prints: that of `adapt`, and the examples."""
        shown = [{"truth": one.truth, "before": one.before, **one.verdict.to_json()} for one in self.examples]
        return self.adapted.to_json() | {"examples": shown}


def run(request: DemoRequest, progress: Progress = SILENT) -> DemoOutcome:
    """Extract, fit every method and the linear probe, and classify a few test images.

    A folder that the demo made is resumed if possible, and overwritten otherwise.
    """
    from residualign.errors import BadInputError
    from residualign.fitting.methods import METHODS
    from residualign.runs.folder import check_run_folder, hide_from_git, verb_of

    adapt = AdaptRequest(
        source=MODEL,
        data=DATA,
        out=request.out,
        method=_QUICK_METHODS if request.quick else tuple(METHODS),
        seed=request.seed,
        overwrite=request.overwrite,
    )
    origin = Origin("demo", command_words("demo", request), ship="residual")
    try:
        check_run_folder(adapt.out, run_key(adapt, origin), overwrite=adapt.overwrite)
    except BadInputError:
        if not adapt.out.is_dir() or verb_of(adapt.out) != "demo":
            raise
        adapt = replace(adapt, overwrite=True)
    outcome = run_as(adapt, origin, progress)
    # in a clone, the output must not show up as untracked files
    hide_from_git(adapt.out)
    return DemoOutcome(outcome, _examples(outcome))


def _examples(outcome: AdaptOutcome) -> tuple[Example, ...]:
    """Test images of different classes that adapting corrected, the surest first; then others that it gets right."""
    from residualign.adapter.verdict import classify_images
    from residualign.data import load_data

    data, test = load_data(DATA), outcome.store.split("test")
    coordinates, labels = test.coordinates(), test.labels
    before = outcome.adapter.base_classifier.logits(coordinates.output).argmax(dim=-1)
    probability, after = outcome.adapter.predict_proba(coordinates).max(dim=-1)
    by_confidence = probability.argsort(descending=True, stable=True)
    right = by_confidence[(after == labels)[by_confidence]].tolist()
    chosen: dict[int, int] = {}
    for i in (*(i for i in right if before[i] != labels[i]), *right):
        if len(chosen) < _N_EXAMPLES:
            chosen.setdefault(int(labels[i]), i)
    rows = {key: i for i, key in enumerate(data.test.keys)}
    keys = [test.keys[i] for i in chosen.values()]
    images = [data.test.image(rows[key]) for key in keys]
    names = outcome.adapter.class_names
    verdicts = classify_images(outcome.adapter, keys, images) if images else []
    return tuple(
        Example(image, names[int(labels[i])], names[int(before[i])], verdict)
        for i, image, verdict in zip(chosen.values(), images, verdicts, strict=True)
    )
