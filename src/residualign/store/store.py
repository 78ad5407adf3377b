"""A finished store: the coordinates of every image of every split, read from disk as they are needed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.identity_maps import IdentityMaps
from residualign.errors import BadInputError
from residualign.store.folder import open_folder
from residualign.store.manifest import MANIFEST_NAME, UNFINISHED_NAME, Manifest, check_files, read_plan
from residualign.store.plan import ShardRange
from residualign.store.shards import ShardEntry, examine_shard, parse_tensors, tensor_shapes
from residualign.units import Units

__all__ = ["CLASSES_NAME", "MAPS_NAME", "Store", "StoreSplit"]

MAPS_NAME = "maps.safetensors"
CLASSES_NAME = "classes.safetensors"


# A batch of float16 comes back as float32: products of half types are slow and coarse on a CPU.
_TYPE_IN_MEMORY = {"float16": np.dtype(np.float32), "float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


class Store:
    """Everything one pass over a data set left behind; `Store.open` reads it, `StoreWriter` makes it.

    Opening reads the manifest and checks that every file is there in its full length. Numbers stay on disk until they
    are asked for; the first time a shard is read its checksum is compared.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Manifest) -> None:
        self.path = os.fspath(path)
        self._folder = open_folder(path)
        self._manifest = manifest
        self._verified: set[str] = set()
        self._opened: OrderedDict[str, dict[str, NDArray[Any]]] = OrderedDict()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Open a finished store at a local path or an fsspec URL.

        Raises `BadInputError` where there is none, it is unfinished (saying how far it is), or a file is missing or cut
        short, by name.
        """
        folder = open_folder(path)
        names = folder.names()
        if MANIFEST_NAME not in names:
            if UNFINISHED_NAME not in names:
                raise BadInputError(f"{folder.name} holds no store")
            plan = read_plan(folder)
            done = sum(len(shard) for shard in plan.shards() if shard.name in names)
            raise BadInputError(
                f"{folder.name} is an unfinished store with {done} of {len(plan)} images; "
                "run the command that makes it once more, and it continues from there"
            )
        manifest = Manifest.read(folder)
        check_files(folder, (*manifest.files, *manifest.shards))
        return cls(path, manifest)

    @property
    def units(self) -> Units:
        """The units of the tower."""
        shape = self._manifest.plan.shape
        return Units(shape.n_layers, shape.n_heads, shape.pool_mlp)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; labels count into them."""
        return self._manifest.plan.class_names

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompt templates behind `text_vectors`."""
        return self._manifest.plan.templates

    @property
    def logit_scale(self) -> float | None:
        """The model's own logit scale (a factor); None without a text tower."""
        return self._manifest.plan.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What the model, trained with a sigmoid loss, adds to its logits; None for the others."""
        return self._manifest.plan.logit_bias

    @property
    def model(self) -> dict[str, Any]:
        """Name, fingerprint, preprocessing and dtype of the model."""
        return self._manifest.plan.model

    @property
    def data(self) -> dict[str, Any]:
        """What the images are."""
        return self._manifest.plan.data

    @property
    def residual_error(self) -> float:
        """Largest |sum of units - model output| over largest |model output|, as the model was loaded."""
        return self._manifest.plan.residual_error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan: model, preprocessing, samples and storage."""
        return self._manifest.plan.fingerprint

    @property
    def skipped(self) -> tuple[str, ...]:
        """Keys of images that could not be read, split by split."""
        return tuple(key for shard in self._manifest.shards for key in shard.skipped)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._manifest.plan.splits)

    @cached_property
    def maps(self) -> UnitMaps:
        """The fixed maps from coordinates to contributions, in the model's own dtype. Read once."""
        shape, tensors = self._manifest.plan.shape, self._tensors(MAPS_NAME)
        if shape.layout == "contributions":
            like = tensors["identity"]
            return IdentityMaps.of(self.units, shape.dim, shape.head_dim, like.dtype, like.device)
        return UnitMaps(**tensors)

    @cached_property
    def text_vectors(self) -> Float[Tensor, "class dim"] | None:
        """Unit text vectors of the classes; None for a model without a text tower."""
        if CLASSES_NAME not in {entry.name for entry in self._manifest.files}:
            return None
        return self._tensors(CLASSES_NAME)["text_vectors"]

    def split(self, name: str) -> StoreSplit:
        """One split by its name; `BadInputError` where the store has none of that name."""
        if name not in self.splits:
            raise BadInputError(f"{self.path} has no split {name!r}; it has {', '.join(self.splits)}")
        return StoreSplit(self, name)

    def verify(self) -> None:
        """Compare every file's checksum, reading all of them. Raises `BadInputError` naming the first that differs."""
        for entry in self._manifest.files:
            self._check_file(entry.name, entry.sha256)
        for shard in self._manifest.shards:
            self._check_shard(shard)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(self.split(name))}" for name in self.splits)
        return f"Store({self.path!r}, model={self.model.get('name')!r}, {sizes})"

    def _tensors(self, name: str) -> dict[str, Tensor]:
        entry = next(entry for entry in self._manifest.files if entry.name == name)
        self._check_file(name, entry.sha256)
        return load(self._folder.read(name))

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

    def _check_file(self, name: str, sha256: str) -> None:
        if self._folder.sha256(name) != sha256:
            raise BadInputError(f"{self._folder.name}/{name} is damaged: its checksum is not the manifest's")


