"""A finished store: the coordinates of every image of every split, read from disk when they are needed."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from residualign._messages import plural
from residualign._result import Result, Table
from residualign.decomposition.coordinates import Coordinates, IdentityMaps, UnitMaps
from residualign.errors import BadInputError
from residualign.store.folder import open_folder
from residualign.store.plan import (
    MANIFEST_NAME,
    UNFINISHED_NAME,
    Manifest,
    check_files,
    read_plan,
)
from residualign.store.reader import StoreReader, as_slice
from residualign.units import Units

__all__ = ["CLASSES_NAME", "MAPS_NAME", "MAX_BYTES_IN_MEMORY", "Store", "StoreSplit"]

MAPS_NAME = "maps.safetensors"
CLASSES_NAME = "classes.safetensors"


MAX_BYTES_IN_MEMORY = 4 * 2**30
"""What `Store.in_memory` keeps at most, all splits together."""


@dataclass
class _Memory:
    """Whole splits that were read, by name, and the bytes that may still be kept."""

    left: int
    splits: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Store(Result):
    """What one pass over a data set leaves behind; `ra.extract` makes it, `Store.open` reads it.

    Numbers stay on disk until they are asked for; the checksum of a shard is compared when it is first read.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Manifest) -> None:
        self.path = os.fspath(path)
        self._manifest = manifest
        self._reader = StoreReader(open_folder(path), manifest)
        self._memory: _Memory | None = None
        self._rows: dict[str, NDArray[np.int64]] = {}
        # shared by all views of the store
        self._files: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Open a finished store.

        Parameters
        ----------
        path : str or path
            A local folder, or an fsspec URL (``s3://...``).

        Raises
        ------
        BadInputError
            If there is no store, if it is unfinished (saying how far it is), or if a file is missing or truncated.
        """
        folder = open_folder(path)
        names = folder.names()
        if MANIFEST_NAME not in names:
            if UNFINISHED_NAME not in names:
                raise BadInputError(f"{folder.name} does not hold a store")
            plan = read_plan(folder)
            done = sum(len(shard) for shard in plan.shards() if shard.name in names)
            raise BadInputError(
                f"{folder.name} is an unfinished store with {done} of {len(plan)} images; "
                "run the command that makes it again, and it continues from there"
            )
        manifest = Manifest.read(folder)
        check_files(folder, (*manifest.files, *manifest.shards))
        return cls(path, manifest)

    def in_memory(self, max_bytes: int = MAX_BYTES_IN_MEMORY) -> Store:
        """The same store, which reads a split from disk once and keeps it in memory.

        Parameters
        ----------
        max_bytes : int
            Limit for all splits together. A split that does not fit is read again whenever it is asked for.

        Returns
        -------
        Store
            A view of this one; nothing is read before it is needed. Coordinates are then views of the kept tensors: do
            not change them in place. The first call reads the whole split, even for a few of its images.
        """
        if self._memory is not None:
            return self
        view = copy.copy(self)
        view._memory = _Memory(max_bytes)
        return view

    def subset(self, rows: Mapping[str, Int[Tensor, " taken"]]) -> Store:
        """The same store with only some images of some splits.

        Parameters
        ----------
        rows : mapping from split name to (taken,) int tensor
            Positions in the split, in the order wanted. Splits that are not named stay whole.

        Returns
        -------
        Store
            A view; it shares what this store keeps in memory.

        Raises
        ------
        BadInputError
            If there is no such split.
        IndexError
            If a position is outside the split.
        """
        view = copy.copy(self)
        view._rows = self._rows | {name: self.split(name).take(taken)._rows for name, taken in rows.items()}
        return view

    @property
    def units(self) -> Units:
        """The units of the tower."""
        shape = self._manifest.plan.shape
        return Units(shape.n_layers, shape.n_heads, shape.pool_mlp)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; labels are indices into them."""
        return self._manifest.plan.class_names

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompt templates that `text_vectors` were made with."""
        return self._manifest.plan.templates

    @property
    def logit_scale(self) -> float | None:
        """The model's own logit scale (a factor, not its logarithm); None without a text tower."""
        return self._manifest.plan.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid loss (SigLIP) adds to its logits; None for other models."""
        return self._manifest.plan.logit_bias

    @property
    def model(self) -> dict[str, Any]:
        """Name, fingerprint, preprocessing and dtype of the model."""
        return self._manifest.plan.model

    @property
    def data(self) -> dict[str, Any]:
        """Name of the data set, how it was split, and notes."""
        return self._manifest.plan.data

    @property
    def residual_error(self) -> float:
        """Largest |sum of units - model output| over largest |model output|, as the model was loaded."""
        return self._manifest.plan.residual_error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan: model, preprocessing, samples and storage. A subset has that of the whole store."""
        return self._manifest.plan.fingerprint

    @property
    def skipped(self) -> tuple[str, ...]:
        """Keys of images that could not be read, in the order of the splits."""
        return tuple(key for shard in self._manifest.shards for key in shard.skipped)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._manifest.plan.splits)

    @property
    def maps(self) -> UnitMaps:
        """The fixed maps from coordinates to contributions, in the model's dtype. Read once."""
        if "maps" not in self._files:
            self._files["maps"] = self._read_maps()
        maps: UnitMaps = self._files["maps"]
        return maps

    @property
    def text_vectors(self) -> Float[Tensor, "class dim"] | None:
        """Unit text vectors of the classes; None for a model without a text tower. Read once."""
        if "text_vectors" not in self._files:
            there = CLASSES_NAME in {entry.name for entry in self._manifest.files}
            self._files["text_vectors"] = self._reader.file(CLASSES_NAME)["text_vectors"] if there else None
        vectors: Tensor | None = self._files["text_vectors"]
        return vectors

    def split(self, name: str) -> StoreSplit:
        """One split of the store.

        Parameters
        ----------
        name : str
            `train`, `val` or `test`: see `splits`.

        Returns
        -------
        StoreSplit
            A view; nothing is read yet.

        Raises
        ------
        BadInputError
            If the store has no split of that name.
        """
        if name not in self.splits:
            raise BadInputError(f"{self.path} has no split {name!r}; it has {', '.join(self.splits)}")
        return StoreSplit(self, name, self._rows.get(name))

    def verify(self) -> None:
        """Compare the checksum of every file, reading all of them. Raises `BadInputError` naming one that differs."""
        self._reader.verify()

    @property
    def tables(self) -> dict[str, Table]:
        """`classes`: the number of images of every class in every split."""
        counts = {
            name: torch.bincount(self.split(name).labels, minlength=len(self.class_names)).tolist()
            for name in self.splits
        }
        return {
            "classes": [
                {"class": name, **{split: of_split[i] for split, of_split in counts.items()}}
                for i, name in enumerate(self.class_names)
            ]
        }

    def to_json(self) -> dict[str, Any]:
        """Model, data and sizes as JSON types; the numbers themselves are tensors."""
        return {
            "path": self.path,
            "model": self.model,
            "data": self.data,
            "splits": {name: len(self.split(name)) for name in self.splits},
            "skipped": list(self.skipped),
            "residual_error": self.residual_error,
            "fingerprint": self.fingerprint,
        }

    def _summary(self) -> str:
        sizes = ", ".join(f"{name} {len(self.split(name))}" for name in self.splits)
        return f"{self.path!r}, model={self.model.get('name')!r}, {sizes}"

    def _read_maps(self) -> UnitMaps:
        shape, tensors = self._manifest.plan.shape, self._reader.file(MAPS_NAME)
        if shape.layout == "contributions":
            like = tensors["identity"]
            return IdentityMaps.of(self.units, shape.dim, shape.head_dim, like.dtype, like.device)
        return UnitMaps(**tensors)


