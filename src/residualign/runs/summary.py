"""What a run keeps for the report: `summary.json` and thumbnails of test images."""

from __future__ import annotations

import hashlib
import io
import platform
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from PIL import Image
from torch import Tensor

from residualign._files import json_bytes
from residualign.data import ImageData
from residualign.runs.folder import RunFolder
from residualign.text.explain import explain_units

if TYPE_CHECKING:
    from residualign.runs.results import AdaptOutcome

__all__ = [
    "MAX_BYTES",
    "SIDE",
    "SUMMARY_FORMAT",
    "SUMMARY_NAME",
    "THUMBNAILS_NAME",
    "Thumbnails",
    "choose_examples",
    "make_thumbnails",
    "write_summary",
]

SUMMARY_NAME, THUMBNAILS_NAME = "summary.json", "thumbnails.zip"

SUMMARY_FORMAT, _VERSION = "residualign summary", 1

_PACKAGES = ("residualign", "torch", "transformers", "numpy", "scikit-learn")

# pictures for the page: images per end of the first components of every head, and in total
_COMPONENTS, _EACH_END, _MOST_FURTHEST = 3, 4, 600


def write_summary(outcome: AdaptOutcome, folder: RunFolder, data: ImageData | None) -> None:
    """Write `summary.json`, and `thumbnails.zip` if there are images (a store has none).

    The pictures are the examples, then the images furthest along the heads' components.
    """
    examples = _examples(outcome)
    thumbnails = None
    if data is not None and examples:
        thumbnails = _thumbnails(data, [*(example["key"] for example in examples), *_furthest_keys(outcome)])
        folder.write(THUMBNAILS_NAME, thumbnails.content)
    for example in examples:
        example["thumbnail"] = None if thumbnails is None else thumbnails.names.get(example["key"])
    store = outcome.store
    content = {
        "format": SUMMARY_FORMAT,
        "version": _VERSION,
        **outcome.to_json(),
        "made_with": {
            "command": list(outcome.command),
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
    folder.write(SUMMARY_NAME, json_bytes(content))


def _examples(outcome: AdaptOutcome) -> list[dict[str, Any]]:
    """Test images to show, with the predictions before and after."""
    test = outcome.store.split("test")
    if not len(test):
        return []
    coordinates, labels = test.coordinates(), test.labels
    before = outcome.adapter.base_classifier.logits(coordinates.output).argmax(dim=-1)
    probability, after = outcome.adapter.predict_proba(coordinates).max(dim=-1)
    names, keys = outcome.adapter.class_names, test.keys
    return [
        {
            "key": keys[i],
            "label": names[int(labels[i])],
            "before": names[int(before[i])],
            "after": names[int(after[i])],
            "probability": round(float(probability[i]), 6),
        }
        for i in choose_examples(labels, before, after)
    ]


def _furthest_keys(outcome: AdaptOutcome) -> list[str]:
    """Keys of the test images at both ends of the heads' first components, the furthest of every head first."""
    found = explain_units(
        outcome.store.split("test"), outcome.spectra.spectra, None, components=_COMPONENTS, n_images=_EACH_END
    )
    lines = sorted(found.tables["images"], key=lambda row: (row["rank"], row["component"]))
    return list(dict.fromkeys(row["key"] for row in lines))[:_MOST_FURTHEST]


def _thumbnails(data: ImageData, keys: list[str]) -> Thumbnails:
    rows = {key: i for i, key in enumerate(data.test.keys)}
    wanted = list(dict.fromkeys(keys))
    # in the order of the split, because streams can only be read forward
    images = ((key, data.test.image(rows[key])) for key in sorted(wanted, key=rows.__getitem__))
    return make_thumbnails(images, wanted=wanted)


MAX_BYTES = 2_000_000
SIDE, _QUALITY = 96, 80
"""Longest side in pixels, smaller images keep their size; JPEG quality."""

# what a zip file adds per entry (local header, central directory and the name in both), and its end record
_OVERHEAD_EACH, _OVERHEAD = 46 + 30 + 2 * len("0123456789abcdef.jpg"), 22


@dataclass(frozen=True)
class Thumbnails:
    """content: the bytes of the zip file. names: the file of each image by its key, as far as there was room."""

    content: bytes
    names: dict[str, str]


def make_thumbnails(
    images: Iterable[tuple[str, Image.Image]], max_bytes: int = MAX_BYTES, wanted: Sequence[str] = ()
) -> Thumbnails:
    """Thumbnails of (key, RGB image) until the file is full: those in `wanted` first, then the others in order.

    Files are named by their content, so equal pictures are stored once. The same images give the same bytes. All
    thumbnails are held in memory, a few kilobytes each.
    """
    rank = {key: i for i, key in enumerate(wanted)}
    small = sorted(((key, _jpeg(image)) for key, image in images), key=lambda pair: rank.get(pair[0], len(rank)))
    pictures: dict[str, bytes] = {}
    names: dict[str, str] = {}
    size = _OVERHEAD
    for key, picture in small:
        name = f"{hashlib.sha256(picture).hexdigest()[:16]}.jpg"
        if name not in pictures:
            if size + len(picture) + _OVERHEAD_EACH > max_bytes:
                continue
            size += len(picture) + _OVERHEAD_EACH
            pictures[name] = picture
        names[key] = name
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, picture in sorted(pictures.items()):
            # by default the entry has the current time
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), picture)
    return Thumbnails(buffer.getvalue(), names)


def _jpeg(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def choose_examples(
    labels: Int[Tensor, " image"],
    before: Int[Tensor, " image"],
    after: Int[Tensor, " image"],
    *,
    each: int = 8,
    most: int = 400,
) -> list[int]:
    """Positions of at most `each` images per class and `most` in total, class by class.

    In every class the four kinds (corrected, newly wrong, still wrong, still right) alternate, in split order.
    """
    classes = labels.unique().tolist()
    per_class = max(1, min(each, most // max(len(classes), 1)))
    was_right, is_right = (predicted.to(labels.device) == labels for predicted in (before, after))
    kinds = (~was_right & is_right, was_right & ~is_right, ~was_right & ~is_right, was_right & is_right)
    chosen = []
    for label in classes:
        of_kind = [((labels == label) & kind).nonzero().flatten().tolist() for kind in kinds]
        chosen += _in_turn(of_kind)[:per_class]
    return chosen[:most]


def _in_turn(lists: list[list[int]]) -> list[int]:
    longest = max(map(len, lists))
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]
