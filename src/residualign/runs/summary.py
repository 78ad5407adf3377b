"""What a run keeps for the report: `summary.json` and thumbnails of test images."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from PIL import Image
from torch import Tensor

from residualign.data import ImageData
from residualign.runs.folder import RunFolder
from residualign.text.explain import explain_units

if TYPE_CHECKING:
    from residualign.runs.outcome import AdaptOutcome

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

# pictures for a page: of the first components of every head, this many images per end and in all
_COMPONENTS, _EACH_END, _MOST_FURTHEST = 3, 4, 600


def write_summary(outcome: AdaptOutcome, folder: RunFolder, data: ImageData | None) -> None:
    """Write `summary.json`, and `thumbnails.zip` if there are images (a store has none).

    Pictures are of the examples first, then of the images furthest along the heads' components.
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
    folder.write(SUMMARY_NAME, (json.dumps(content, indent=1) + "\n").encode())


def _examples(outcome: AdaptOutcome) -> tuple[list[int], list[dict[str, Any]]]:
    """Test images to show, with the predictions before and after."""
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
        outcome.store.split("test"), outcome.spectra.spectra, None, components=_COMPONENTS, n_images=_EACH_END
    )
    lines = sorted(found.tables["images"], key=lambda row: (row["rank"], row["component"]))
    return list(dict.fromkeys(row["key"] for row in lines))[:_MOST_FURTHEST]


def _thumbnails(data: ImageData, keys: list[str]) -> Thumbnails:
    rows = {key: i for i, key in enumerate(data.test.keys)}
    wanted = list(dict.fromkeys(keys))
    # in the order of the split, because streams are read forward
    images = ((key, data.test.image(rows[key])) for key in sorted(wanted, key=rows.__getitem__))
    return make_thumbnails(images, wanted=wanted)


MAX_BYTES = 2_000_000

SIDE = 96

"""Longest side in pixels; smaller images keep their size."""

_QUALITY = 80

# what a zip adds to a file: local header, entry of the central directory, and the name in both; and the end record
_OVERHEAD_EACH, _OVERHEAD = 46 + 30 + 2 * len("0123456789abcdef.jpg"), 22


@dataclass(frozen=True)
class Thumbnails:
    """content: the bytes of the zip file. names: from an image's key to the file in it.

    Fewer than asked for if the file would get too large.
    """

    content: bytes
    names: dict[str, str]


def make_thumbnails(
    images: Iterable[tuple[str, Image.Image]], max_bytes: int = MAX_BYTES, wanted: Sequence[str] = ()
) -> Thumbnails:
    """Thumbnails of (key, RGB image) until the file is full: those in `wanted` first, then in order.

    Files are named by their content, so equal pictures are stored once, and the same images give the same bytes. All
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
            # without a fixed date the entry would get the current time
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
    """Positions of at most `each` images per class and `most` in all, class by class, in a fixed order.

    For each class, the four kinds (corrected, newly wrong, still wrong, still right) alternate, in split order.
    """
    positions: dict[int, list[int]] = {}
    for label in labels.unique().tolist():
        of_class = (labels == label).nonzero().flatten().tolist()
        kinds: list[list[int]] = [[], [], [], []]
        for i in of_class:
            was, is_now = bool(before[i] == label), bool(after[i] == label)
            kinds[(0 if is_now else 2) if not was else (3 if is_now else 1)].append(i)
        positions[label] = _in_turn(kinds)[: max(1, min(each, most // max(len(labels.unique()), 1)))]
    return [i for chosen in positions.values() for i in chosen][:most]


def _in_turn(lists: list[list[int]]) -> list[int]:
    longest = max(map(len, lists))
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]