class StoreSplit:
    """All or some images of a split, in some order; a view. skipped: keys of the whole split that could not be read."""

    def __init__(self, store: Store, name: str, rows: NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.name = name
        self._shards = [shard for shard in store._manifest.shards if shard.split == name]
        self.skipped = tuple(key for shard in self._shards for key in shard.skipped)
        self._rows = np.arange(self._n_whole) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def _n_whole(self) -> int:
        """Images of the whole split that were not skipped."""
        return sum(shard.rows for shard in self._shards)

    @cached_property
    def _samples(self) -> tuple[tuple[str, int], ...]:
        """(key, label) of every image of the whole split that was not skipped."""
        plan = self.store._manifest.plan.splits[self.name]
        skipped = set(self.skipped)
        return tuple(pair for pair in zip(plan.keys, plan.labels, strict=True) if pair[0] not in skipped)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the images, in the order of the rows."""
        return tuple(self._samples[row][0] for row in self._rows)

    @property
    def labels(self) -> Int[Tensor, " image"]:
        """Class indices, in the order of the rows."""
        return torch.tensor([self._samples[row][1] for row in self._rows], dtype=torch.int64)

    def take(self, indices: Int[Tensor, " taken"]) -> StoreSplit:
        """Some of the images, as a view.

        Parameters
        ----------
        indices : (taken,) int tensor
            Positions in [0, len), in the order wanted.

        Returns
        -------
        StoreSplit
            A view of these images.

        Raises
        ------
        IndexError
            If a position is outside the split.
        """
        positions = indices.cpu().numpy()
        outside = positions[(positions < 0) | (positions >= len(self))]
        if len(outside):
            raise IndexError(f"split {self.name!r} has {plural(len(self), 'image')}, asked for {outside[0]}")
        return StoreSplit(self.store, self.name, self._rows[positions])

    def coordinates(self) -> Coordinates:
        """Coordinates of all images, in memory.

        Returns
        -------
        Coordinates
            In float32, or float64 in a float64 store.

        Notes
        -----
        Takes 2 x layer x width + dim + 2 numbers of memory per image; `batches` holds one batch at a time.
        """
        return Coordinates.of_tensors(self._read(self._rows))

    def batches(self, size: int) -> Iterator[Coordinates]:
        """Coordinates of `size` images at a time (at least 1), in order; the last batch may be smaller."""
        if size < 1:
            raise BadInputError(f"a batch has at least one image, got {size}")
        for start in range(0, len(self), size):
            yield Coordinates.of_tensors(self._read(self._rows[start : start + size]))

    def embeddings(self) -> Float[Tensor, "image dim"]:
        """The model's own embeddings, (image, dim), not normalized. Nothing else is read."""
        return self._read(self._rows, ("output",))["output"]

    def _read(self, rows: NDArray[np.int64], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Some rows of the whole split, from memory where they are kept."""
        held = self._held(keep=names is None)
        if held is None:
            return self.store._reader.rows(self.name, rows, names)
        index = as_slice(rows) if len(rows) else slice(0)
        where = index if isinstance(index, slice) else torch.from_numpy(index)
        return {name: held[name][where] for name in names or held}

    def _held(self, keep: bool) -> dict[str, Tensor] | None:
        """The whole split in memory, read now where `keep` asks for it and it fits."""
        memory = self.store._memory
        if memory is None or self.name in memory.splits:
            return None if memory is None else memory.splits[self.name]
        size = self.store._reader.n_bytes(self._n_whole)
        if not keep or size > memory.left:
            return None
        memory.left -= size
        memory.splits[self.name] = self.store._reader.rows(self.name, np.arange(self._n_whole))
        return memory.splits[self.name]

    def __repr__(self) -> str:
        return f"StoreSplit({self.name!r}, {plural(len(self), 'image')})"
