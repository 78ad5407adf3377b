"""Which folders of a data folder are splits, and which are classes.

Folders called train, val (valid, validation) and test are splits. Other spellings (Training, Testing, dev, eval,
seg_train) are splits if they hold folders only, and train shares two of them with another. Other folders that all hold
the same folders, two or more, are refused: read as classes, they would be domains, splits or sets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from residualign._messages import listed
from residualign.data.images import has_image_extension
from residualign.data.split import split_name
from residualign.errors import BadInputError

__all__ = ["entries", "split_folders"]

_LEFT_BEHIND = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "tst"), "test"),
}


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and files in a folder, sorted, without hidden and left-behind ones."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(".") and entry.name.lower() not in _LEFT_BEHIND:
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise BadInputError(f"the folder {str(folder)!r} cannot be read ({error.strerror or error})") from error
    return sorted(folders), sorted(files)


def split_folders(root: Path, folders: Sequence[str], labeled: bool) -> dict[str, Path]:
    """The folders that are splits; empty if the folders are classes.

    `BadInputError` for a split that is there twice, for splits next to other folders, and, with `labeled`, for folders
    that hold each other's folders without being called splits, or a single one that holds the data.
    """
    named = [name for name in folders if split_name(name)]
    # a class may be called "train": next to other folders it is a split only if it contains class folders
    if len(named) < len(folders):
        named = [name for name in named if _class_folders(root / name)]
    spelled = {name: split_name(name) for name in named}
    if len(named) < len(folders):
        spelled = _by_words(root, folders) or spelled
    others = [name for name in folders if name not in spelled]
    if spelled and others:
        raise BadInputError(
            f"the folder {str(root)!r} holds splits ({', '.join(spelled)}) and other folders "
            f"({', '.join(others[:5])}); use one or the other: move the other folders elsewhere"
        )
    if not spelled and labeled:
        _refuse_domains(root, folders)
    found: dict[str, Path] = {}
    for name, split in spelled.items():
        assert split is not None
        if split in found:
            raise BadInputError(
                f"the folder {str(root)!r} holds the {split} split twice: {found[split].name} and {name}"
            )
        found[split] = _unwrapped(root / name)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _by_words(root: Path, folders: Sequence[str]) -> dict[str, str | None]:
    """Folders with a split's name in another spelling, if one is train and another one holds the same folders."""
    spelled = {name: split for name in folders if (split := _split_word(name)) and _class_folders(root / name)}
    inside = {name: set(_class_folders(_unwrapped(root / name))) for name in spelled}
    train = [name for name, split in spelled.items() if split == "train"]
    others = [name for name, split in spelled.items() if split != "train"]
    shares = any(len(inside[one] & inside[other]) >= 2 for one in train for other in others)
    return dict(spelled) if shares else {}


def _split_word(name: str) -> str | None:
    """The split that the words of a name point to, if they point to one.

    >>> _split_word("seg_train"), _split_word("Testing"), _split_word("train_val"), _split_word("cats")
    ('train', 'test', None, None)
    """
    found = {_WORDS[word] for word in re.split(r"[\W_]+", name.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def _class_folders(folder: Path) -> list[str]:
    """The folders in a folder that holds folders and no images."""
    folders, files = entries(folder)
    return [] if any(map(has_image_extension, files)) else folders


def _unwrapped(folder: Path) -> Path:
    """The folder, or the only one in it if it is called the same, as archives are often unpacked."""
    inside = _class_folders(folder)
    return folder / inside[0] if inside == [folder.name] else folder


def _refuse_domains(root: Path, folders: Sequence[str]) -> None:
    """Refuse a folder whose folders would be read as classes, although what they hold are the classes."""
    if len(folders) == 1:
        inside = _class_folders(root / folders[0])
        if len(inside) > 1:
            raise BadInputError(
                f"the folder {str(root)!r} has only one class ({folders[0]!r}), which holds the folders "
                f"{listed(inside)}; if these are the classes or the splits, give {str(root / folders[0])!r}"
            )
        return
    same = _class_folders(root / folders[0])
    if len(same) < 2 or any(_class_folders(root / name) != same for name in folders[1:]):
        return
    if all(map(split_name, same)):
        way_out = (
            f"give one of them, such as {str(root / folders[0])!r}, or, if they are the classes, put the splits above"
        )
    else:
        way_out = (
            f"if they are splits, call them train, val and test; if they are domains, give one of them, such as "
            f"{str(root / folders[0])!r}; if they are the classes, put their images into them without folders"
        )
    raise BadInputError(
        f"the folders {listed(folders)} in {str(root)!r} all hold the same folders ({listed(same)}), so they do not "
        f"look like classes: {way_out}"
    )
