"""Writing a file so that it is either whole or absent, and saying plainly why it could not be written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from residualign.errors import RunError

__all__ = ["TEMPORARY_SUFFIX", "publish", "saying_what_is_kept"]

TEMPORARY_SUFFIX = ".partial"

_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system allows",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the device reports an input/output error",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


@contextlib.contextmanager
def saying_what_is_kept(path: str | os.PathLike[str], kept: str) -> Iterator[None]:
    """Turn a failure to write into one sentence.

    Raises `RunError` naming `path`, the reason, and `kept`: what is safe on disk and how to go on.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise RunError(f"cannot write {os.fspath(path)}: {reason}; {kept}") from error


def publish(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` as a local file that appears all at once: temporary file beside it, fsync, rename.

    A process killed at any moment leaves the old file, or none, and at most one `*.partial` beside it, which the
    next write of the same name overwrites. Raises the plain `OSError`; see `saying_what_is_kept`.
    """
    target = Path(path)
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is; Windows cannot open folders, and there it is not needed.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
