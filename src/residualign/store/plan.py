"""What a store will hold, decided before the first image is read, and the two JSON files that say so.

`unfinished.json` is written first and holds the plan. `manifest.json` is written last and names every file: with it the
store is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

from residualign._files import check_file_name
from residualign.decomposition.coordinates import Layout
from residualign.errors import BadInputError
from residualign.models.recorded import PIXELS, preprocessing_differences
from residualign.store.folder import Folder

__all__ = [
    "MANIFEST_NAME",
    "UNFINISHED_NAME",
    "CoordinateShape",
    "FileEntry",
    "Manifest",
    "ShardEntry",
    "ShardRange",
    "SplitPlan",
    "StoreDtype",
    "StorePlan",
    "check_files",
    "read_plan",
    "write_plan",
]

MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = "unfinished.json"

_FORMAT, _VERSION = "residualign store", 1

StoreDtype = Literal["float16", "float32", "float64"]


@dataclass(frozen=True)
class CoordinateShape:
    """Sizes of the tower's coordinates.

    layout: see `Layout`. pool_mlp: whether an attention pooling has an MLP of its own.
    """

    n_layers: int
    n_heads: int
    head_dim: int
    width: int
    dim: int
    layout: Layout = "token"
    pool_mlp: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON types; what a class token has anyway is not written, so that its stores keep their fingerprint."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


@dataclass(frozen=True)
class SplitPlan:
    """The samples of one split, in order: unique keys that no machine changes, and labels."""

    keys: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class ShardRange:
    """The samples [start, stop) of one split: the content of one shard, written at once."""

    split: str
    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"{self.split}-{self.index:05d}.safetensors"

    def __len__(self) -> int:
        return self.stop - self.start

    def batches(self, size: int) -> Iterator[range]:
        """The samples in batches of `size`, the last one smaller; a batch never leaves the shard."""
        for start in range(self.start, self.stop, size):
            yield range(start, min(start + size, self.stop))


@dataclass(frozen=True)
class StorePlan:
    """Everything that decides a store's bytes, beside the images themselves. JSON-able.

    model: at least name, fingerprint, preprocessing (JSON) and dtype. data: whatever describes the images, with a
    name. splits: name -> samples; an empty split is allowed. dtype: of heads and MLPs on disk; `float16` halves them
    (11 bits: 5e-4 relative), while the two statistics and the output stay float32. shard_size: images per shard;
    batch_size: images the model sees at once, recorded because it changes the last bits.

    Two runs may share a store where all of this agrees, apart from residual_error and the two names (the same model
    under a different path).
    """

    model: dict[str, Any]
    data: dict[str, Any]
    splits: dict[str, SplitPlan]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    shape: CoordinateShape
    logit_scale: float | None = None
    dtype: StoreDtype = "float32"
    shard_size: int = 1024
    batch_size: int = 32
    residual_error: float = 0.0
    logit_bias: float | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1 or self.batch_size < 1:
            raise BadInputError(
                f"shard size and batch size are at least 1, got {self.shard_size} and {self.batch_size}"
            )
        for name, split in self.splits.items():
            # shards are named after their split
            check_file_name(name, "split")
            if len(split.keys) != len(split.labels):
                raise BadInputError(f"split {name!r} has {len(split.keys)} keys but {len(split.labels)} labels")
            if len(set(split.keys)) != len(split.keys):
                twice = next(key for i, key in enumerate(split.keys) if key in split.keys[:i])
                raise BadInputError(f"split {name!r} has the key {twice!r} twice; keys name one sample each")

    def __len__(self) -> int:
        """Samples in all splits."""
        return sum(len(split) for split in self.splits.values())

    def shards(self) -> tuple[ShardRange, ...]:
        """Every shard of the store, split by split; an empty split has none."""
        return tuple(
            ShardRange(name, index, start, min(start + self.shard_size, len(split)))
            for name, split in self.splits.items()
            for index, start in enumerate(range(0, len(split), self.shard_size))
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        content = {**asdict(self), "shape": self.shape.to_json()}
        if self.logit_bias is None:
            # stores of models without one keep their fingerprint
            del content["logit_bias"]
        return json.loads(json.dumps(content, allow_nan=False))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StorePlan:
        """From what `to_json` gave; `KeyError` or `TypeError` where that is something else."""
        return cls(
            **{
                **content,
                "splits": {
                    name: SplitPlan(tuple(split["keys"]), tuple(split["labels"]))
                    for name, split in content["splits"].items()
                },
                "class_names": tuple(content["class_names"]),
                "templates": tuple(content["templates"]),
                "shape": CoordinateShape(**content["shape"]),
            }
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that has to agree, as canonical JSON."""
        return hashlib.sha256(_canonical(self._compared()).encode()).hexdigest()

    def difference(self, other: StorePlan) -> str | None:
        """The first few fields in which `other` differs, with both values; None where the two may share a store."""
        own, theirs = (
            _flat(self._compared(), leave_out=_PREPROCESSING),
            _flat(other._compared(), leave_out=_PREPROCESSING),
        )
        different = [
            (name, own.get(name), theirs.get(name)) for name in {**own, **theirs} if own.get(name) != theirs.get(name)
        ]
        different += [
            (f"{_PREPROCESSING}.{name}", there, here)
            for name, there, here in preprocessing_differences(
                self.model.get("preprocessing"), other.model.get("preprocessing")
            )
        ]
        if not different:
            return None
        told = [f"{name} ({_short(there)} there, {_short(here)} here)" for name, there, here in different[:3]]
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        return ", ".join(told) + more

    def _compared(self) -> dict[str, Any]:
        content = self.to_json()
        del content["residual_error"]
        content["model"].pop("name", None)
        # they differ in the last digits between machines, and are compared by `difference`
        (content["model"].get("preprocessing") or {}).pop(PIXELS, None)
        content["data"].pop("name", None)
        return content


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


