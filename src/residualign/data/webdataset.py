"""WebDataset shards: uncompressed tar files in which files with the same key make up a sample.

*Shards.* A folder of `*.tar`, or of folders `train`, `val` (or `valid`, `validation`) and `test` with `*.tar` in them,
or a single tar. A shard belongs to the split of its folder, else to the split that is a word of its name
(`train-000000.tar`, `pets-val-3.tar`); if no shard names a split, all are training images.

*Samples.* The key of a file is its path in the tar up to the first dot of its base name; files of a shard with the same
key are a sample. Its image is the file with an image extension; its label is the content of `.cls` (an integer or a
text), else the entry `label` or `cls` of `.json`, else the content of `.txt`. A sample without an image is listed as a
stray. The key of an image is the shard's path and the sample's key (`"train-000000.tar/000017"`).

*Classes* are the lines of `classnames.txt` or `classes.txt` next to the shards, else the labels that occur, sorted.
"""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from residualign.data.images import BadImageError, has_image_extension
from residualign.data.labels import number_labels
from residualign.data.split import EncodedSource, RawData, Split, split_name
from residualign.errors import BadInputError

__all__ = ["COMPRESSED", "Member", "holds_shards", "index_tar", "read_range", "read_shards"]

_CLASS_FILES = ("classnames.txt", "classes.txt")

_INTEGER = re.compile(r"[+-]?\d+")

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
"""File name endings of compressed tars, in which no file can be read by its offset."""


