"""A small sample of the images, for `--quick`."""

from __future__ import annotations

from dataclasses import replace

import torch

from residualign.data import ImageData
from residualign.data.sample import sample_rows
from residualign.store import Store

__all__ = ["sample_of_data", "sample_of_store"]


def sample_of_data(data: ImageData) -> ImageData:
    """A small sample of every split, the same each time."""
    train, val, test = (split.take(sample_rows(split.labels)) for split in data.splits)
    return replace(data, train=train, val=val, test=test, split_rule=f"{data.split_rule}; a sample (--quick)")


def sample_of_store(store: Store) -> Store:
    """A small sample of every split, the same each time."""
    rows = {name: sample_rows(store.split(name).labels.tolist()) for name in store.splits}
    return store.subset({name: torch.tensor(own, dtype=torch.int64) for name, own in rows.items()})