class StoreSplit:
    """One split of a store, or some of its images in some order; a view that holds no coordinates."""

    def __init__(self, store: Store, name: str, rows: NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.name = name
        self._shards = [shard for shard in store._manifest.shards if shard.split == name]
        self._starts = np.array([0, *accumulate(shard.rows for shard in self._shards)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _samples(self) -> tuple[tuple[str, int], ...]:
        """(key, label) of every image of the whole split that was not skipped."""
        plan = self.store._manifest.plan.splits[self.name]
        skipped = {key for shard in self._shards for key in shard.skipped}
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
        """Some of the images, in the order given, as another view. Raises `IndexError` outside [0, len)."""
        positions = indices.cpu().numpy()
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"split {self.name!r} has {len(self)} images, asked for {positions.max()}")
        return StoreSplit(self.store, self.name, self._rows[positions])

    def coordinates(self) -> Coordinates:
        """All of them in memory: float32, or float64 in a float64 store."""
        return Coordinates.of_tensors(self._read(self._rows))

    def batches(self, size: int) -> Iterator[Coordinates]:
        """`size` images at a time in order, the last batch smaller; only the batch is in memory."""
        if size < 1:
            raise BadInputError(f"a batch has at least one image, got {size}")
        for start in range(0, len(self), size):
            yield Coordinates.of_tensors(self._read(self._rows[start : start + size]))

    def embeddings(self) -> Float[Tensor, "image dim"]:
        """The model's own embeddings, not normalised."""
        return self._read(self._rows, ("output",))["output"]

    def _read(self, rows: NDArray[np.int64], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        plan = self.store._manifest.plan
        large = _TYPE_IN_MEMORY[plan.dtype]
        shapes = tensor_shapes(plan.shape)
        arrays = {name: np.empty((len(rows), *shapes[name]), dtype=large) for name in names or shapes}
        where = np.searchsorted(self._starts, rows, side="right") - 1
        for i in np.unique(where):
            positions = np.flatnonzero(where == i)
            local = rows[positions] - self._starts[i]
            tensors = self.store._shard(self._shards[i])
            for name, array in arrays.items():
                array[_as_slice(positions)] = tensors[name][_as_slice(local)]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def __repr__(self) -> str:
        return f"StoreSplit({self.name!r}, {len(self)} images)"


def _as_slice(index: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """The same rows as a slice where they follow one another, which numpy copies without gathering."""
    start, length = int(index[0]), len(index)
    consecutive = int(index[-1]) - start == length - 1 and bool((np.diff(index) == 1).all())
    return slice(start, start + length) if consecutive else index
