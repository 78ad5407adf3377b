"""The JSON file that makes a store a store: it is written last, and names everything else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from residualign.errors import BadInputError
from residualign.store.folder import Folder
from residualign.store.plan import StorePlan
from residualign.store.shards import ShardEntry

__all__ = ["MANIFEST_NAME", "UNFINISHED_NAME", "FileEntry", "Manifest", "read_plan", "write_plan"]

MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = "unfinished.json"

_FORMAT, _VERSION = "residualign store", 1


@dataclass(frozen=True)
class FileEntry:
    """A file beside the shards."""

    name: str
    bytes: int
    sha256: str


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
            "shards": [shard.to_json() for shard in self.shards],
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
        if manifest.plan.fingerprint != expected or len(manifest.shards) != len(manifest.plan.shards()):
            raise BadInputError(f"{folder.name}/{MANIFEST_NAME} was changed: it does not fit its own fingerprint")
        return manifest


def write_plan(folder: Folder, plan: StorePlan) -> None:
    """Note what an unfinished store is going to be. Raises `OSError`."""
    content = {"format": _FORMAT, "version": _VERSION, "plan": plan.to_json()}
    folder.write(UNFINISHED_NAME, _encode(content))


def read_plan(folder: Folder) -> StorePlan:
    """What an unfinished store is going to be; `BadInputError` where that cannot be read."""
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