@dataclass(frozen=True)
class Member:
    """One file in a tar: its name, and where its bytes start."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class _Members(EncodedSource):
    """Images by the position of their bytes: places has (shard, offset, size) per row."""

    root: Path
    shards: tuple[str, ...]
    places: NDArray[np.int64]

    def encoded(self, row: int, key: str) -> bytes:
        shard, offset, size = (int(number) for number in self.places[row])
        try:
            data = read_range(self.root / self.shards[shard], offset, size)
        except OSError as error:
            raise BadImageError(key, f"its shard cannot be read ({error.strerror or error})") from error
        if len(data) < size:
            raise BadImageError(key, "its shard ends before its last byte")
        return data

    def file(self, row: int, key: str) -> Path:
        return self.root / self.shards[int(self.places[row][0])]


@dataclass
class _Sample:
    """The files that share a key, by the part of their names after the first dot, in lower case."""

    key: str
    files: dict[str, Member] = field(default_factory=dict)

    @property
    def images(self) -> list[Member]:
        return [member for member in self.files.values() if has_image_extension(member.name)]


@dataclass
class _Collected:
    """The images of one split, shard after shard."""

    keys: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)


def holds_shards(root: Path) -> bool:
    """Whether this folder, or folders in it named like splits, hold tar files (including compressed ones).

    A folder that contains other folders, or whose split folders contain folders, is a folder of class folders.
    """
    try:
        folders = _folders(root)
        if any(split_name(folder.name) is None or _folders(folder) for folder in folders):
            return False
        return any(_is_tar(entry) for folder in (root, *folders) for entry in folder.iterdir())
    except OSError:
        return False  # reading the folder will report why


def read_shards(source: Path, labeled: bool = True, n_classes: int | None = None) -> RawData:
    """The samples of a folder of shards, or of one tar; labels are read, images are not.

    n_classes and labeled as in `read_parquet`. Raises `BadInputError` naming shard and key for a shard that is
    compressed, truncated or not a tar, for a sample with two images or without a label, and for labels that
    `residualign.data.labels` refuses. Costs one pass over the headers, and a read of every label file.
    """
    root = source if source.is_dir() else source.parent
    if source.is_dir():
        found = _split_shards(root)
    else:
        _refuse_compressed(source)
        found = {_split_of(source.name) or "train": [source]}
    shards = tuple(path.relative_to(root).as_posix() for paths in found.values() for path in paths)
    collected: dict[str, _Collected] = {}
    strays: list[str] = []
    for split, paths in found.items():
        collected[split] = _Collected()
        for path in paths:
            strays += _add_shard(collected[split], root, path, shards)
        if not collected[split].keys:
            raise BadInputError(f"the shards of {split} in {str(source)!r} hold no images")
    numbered = number_labels(
        _numbers_where_all_are({split: one.labels for split, one in collected.items()}),
        {split: len(one.keys) for split, one in collected.items()},
        str(source),
        declared=_class_names(root),
        n_classes=n_classes,
        labeled=labeled,
        where=lambda split, row: f"sample {collected[split].keys[row]!r}",
    )
    splits = {}
    for split, labels in numbered.labels.items():
        one = collected[split]
        places = _Members(root, shards, np.array(one.places, dtype=np.int64))
        splits[split] = Split(split, tuple(one.keys), labels, places, tuple(range(len(one.keys))))
    return RawData(splits, numbered.class_names, strays=tuple(strays), notes=numbered.notes)


def _add_shard(collected: _Collected, root: Path, path: Path, shards: tuple[str, ...]) -> list[str]:
    """Add the images of a shard; returns the keys of samples without one."""
    name = path.relative_to(root).as_posix()
    number, strays = shards.index(name), []
    samples = _samples(index_tar(path, name), name)
    with path.open("rb") as file:
        for sample in samples:
            images = sample.images
            if len(images) > 1:
                files = ", ".join(repr(image.name) for image in images)
                raise BadInputError(f"the sample {sample.key!r} has {len(images)} images ({files}); expected one")
            if not images:
                strays.append(sample.key)
                continue
            collected.keys.append(sample.key)
            collected.places.append((number, images[0].offset, images[0].size))
            collected.labels.append(_label(file, sample))
    return strays


def _samples(members: list[Member], shard: str) -> list[_Sample]:
    """The members of a shard by key, in the order in which the keys first occur."""
    samples: dict[str, _Sample] = {}
    for member in members:
        folder, _, base = member.name.removeprefix("./").rpartition("/")
        stem, _, extension = base.partition(".")
        if not stem:  # hidden files
            continue
        key = f"{shard}/{folder}/{stem}" if folder else f"{shard}/{stem}"
        try:
            key.encode()
        except UnicodeEncodeError:
            raise BadInputError(f"the file name {member.name!r} in the shard {shard!r} is not valid UTF-8") from None
        sample = samples.setdefault(key, _Sample(key))
        if extension.lower() in sample.files:
            raise BadInputError(f"the sample {key!r} has the file {member.name!r} twice")
        sample.files[extension.lower()] = member
    return list(samples.values())


def _label(file: BinaryIO, sample: _Sample) -> Any:
    """The label of a sample as stored: a text, what JSON holds, several lines as a list; None without one."""
    for extension in ("cls", "json", "txt"):
        member = sample.files.get(extension)
        if member is None:
            continue
        file.seek(member.offset)
        try:
            text = file.read(member.size).decode("utf-8")
            content = json.loads(text) if extension == "json" else None
        except ValueError as error:
            kind = "JSON" if extension == "json" else "text"
            raise BadInputError(f"the file {member.name!r} of sample {sample.key!r} is not {kind}: {error}") from error
        if extension == "json":
            entries = content if isinstance(content, dict) else {}
            label = entries.get("label", entries.get("cls"))
            if label is not None:
                return label
            continue
        lines = text.split("\n") if extension == "cls" else [text]
        told = [line.strip() for line in lines if line.strip()]
        return told if len(told) > 1 else "".join(told)
    return None


def _numbers_where_all_are(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Labels written as digits become integers, if every text label of every split is one."""
    texts = [value for values in columns.values() for value in values if isinstance(value, str) and value]
    if not all(_INTEGER.fullmatch(text) for text in texts):
        return columns
    return {
        split: [int(value) if isinstance(value, str) and value else value for value in values]
        for split, values in columns.items()
    }


