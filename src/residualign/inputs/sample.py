"""A small sample of the images, for `--quick`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from residualign.data import ImageData
from residualign.store import Store

__all__ = ["QUICK_EACH", "QUICK_MOST", "sample_of_data", "sample_of_store", "sample_rows"]

QUICK_EACH, QUICK_MOST = 20, 1000
"""At most this many images per class and split with `--quick`, and about this many per split."""


def sample_of_data(data: ImageData) -> ImageData:
    """A small sample of every split, the same each time."""
    train, val, test = (split.take(sample_rows(split.labels)) for split in data.splits)
    return replace(data, train=train, val=val, test=test, split_rule=f"{data.split_rule}; a sample (--quick)")


def sample_of_store(store: Store) -> Store:
    """A small sample of every split, the same each time."""
    rows = {name: sample_rows(store.split(name).labels.tolist()) for name in store.splits}
    return store.subset({name: torch.tensor(own, dtype=torch.int64) for name, own in rows.items()})


def sample_rows(labels: Sequence[int]) -> list[int]:
    """Equally spaced images of each class, in their order: neighbors in a folder are often similar."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    each = max(1, min(QUICK_EACH, QUICK_MOST // max(1, len(rows))))
    chosen = [own[i * len(own) // each] for own in rows.values() for i in range(min(each, len(own))) if len(own) > each]
    return sorted([*chosen, *(row for own in rows.values() if len(own) <= each for row in own)])
