"""The folder of a store: local, or anywhere fsspec reaches. Files appear in it whole or not at all."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from residualign._files import TEMPORARY_SUFFIX, publish
from residualign.errors import BadInputError

__all__ = ["Folder", "LocalFolder", "RemoteFolder", "open_folder"]

_BLOCK = 1 << 22


class Folder(ABC):
    """The few things a store asks of a folder. Names are plain file names."""

    name: str
    """The folder as the user wrote it."""
    shards_open: int
    """How many shards to keep open for reading."""

    @abstractmethod
    def names(self) -> set[str]:
        """Names of all files; empty where the folder is absent."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file, None where it is absent."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file so that it is whole or absent, whenever the process ends."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing where it is absent."""

    @abstractmethod
    def view(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a file, without reading them all where the system can do that."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All bytes of a small file."""

    @abstractmethod
    def hash_into(self, name: str, *digests: Callable[[bytes], object]) -> None:
        """Hand a file to each of `digests`, block by block."""

    def sha256(self, name: str) -> str:
        """SHA-256 of a file."""
        digest = hashlib.sha256()
        self.hash_into(name, digest.update)
        return digest.hexdigest()


class LocalFolder(Folder):
    """A folder of this machine: atomic renames, memory-mapped reading."""

    shards_open = 64

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def names(self) -> set[str]:
        return set(os.listdir(self.path)) if self.path.is_dir() else set()

    def size(self, name: str) -> int | None:
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        publish(self.path / name, content)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def view(self, name: str) -> NDArray[np.uint8]:
        return np.memmap(self.path / name, dtype=np.uint8, mode="r")

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def hash_into(self, name: str, *digests: Callable[[bytes], object]) -> None:
        with open(self.path / name, "rb") as file:
            _feed(file, digests)

    def remove_leftovers(self) -> None:
        """Remove what a killed run had begun to write."""
        for name in self.names():
            if name.endswith(TEMPORARY_SUFFIX):
                self.remove(name)


class RemoteFolder(Folder):
    """A folder behind fsspec: one PUT per file, which object stores make atomic; read whole."""

    shards_open = 2

    def __init__(self, name: str, filesystem: Any, path: str) -> None:
        self.name = name
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    def _file(self, name: str) -> str:
        return f"{self._path}/{name}"

    def names(self) -> set[str]:
        self._filesystem.invalidate_cache()
        if not self._filesystem.exists(self._path):
            return set()
        return {str(entry).rsplit("/", 1)[-1] for entry in self._filesystem.ls(self._path, detail=False)}

    def size(self, name: str) -> int | None:
        return int(self._filesystem.size(self._file(name))) if self._filesystem.exists(self._file(name)) else None

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

    def hash_into(self, name: str, *digests: Callable[[bytes], object]) -> None:
        with self._filesystem.open(self._file(name), "rb") as file:
            _feed(file, digests)


def open_folder(path: str | os.PathLike[str]) -> LocalFolder | RemoteFolder:
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


def _feed(file: Any, digests: tuple[Callable[[bytes], object], ...]) -> None:
    while block := file.read(_BLOCK):
        for digest in digests:
            digest(block)
