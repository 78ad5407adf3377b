"""The folder of a store: local, or anywhere fsspec reaches. Files appear in it whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from residualign._files import TEMPORARY_SUFFIX, check_file_name, publish
from residualign.errors import BadInputError

__all__ = ["Folder", "LocalFolder", "RemoteFolder", "open_folder", "sha256"]


class LocalFolder:
    """A folder of this machine: atomic renames, memory-mapped reading. Names are plain file names."""

    shards_open = 64
    """How many shards to keep open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def names(self) -> set[str]:
        """Names of all files; empty where the folder is absent."""
        return set(os.listdir(self.path)) if self.path.is_dir() else set()

    def _file(self, name: str) -> Path:
        return self.path / check_file_name(name)

    def size(self, name: str) -> int | None:
        """Size of a file in bytes, None where it is absent."""
        file = self._file(name)
        return file.stat().st_size if file.is_file() else None

    def written(self, name: str) -> int | None:
        """When a file was last written, in nanoseconds; None where it is absent or that is not known."""
        file = self.path / name
        return file.stat().st_mtime_ns if file.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is either complete or absent, whenever the process ends."""
        publish(self._file(name), content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._file(name).unlink(missing_ok=True)

    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a file; where the system can, they are read as they are used."""
        return np.memmap(self._file(name), dtype=np.uint8, mode="r")

    def read(self, name: str) -> bytes:
        """All bytes of a small file."""
        return self._file(name).read_bytes()

    def open(self, name: str) -> Any:
        """A file, open for reading from its beginning."""
        return open(self._file(name), "rb")

    def remove_leftovers(self) -> None:
        """Remove files that a killed run did not finish writing."""
        for name in self.names():
            if name.endswith(TEMPORARY_SUFFIX):
                self.remove(name)


class RemoteFolder:
    """The same behind fsspec: one PUT per file, which object stores make atomic; shards are read whole."""

    shards_open = 2

    def __init__(self, name: str, filesystem: Any, path: str) -> None:
        self.name = name
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    def _file(self, name: str) -> str:
        return f"{self._path}/{check_file_name(name)}"

    def names(self) -> set[str]:
        self._filesystem.invalidate_cache()
        if not self._filesystem.exists(self._path):
            return set()
        return {str(entry).rsplit("/", 1)[-1] for entry in self._filesystem.ls(self._path, detail=False)}

    def size(self, name: str) -> int | None:
        return int(self._filesystem.size(self._file(name))) if self._filesystem.exists(self._file(name)) else None

    def written(self, name: str) -> int | None:
        return None

    def write(self, name: str, content: bytes) -> None:
        self._filesystem.makedirs(self._path, exist_ok=True)
        self._filesystem.pipe_file(self._file(name), content)

    def remove(self, name: str) -> None:
        if self._filesystem.exists(self._file(name)):
            self._filesystem.rm_file(self._file(name))

    def view(self, name: str) -> NDArray[np.uint8]:
        return np.frombuffer(self.read(name), dtype=np.uint8)

    def read(self, name: str) -> bytes:
        return bytes(self._filesystem.cat_file(self._file(name)))

    def open(self, name: str) -> Any:
        return self._filesystem.open(self._file(name), "rb")


Folder = LocalFolder | RemoteFolder


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at a local path or an fsspec URL (`s3://bucket/store`, `memory://store`).

    Raises `BadInputError` for a protocol that fsspec does not know or whose package is missing.
    """
    name = os.fspath(path)
    if "://" not in name and "::" not in name:
        return LocalFolder(Path(name))
    try:
        filesystem, inner = fsspec.core.url_to_fs(name)
    except (ValueError, ImportError) as error:
        raise BadInputError(f"cannot open {name}: {error}") from None
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    return LocalFolder(Path(inner)) if protocol in ("file", "local") else RemoteFolder(name, filesystem, inner)


def sha256(folder: Folder, name: str) -> str:
    """SHA-256 of a file."""
    with folder.open(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
