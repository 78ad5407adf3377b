"""What a run leaves for later: `summary.json`, from which a report is made, and thumbnails of test images."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from residualign.data import ImageData
from residualign.runs.folder import RunFolder
from residualign.text.explain import explain_units
from residualign.workflow.examples import choose_examples
from residualign.workflow.thumbnails import Thumbnails, make_thumbnails

if TYPE_CHECKING:
    from residualign.commands.adapt import AdaptOutcome

__all__ = ["SUMMARY_FORMAT", "SUMMARY_NAME", "THUMBNAILS_NAME", "outcome_json", "write_summary"]

SUMMARY_NAME, THUMBNAILS_NAME = "summary.json", "thumbnails.zip"

SUMMARY_FORMAT, _VERSION = "residualign summary", 1
_PACKAGES = ("residualign", "torch", "transformers", "numpy", "scikit-learn")

# pictures for a page: the first components of every head, so many images at each end, so many in all
_COMPONENTS, _EACH_END, _MOST_FURTHEST = 3, 4, 600

BEFORE = {"text": "zero-shot: class vectors from text", "means": "class means of the training images"}
"""What `accuracy.zero_shot` is, by classifier."""


def outcome_json(outcome: AdaptOutcome) -> dict[str, Any]:
    """What `adapt --json` prints; `methods` is there where several were fitted."""
    store, chosen = outcome.store, outcome.chosen
    sizes = {f"n_{name}": chosen.settings.get(f"n_{name}", len(store.split(name))) for name in store.splits}
    content = {
        "model": store.model["name"],
        "data": store.data["name"],
        "classes": len(outcome.adapter.class_names),
        **sizes,
        "n_skipped": len(outcome.skipped),
        "skipped": list(outcome.skipped),
        "split_rule": store.data.get("split_rule"),
        "reference": outcome.spectra.spectra.source,
        "reference_kind": outcome.spectra.kind,
        "n_reference": outcome.spectra.spectra.n_samples,
        "residual_error": store.residual_error,
        "seconds": outcome.seconds,
        "classifier": chosen.classifier,
        "zero_shot_is": BEFORE[chosen.classifier],
        **chosen.headline(),
        "seed": outcome.request.seed,
        "shots": outcome.request.shots,
        "out": str(outcome.request.out),
        "store": store.path,
        "resumed": outcome.resumed,
    }
    if len(outcome.results) > 1:
        content["methods"] = [result.headline() for result in outcome.results]
    return content


def write_summary(outcome: AdaptOutcome, folder: RunFolder, data: ImageData | None) -> None:
    """Write `summary.json`, and `thumbnails.zip` where the images are at hand (a store alone has none).

    There are pictures of the examples first, then of the images that lie furthest along the heads' components.
    """
    positions, examples = _examples(outcome)
    thumbnails = None
    if data is not None and positions:
        thumbnails = _thumbnails(data, [*(example["key"] for example in examples), *_furthest_keys(outcome)])
        folder.write(THUMBNAILS_NAME, thumbnails.content)
    for example in examples:
        example["thumbnail"] = None if thumbnails is None else thumbnails.names.get(example["key"])
    store = outcome.store
    content = {
        "format": SUMMARY_FORMAT,
        "version": _VERSION,
        **outcome_json(outcome),
        "made_with": {
            "command": list(outcome.request.command),
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "fingerprints": {
            "model": store.model["fingerprint"],
            "store": store.fingerprint,
            "spectra": outcome.spectra.spectra.fingerprint,
        },
        "model_info": store.model,
        "data_info": store.data,
        "templates": list(store.templates),
        "class_names": list(outcome.adapter.class_names),
        "spectra": outcome.spectra.describe(),
        "chosen": outcome.chosen.method,
        "results": [result.to_json() for result in outcome.results],
        "examples": examples,
        "pictures": {} if thumbnails is None else thumbnails.names,
    }
    folder.write(SUMMARY_NAME, (json.dumps(content, indent=1) + "\n").encode())


def _examples(outcome: AdaptOutcome) -> tuple[list[int], list[dict[str, Any]]]:
    """Test images worth showing, with what the classifier said before and after."""
    test = outcome.store.split("test")
    if not len(test):
        return [], []
    coordinates, labels = test.coordinates(), test.labels
    before = outcome.adapter.base_classifier.logits(coordinates.output).argmax(dim=-1)
    probability, after = outcome.adapter.predict_proba(coordinates).max(dim=-1)
    positions = choose_examples(labels, before, after)
    names, keys = outcome.adapter.class_names, test.keys
    return positions, [
        {
            "key": keys[i],
            "label": names[int(labels[i])],
            "before": names[int(before[i])],
            "after": names[int(after[i])],
            "probability": round(float(probability[i]), 6),
        }
        for i in positions
    ]


def _furthest_keys(outcome: AdaptOutcome) -> list[str]:
    """Test images at both ends of the heads' first components, the furthest of every head first."""
    found = explain_units(
        outcome.store.split("test"), outcome.spectra.spectra, None, n_components=_COMPONENTS, n_images=_EACH_END
    )
    lines = sorted(found.image_rows(), key=lambda row: (row["rank"], row["component"]))
    return list(dict.fromkeys(row["key"] for row in lines))[:_MOST_FURTHEST]


def _thumbnails(data: ImageData, keys: list[str]) -> Thumbnails:
    rows = {key: i for i, key in enumerate(data.test.keys)}
    wanted = list(dict.fromkeys(keys))
    # in the order of the split: a stream goes forward only
    images = ((key, data.test.image(rows[key])) for key in sorted(wanted, key=rows.__getitem__))
    return make_thumbnails(images, wanted=wanted)
