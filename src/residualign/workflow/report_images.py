"""The test images whose class changed, and the units that did it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from residualign.adapter.adapter import Adapter
from residualign.report.contents import ChangedImage
from residualign.scaling.change import attribute_change
from residualign.store import StoreSplit

__all__ = ["changed_images"]

MENDED, BROKEN, ELSEWHERE = 12, 8, 4
"""How many of each kind are shown: mended, broken, from one wrong class to another."""

_UNITS = 5


def changed_images(
    adapter: Adapter, split: StoreSplit, class_names: Sequence[str], picture_of: Mapping[str, str]
) -> tuple[int, tuple[int, int, int], tuple[ChangedImage, ...]]:
    """How many images changed class; how many were mended, broken and neither; and some of them.

    Of each kind those with a picture come first, then those whose margin moved most. class_names: of the split's
    labels.
    """
    if not len(split):
        return 0, (0, 0, 0), ()
    coordinates, keys = split.coordinates(), split.keys
    labels = [class_names[i] for i in split.labels.tolist()]
    names = adapter.class_names
    before = [names[i] for i in adapter.base_classifier.logits(coordinates.output).argmax(dim=-1).tolist()]
    probability, after_index = adapter.predict_proba(coordinates).max(dim=-1)
    after = [names[i] for i in after_index.tolist()]
    changed = [i for i in range(len(keys)) if before[i] != after[i]]
    kinds = (
        [i for i in changed if after[i] == labels[i]],
        [i for i in changed if before[i] == labels[i]],
        [i for i in changed if labels[i] not in (before[i], after[i])],
    )
    counts = (len(kinds[0]), len(kinds[1]), len(kinds[2]))
    if not changed:
        return 0, counts, ()
    attribution = attribute_change(adapter, coordinates[torch.tensor(changed)])
    row = {i: position for position, i in enumerate(changed)}
    moved = attribution.change.tolist()
    chosen = [
        i
        for kind, most in zip(kinds, (MENDED, BROKEN, ELSEWHERE), strict=True)
        for i in sorted(kind, key=lambda i: (keys[i] not in picture_of, -moved[row[i]]))[:most]
    ]
    images = tuple(
        ChangedImage(
            key=keys[i],
            picture=picture_of.get(keys[i]),
            label=labels[i],
            before=before[i],
            after=after[i],
            probability=float(probability[i]),
            change=moved[row[i]],
            parts=attribution.top(row[i], _UNITS),
        )
        for i in chosen
    )
    return len(changed), counts, images
