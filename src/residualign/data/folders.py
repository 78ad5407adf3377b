"""Image files on disk: in folders of class folders, optionally inside train, val and test, or named one by one.

Classes are the sorted names of the class folders (by code point, as in torchvision's ImageFolder); images are sorted by
their path below the data's folder. Folders inside a class folder belong to that class. Hidden files and folders and
files that operating systems leave behind (`Thumbs.db`, `desktop.ini`, `__MACOSX`) are ignored. Strays, listed by their
keys, are images next to the class folders and files inside a class folder that are not images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from residualign.data.images import BadImageError, has_image_extension, read_bytes, read_image
from residualign.data.split import EncodedSource, RawData, Split, split_name
from residualign.errors import BadInputError

__all__ = ["ImageFiles", "expand_images", "opened_images", "read_folder"]

_LEFT_BEHIND = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class ImageFiles(EncodedSource):
    """Images whose keys are their paths below `root`; without a root, their paths as given."""

    root: Path = Path()

    def encoded(self, row: int, key: str) -> bytes:
        return read_bytes(self.root / key, key)


def read_folder(root: Path, labeled: bool = True) -> RawData:
    """The images below a folder; their pixels are not read.

    With labeled=False a folder of images without class folders is accepted too, as one class named "images". Raises
    `BadInputError` naming the folder if there are no images, an empty class folder, the same split twice, folders
    next to the splits, or a class in val or test that is not in train. Costs one listing of every folder.
    """
    folders, files = _entries(root)
    images = [name for name in files if has_image_extension(name)]
    if not folders:
        if not images:
            raise BadInputError(f"the folder {str(root)!r} holds no class folders and no images")
        if labeled:
            raise BadInputError(
                f"the folder {str(root)!r} holds images but no class folders; put each class's images in one"
            )
        return _unlabeled(root)
    split_folders = _split_folders(root, folders)
    if not split_folders:
        return _assemble(root, {"train": root})
    raw = _assemble(root, split_folders)
    return RawData(raw.splits, raw.class_names, strays=(*images, *raw.strays))


def _split_folders(root: Path, folders: list[str]) -> dict[str, Path]:
    """The folders that are splits; empty if the folders are classes."""
    named = [name for name in folders if split_name(name)]
    # a class may be called "train": next to other folders it is a split only if it contains class folders
    if len(named) < len(folders):
        named = [name for name in named if _holds_classes(root / name)]
        others = [name for name in folders if name not in named]
        if named and others:
            raise BadInputError(
                f"the folder {str(root)!r} holds splits ({', '.join(named)}) and other folders "
                f"({', '.join(others[:5])}); use one or the other"
            )
    found: dict[str, Path] = {}
    for name in named:
        split = split_name(name)
        assert split is not None
        if split in found:
            raise BadInputError(
                f"the folder {str(root)!r} holds the {split} split twice: {found[split].name} and {name}"
            )
        found[split] = root / name
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _holds_classes(folder: Path) -> bool:
    folders, files = _entries(folder)
    return bool(folders) and not any(has_image_extension(name) for name in files)


def _assemble(root: Path, split_folders: dict[str, Path]) -> RawData:
    """Splits from folders of class folders; labels follow the classes of train, or of all splits without train."""
    classes = {split: _entries(folder)[0] for split, folder in split_folders.items()}
    for split, folder in split_folders.items():
        if not classes[split]:
            raise BadInputError(f"the folder {str(folder)!r} holds no class folders")
    names = classes.get("train") or sorted(set().union(*classes.values()))
    splits, strays = {}, []
    for split, folder in split_folders.items():
        unknown = [name for name in classes[split] if name not in names]
        if unknown:
            raise BadInputError(f"class {unknown[0]!r} is in {split} but not in train")
        strays += [_key(root, folder / name) for name in _entries(folder)[1] if has_image_extension(name)]
        keys: list[str] = []
        labels: list[int] = []
        for name in classes[split]:
            images, others = _walk(root, folder / name)
            if not images:
                raise BadInputError(f"the class folder {str(folder / name)!r} holds no images")
            keys += images
            labels += [names.index(name)] * len(images)
            strays += others
        splits[split] = Split(split, tuple(keys), tuple(labels), ImageFiles(root), tuple(range(len(keys))))
    return RawData(splits, tuple(names), strays=tuple(strays))


def _unlabeled(root: Path) -> RawData:
    images, others = _walk(root, root)
    split = Split("train", tuple(images), (0,) * len(images), ImageFiles(root), tuple(range(len(images))))
    return RawData({"train": split}, ("images",), strays=tuple(others), notes=("the images have no labels",))


def _walk(root: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Keys of the images and of the other files at any depth below a folder, each sorted."""
    images: list[str] = []
    others: list[str] = []
    for path in _files_below(folder, frozenset()):
        (images if has_image_extension(path.name) else others).append(_key(root, path))
    return sorted(images), sorted(others)


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link to one of its own parents would never end
        return
    folders, files = _entries(folder)
    yield from (folder / name for name in files)
    for name in folders:
        yield from _files_below(folder / name, above | {real})


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and files in a folder, sorted, without hidden and left-behind ones."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in _LEFT_BEHIND:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise BadInputError(f"the folder {str(folder)!r} cannot be read ({error.strerror or error})") from error
    return sorted(folders), sorted(files)


def _key(root: Path, path: Path) -> str:
    key = path.relative_to(root).as_posix()
    try:
        key.encode()
    except UnicodeEncodeError:
        raise BadInputError(f"the file name {key!r} is not valid UTF-8; rename the file") from None
    return key


def expand_images(paths: Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Image files in the order given; a folder is replaced by the images below it, sorted, without hidden ones.

    A file is accepted whatever its extension; opening it shows whether it is an image. Raises `BadInputError` for a
    path that does not exist and for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_shown_image(file, path))
            if not inside:
                raise BadInputError(f"the folder {str(path)!r} contains no images")
            found += inside
        elif os.path.exists(path):
            found.append(path)
        else:
            raise BadInputError(f"no image at {str(path)!r}: there is no such file or folder")
    return tuple(found)


def opened_images(paths: Iterable[Path], skip_bad: bool, skipped: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Images that can be read, in RGB, with their paths; with skip_bad the others are added to `skipped`."""
    for path in paths:
        try:
            yield path, read_image(path)
        except BadImageError as error:
            if not skip_bad:
                raise error.skippable() from error
            skipped.append(error.key)


def _is_shown_image(file: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not is_hidden and has_image_extension(file.name) and file.is_file()
