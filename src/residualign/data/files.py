"""Image files that are named one by one, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from residualign.data.images import BadImageError, has_image_extension, read_image
from residualign.errors import BadInputError

__all__ = ["FileSource", "expand_images", "opened_images"]


class FileSource:
    """Images whose keys are their paths."""

    def image(self, row: int, key: str) -> Image.Image:
        """The image at the path `key`, in RGB; raises `BadImageError` naming it."""
        return read_image(key)


def expand_images(paths: Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Image files in the order given; a folder is replaced by the images below it, sorted, without hidden ones.

    A file is taken whatever its name says: opening it will tell. Raises `BadInputError` for a path that does not exist
    and for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_image(file, path))
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
                raise
            skipped.append(error.key)


def _is_image(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and has_image_extension(file.name) and file.is_file()
