"""Reading the files of a store: every one is compared with its checksum before its first number is used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from residualign.errors import BadInputError
from residualign.store.folder import Folder, sha256
from residualign.store.plan import FileEntry, Manifest, ShardEntry, ShardRange
from residualign.store.shards import examine_shard, parse_tensors, tensor_shapes

__all__ = ["StoreReader", "as_slice"]

# A batch of float16 comes back as float32: products of half types are slow and coarse on a CPU.
_TYPE_IN_MEMORY: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float32),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


class StoreReader:
    """The files of one store; all views of the store share it."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._verified: set[str] = set()
        self._opened: OrderedDict[str, dict[str, NDArray[Any]]] = OrderedDict()

    def file(self, name: str) -> dict[str, Tensor]:
        """All tensors of a file that is not a shard."""
        self._check_file(next(entry for entry in self._manifest.files if entry.name == name))
        return load(self._folder.read(name))

    def n_bytes(self, n_images: int) -> int:
        """The size of this many images in memory."""
        plan = self._manifest.plan
        return n_images * sum(map(prod, tensor_shapes(plan.shape).values())) * _TYPE_IN_MEMORY[plan.dtype].itemsize

    def rows(self, split: str, rows: NDArray[np.int64], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Some rows of a whole split, in the order wanted. names: of tensors; None reads all."""
        plan = self._manifest.plan
        shapes = tensor_shapes(plan.shape)
        arrays = {
            name: np.empty((len(rows), *shapes[name]), dtype=_TYPE_IN_MEMORY[plan.dtype]) for name in names or shapes
        }
        shards = [shard for shard in self._manifest.shards if shard.split == split]
        starts = np.array([0, *accumulate(shard.rows for shard in shards)])
        where = np.searchsorted(starts, rows, side="right") - 1
        for i in np.unique(where):
            positions = np.flatnonzero(where == i)
            local = rows[positions] - starts[i]
            tensors = self._shard(shards[i])
            for name, array in arrays.items():
                array[as_slice(positions)] = tensors[name][as_slice(local)]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def verify(self) -> None:
        """Compare the checksum of every file, reading all of them. Raises `BadInputError` naming one that differs."""
        # also those that were compared when they were first read: they may have changed since
        self._verified.clear()
        for entry in self._manifest.files:
            self._check_file(entry)
        for shard in self._manifest.shards:
            self._check_shard(shard)

    def _shard(self, entry: ShardEntry) -> dict[str, NDArray[Any]]:
        if entry.name in self._opened:
            self._opened.move_to_end(entry.name)
            return self._opened[entry.name]
        self._check_shard(entry)
        tensors = parse_tensors(self._folder.view(entry.name), f"{self._folder.name}/{entry.name}")
        self._opened[entry.name] = tensors
        # every open shard holds a file descriptor, or its whole content where the folder is remote
        while len(self._opened) > self._folder.shards_open:
            self._opened.popitem(last=False)
        return tensors

    def _check_shard(self, entry: ShardEntry) -> None:
        if entry.name in self._verified:
            return
        shard = ShardRange(entry.split, entry.index, entry.start, entry.stop)
        if examine_shard(self._folder, self._manifest.plan, shard) != entry:
            raise BadInputError(f"{self._folder.name}/{entry.name} is not the file the manifest names: it was changed")
        self._verified.add(entry.name)

    def _check_file(self, entry: FileEntry) -> None:
        if sha256(self._folder, entry.name) != entry.sha256:
            raise BadInputError(f"{self._folder.name}/{entry.name} is damaged: its checksum is not the manifest's")


def as_slice(index: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """The same rows as a slice where they follow one another, which numpy copies without gathering."""
    start, length = int(index[0]), len(index)
    consecutive = int(index[-1]) - start == length - 1 and bool((np.diff(index) == 1).all())
    return slice(start, start + length) if consecutive else index