def _split_shards(root: Path) -> dict[str, list[Path]]:
    """The shards of every split, sorted by path."""
    paths = sorted(path for folder in (root, *_folders(root)) for path in folder.iterdir() if _is_tar(path))
    for path in paths:
        _refuse_compressed(path)
    named = {path: split_name(path.parent.name) if path.parent != root else _split_of(path.name) for path in paths}
    without = [path.name for path, split in named.items() if split is None]
    if without and len(without) < len(named):
        raise BadInputError(
            f"some shards of {str(root)!r} name their split and others, such as {without[0]!r}, do not; "
            "put train, val or test in every name or in none"
        )
    found: dict[str, list[Path]] = {}
    spelled: dict[str, set[Path]] = {}
    for path, split in named.items():
        found.setdefault(split or "train", []).append(path)
        spelled.setdefault(split or "train", set()).add(path.parent)
    for split, parents in spelled.items():
        if len(parents) > 1:
            folders_told = ", ".join(sorted(parent.relative_to(root).as_posix() for parent in parents))
            raise BadInputError(f"the folder {str(root)!r} holds the {split} split twice: {folders_told}")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _split_of(name: str) -> str | None:
    """The split named by a word of a shard's name, or None; a name with two splits is refused."""
    told = {split for word in re.findall("[A-Za-z]+", name) if (split := split_name(word))}
    if len(told) > 1:
        raise BadInputError(f"the name of the shard {name!r} contains several splits: {', '.join(sorted(told))}")
    return told.pop() if told else None


def _folders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _is_tar(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower().endswith((".tar", *COMPRESSED)) and path.is_file()


def _refuse_compressed(path: Path) -> None:
    if path.name.lower().endswith(COMPRESSED):
        raise BadInputError(
            f"the shard {path.name!r} is compressed, and files in a compressed tar cannot be read by offset; "
            "unpack it to a .tar"
        )


def _class_names(root: Path) -> tuple[str, ...] | None:
    """The lines of the file of class names next to the shards; None without one."""
    paths = [root / name for name in _CLASS_FILES if (root / name).is_file()]
    if not paths:
        return None
    if len(paths) > 1:
        raise BadInputError(f"the folder {str(root)!r} holds two files of class names: {', '.join(_CLASS_FILES)}")
    try:
        names = tuple(line.strip() for line in paths[0].read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"the class names in {str(paths[0])!r} cannot be read: {error}") from error
    while names and not names[-1]:
        names = names[:-1]
    if not names or not all(names) or len(set(names)) < len(names):
        raise BadInputError(f"{str(paths[0])!r} must hold one class name per line, all different and none empty")
    return names


def index_tar(path: Path, name: str) -> list[Member]:
    """The files in a tar, in its order; folders and links are ignored.

    name: what to call the tar in errors. Raises `BadInputError` if it is not a tar, is compressed, or ends too early;
    the message names the last file found. Costs one header read per file.
    """
    members: list[Member] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isreg() and not info.issparse():
                    members.append(Member(info.name, info.offset_data, info.size))
                # tarfile keeps every header it has read; a shard may have a hundred thousand
                tar.members = []  # type: ignore[attr-defined]
    except tarfile.ReadError as error:
        if members:
            raise BadInputError(
                f"the shard {name!r} is truncated or damaged after {members[-1].name!r} ({_reason(error)})"
            ) from error
        if _is_compressed(path):
            raise BadInputError(
                f"the shard {name!r} is compressed; files in it cannot be read by offset: unpack it"
            ) from error
        raise BadInputError(f"the shard {name!r} is not a tar file, or is damaged ({_reason(error)})") from error
    except OSError as error:
        raise BadInputError(f"the shard {name!r} cannot be read ({error.strerror or error})") from error
    return members


def read_range(path: Path, offset: int, size: int) -> bytes:
    """These bytes of a file; fewer if it ends before. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _is_compressed(path: Path) -> bool:
    starts = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
    return read_range(path, 0, 6).startswith(starts)


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
