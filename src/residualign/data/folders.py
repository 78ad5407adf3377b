"""Image files on disk: in folders of class folders, optionally inside train, val and test, or named one by one.

`residualign.data.layout` tells splits from classes. Classes are the sorted names of the class folders (by code point,
as in torchvision's ImageFolder); images are sorted by their path below the data's folder. Folders inside a class
folder belong to that class. Hidden files and folders and files that operating systems leave behind (`Thumbs.db`,
`desktop.ini`, `__MACOSX`) are ignored. Strays, listed by their keys, are images next to the class folders and files
inside a class folder that are not images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from residualign._messages import listed, plural
from residualign.data.images import BadImageError, has_image_extension, read_bytes, read_image, unread_format
from residualign.data.layout import entries, split_folders
from residualign.data.same_names import matched, plain
from residualign.data.split import EncodedSource, RawData, Split
from residualign.errors import BadInputError

__all__ = ["ImageFiles", "expand_images", "opened_images", "read_folder"]


@dataclass(frozen=True)
class ImageFiles(EncodedSource):
    """Images whose keys are their paths below `root`; without a root, their paths as given."""

    root: Path = Path()

    def encoded(self, row: int, key: str) -> bytes:
        return read_bytes(self.root / key, key)

    def file(self, row: int, key: str) -> Path:
        return self.root / key


def read_folder(root: Path, labeled: bool = True, skip_bad: bool = False) -> RawData:
    """The images below a folder; their pixels are not read.

    With labeled=False a folder of images without class folders is accepted too, as one class named "images". A val or
    test folder of images without class folders has no labels, and is left out with a note. Raises `BadInputError`
    naming the folder if there are no images, an empty class folder (with skip_bad it is left out with a note), what
    `split_folders` refuses, or a class in val or test that is not in train. Costs one listing of every folder.
    """
    folders, files = entries(root)
    images = [name for name in files if has_image_extension(name)]
    if not folders:
        if not images:
            raise BadInputError(f"the folder {str(root)!r} holds no class folders and no images{_unreadable(files)}")
        if labeled:
            raise BadInputError(
                f"the folder {str(root)!r} holds images but no class folders; put each class's images in one"
                + _parent_of_classes(root)
            )
        return _unlabeled(root)
    found = split_folders(root, folders, labeled)
    if not found:
        return _assemble(root, {"train": root}, skip_bad)
    raw = _assemble(root, found, skip_bad)
    return RawData(raw.splits, raw.class_names, strays=(*images, *raw.strays), notes=raw.notes)


def _parent_of_classes(root: Path) -> str:
    """The way out if the folder is one of several class folders."""
    parent = root.resolve().parent
    beside = [name for name in entries(parent)[0] if parent / name != root.resolve()] if parent != parent.parent else []
    if any(has_image_extension(file) for name in beside[:5] for file in entries(parent / name)[1]):
        return f", or, if it is one class of several, give {str(parent)!r}"
    return ""


def _assemble(root: Path, split_folders: dict[str, Path], skip_bad: bool) -> RawData:
    """Splits from folders of class folders; labels follow the classes of train, or of all splits without train."""
    listing = {split: entries(folder) for split, folder in split_folders.items()}
    notes = []
    for split, folder in split_folders.items():
        folders, files = listing[split]
        if folders:
            continue
        if split == "train" or len(listing) == 1 or not any(map(has_image_extension, files)):
            raise BadInputError(f"the folder {str(folder)!r} holds no class folders")
        notes.append(f"the {split} split of {str(root)!r} has no labels (no class folders) and is left out")
        del listing[split]
    every = {name for inside, _ in listing.values() for name in inside}
    names = listing["train"][0] if "train" in listing else sorted(every)
    _refuse_twins(names, root)
    splits, strays, hollow = {}, [], []
    for split, (folders, files) in listing.items():
        folder = split_folders[split]
        strays += [_key(root, folder / name) for name in files if has_image_extension(name)]
        keys: list[str] = []
        labels: list[int] = []
        for name, label in zip(folders, matched(folders, names), strict=True):
            if label is None:
                raise BadInputError(f"class {name!r} is in {split} but not in train{_lonely(folder, folders)}")
            images, others = _walk(root, folder / name)
            if not images and not skip_bad:
                raise BadInputError(
                    f"the class folder {str(folder / name)!r} holds no images{_unreadable(others)}; remove it, or "
                    "leave it out with skip_bad=True"
                )
            if not images:
                hollow.append(_key(root, folder / name))
            keys += images
            labels += [label] * len(images)
            strays += others
        splits[split] = Split(split, tuple(keys), tuple(labels), ImageFiles(root), tuple(range(len(keys))))
    if hollow:
        notes.append(f"{plural(len(hollow), 'class folder')} without images left out: {listed(hollow)}")
    kept, class_names = _without_hollow(splits, names)
    return RawData(kept, class_names, strays=tuple(strays), notes=tuple(notes))


def _without_hollow(splits: dict[str, Split], names: Sequence[str]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits without the classes that no image has; class numbers stay ascending."""
    used = sorted({label for split in splits.values() for label in split.labels})
    if len(used) == len(names):
        return splits, tuple(names)
    number = {label: i for i, label in enumerate(used)}
    fewer = {
        name: replace(split, labels=tuple(number[label] for label in split.labels)) for name, split in splits.items()
    }
    return fewer, tuple(names[label] for label in used)


def _refuse_twins(names: Sequence[str], root: Path) -> None:
    """Refuse class folders whose names look the same."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(plain(name), name)
        if other != name:
            raise BadInputError(
                f"the class folders {other!a} and {name!a} in {str(root)!r} have the same name in two Unicode forms or "
                "with blanks around it; move the images of one into the other"
            )


def _lonely(folder: Path, folders: Sequence[str]) -> str:
    """The way out if a split has a single folder, as unlabeled test images are often packed."""
    return f"; if its images have no labels, move {str(folder)!r} elsewhere" if len(folders) == 1 else ""


def _unreadable(files: Sequence[str]) -> str:
    """What to do about pictures in formats that are not read."""
    phone = [name for name in files if unread_format(name)]
    if not phone:
        return ""
    kind = unread_format(phone[0])
    return f" that can be read ({phone[0]!r} is a picture in {kind}: convert such files to JPEG or PNG)"


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
    folders, files = entries(folder)
    yield from (folder / name for name in files)
    for name in folders:
        yield from _files_below(folder / name, above | {real})


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
