"""Coordinates on disk: written shard by shard, resumable, checked when they are read."""

from residualign._files import DirectoryLock
from residualign.store.plan import CoordinateShape, ShardRange, SplitPlan, StorePlan
from residualign.store.store import Store, StoreSplit
from residualign.store.writer import StoreWriter, remove_store

__all__ = [
    "CoordinateShape",
    "DirectoryLock",
    "ShardRange",
    "SplitPlan",
    "Store",
    "StorePlan",
    "StoreSplit",
    "StoreWriter",
    "remove_store",
]