_PREPROCESSING = "model.preprocessing"


def _flat(content: Mapping[str, Any], prefix: str = "", leave_out: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.", leave_out) if prefix + name != leave_out else {}
        else:
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list):
        digest = hashlib.sha256(_canonical(value).encode()).hexdigest()[:8]
        return f"{len(value)} entries, {digest}"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True)
class FileEntry:
    """A file beside the shards."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardEntry:
    """What a manifest says of one shard. `skipped` are keys of the range that could not be read as images."""

    name: str
    split: str
    index: int
    start: int
    stop: int
    rows: int
    bytes: int
    sha256: str
    skipped: tuple[str, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardEntry:
        """From what the manifest has."""
        return cls(**{**content, "skipped": tuple(content["skipped"])})


@dataclass(frozen=True)
class Manifest:
    """A finished store's table of contents. No clock and no host name: equal runs give equal bytes."""

    plan: StorePlan
    files: tuple[FileEntry, ...]
    shards: tuple[ShardEntry, ...]

    def write(self, folder: Folder) -> None:
        """Publish it; from then on the store is complete. Raises `OSError`."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "fingerprint": self.plan.fingerprint,
            "plan": self.plan.to_json(),
            "files": [vars(entry) for entry in self.files],
            "shards": [vars(entry) for entry in self.shards],
        }
        folder.write(MANIFEST_NAME, _encode(content))

    @classmethod
    def read(cls, folder: Folder) -> Manifest:
        """Raises `BadInputError` where the file is damaged, foreign, or of a version this code cannot read."""
        content = _decode(folder, MANIFEST_NAME)
        try:
            manifest = cls(
                StorePlan.from_json(content["plan"]),
                tuple(FileEntry(**entry) for entry in content["files"]),
                tuple(ShardEntry.from_json(entry) for entry in content["shards"]),
            )
            expected = content["fingerprint"]
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInputError(f"{folder.name}/{MANIFEST_NAME} is damaged: {error}") from None
        listed = tuple(ShardRange(entry.split, entry.index, entry.start, entry.stop) for entry in manifest.shards)
        misnamed = any(entry.name != shard.name for entry, shard in zip(manifest.shards, listed, strict=True))
        if manifest.plan.fingerprint != expected or listed != manifest.plan.shards() or misnamed:
            raise BadInputError(f"{folder.name}/{MANIFEST_NAME} was changed: it does not fit its own fingerprint")
        return manifest


def write_plan(folder: Folder, plan: StorePlan) -> None:
    """Write the plan of a store that is not finished yet. Raises `OSError`."""
    content = {"format": _FORMAT, "version": _VERSION, "plan": plan.to_json()}
    folder.write(UNFINISHED_NAME, _encode(content))


def read_plan(folder: Folder) -> StorePlan:
    """The plan of an unfinished store; `BadInputError` where it cannot be read."""
    content = _decode(folder, UNFINISHED_NAME)
    try:
        return StorePlan.from_json(content["plan"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{folder.name}/{UNFINISHED_NAME} is damaged: {error}") from None


def check_files(folder: Folder, entries: Sequence[FileEntry | ShardEntry]) -> None:
    """That every file is there in its full length, without reading any. Raises `BadInputError` naming the first."""
    for entry in entries:
        size = folder.size(entry.name)
        if size is None:
            raise BadInputError(f"{folder.name}/{entry.name} is missing from the store")
        if size != entry.bytes:
            raise BadInputError(f"{folder.name}/{entry.name} is damaged: it has {size} bytes, expected {entry.bytes}")


def _encode(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _decode(folder: Folder, name: str) -> dict[str, Any]:
    try:
        content = json.loads(folder.read(name))
    except ValueError as error:
        raise BadInputError(f"{folder.name}/{name} is damaged: {error}") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise BadInputError(f"{folder.name}/{name} is not part of a {_FORMAT}")
    if content.get("version") != _VERSION:
        raise BadInputError(
            f"{folder.name}/{name} has version {content.get('version')}, this residualign reads version {_VERSION}"
        )
    return content
