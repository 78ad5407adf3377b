"""What `residualign demo` does: the whole story on the embedded model and real digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from residualign._progress import Progress
from residualign.classification.probe import LinearProbe, linear_probe
from residualign.commands.adapt import AdaptOutcome, AdaptRequest, run_adapt
from residualign.commands.classify import Verdict, classify_images
from residualign.data import load_data
from residualign.errors import BadInputError
from residualign.fitting.methods import METHODS
from residualign.runs.folder import check_run_folder, verb_of
from residualign.store import Store

__all__ = ["DATA", "MODEL", "DemoOutcome", "Example", "demo_request", "run_demo"]

MODEL, DATA = "mini", "digits"
QUICK_METHODS = ("residual-heads", "residual")
N_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """One test image: its picture, its true class, what was said before adapting, and the adapter's verdict."""

    image: Image.Image
    truth: str
    before: str
    verdict: Verdict


@dataclass(frozen=True)
class DemoOutcome:
    """Everything the story is told from."""

    adapted: AdaptOutcome
    probe: LinearProbe
    examples: tuple[Example, ...]


def demo_request(
    out: Path, *, quick: bool = False, seed: int = 0, overwrite: bool = False, command: tuple[str, ...] = ()
) -> AdaptRequest:
    """What the demo asks of `run_adapt`. A folder that the demo made is written anew unless it can be resumed."""
    request = AdaptRequest(
        source=MODEL,
        data=DATA,
        out=out,
        methods=QUICK_METHODS if quick else tuple(METHODS),
        seed=seed,
        overwrite=overwrite,
        command=command,
        verb="demo",
        ship="residual",
    )
    try:
        check_run_folder(out, request.identity(), overwrite=overwrite)
    except BadInputError:
        if not out.is_dir() or verb_of(out) != "demo":
            raise
        request = AdaptRequest(**{**vars(request), "overwrite": True})
    return request


def run_demo(request: AdaptRequest, progress: Progress) -> DemoOutcome:
    """Extract, fit every method, fit the linear probe, and classify a few test images."""
    outcome = run_adapt(request, progress)
    probe = run_probe(outcome.store)
    progress.done(probe, probe.seconds)
    return DemoOutcome(outcome, probe, _examples(outcome))


def run_probe(store: Store) -> LinearProbe:
    """The linear probe on the model's own embeddings."""
    parts = [store.split(name) for name in ("train", "val", "test")]
    train, val, test = ((part.embeddings(), part.labels) for part in parts)
    return linear_probe(train, val, test)


def _examples(outcome: AdaptOutcome) -> tuple[Example, ...]:
    """Test images of different classes that adapting mended, the surest first; then others that it gets right."""
    data, test = load_data(DATA), outcome.store.split("test")
    coordinates, labels = test.coordinates(), test.labels
    before = outcome.adapter.base_classifier.logits(coordinates.output).argmax(dim=-1)
    probability, after = outcome.adapter.predict_proba(coordinates).max(dim=-1)
    by_sureness = probability.argsort(descending=True, stable=True)
    right = by_sureness[(after == labels)[by_sureness]].tolist()
    chosen: dict[int, int] = {}
    for i in (*(i for i in right if before[i] != labels[i]), *right):
        if len(chosen) < N_EXAMPLES:
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
