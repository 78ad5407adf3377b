"""Coordinates on disk: written shard by shard, resumable, checked when they are read."""

from residualign._files import DirectoryLock
from residualign.store.plan import CoordinateShape, ShardRange, SplitPlan, StorePlan
from residualign.store.store import MAX_BYTES_IN_MEMORY, Store, StoreSplit
from residualign.store.writer import StoreWriter, remove_store

__all__ = [
    "MAX_BYTES_IN_MEMORY",
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
