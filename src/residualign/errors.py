"""The errors a user can mend, those that happen while running, and what the system's error numbers mean."""

from __future__ import annotations

import errno

from residualign._messages import sentence

__all__ = ["BadInputError", "RunError", "is_full", "refuse_bare_text", "system_reason"]

_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system allows",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the device reports an input/output error",
    errno.EMFILE: "too many open files",
    errno.ENOTDIR: "part of the path is a file, not a folder",
}


class BadInputError(ValueError):
    """Something the caller gave cannot be used: one sentence that names it, what was expected and what came.

    The command line ends with exit code 2 and prints the sentence alone. The sentence is cut where it is very long, and
    control characters of names in it are shown as escapes.
    """

    def __init__(self, told: str = "") -> None:
        super().__init__(sentence(told))


class RunError(RuntimeError):
    """The input was good but the work could not be finished (disk full, output not writable, out of memory).

    The command line ends with exit code 1 and prints the sentence alone. What was done stays on disk.
    """

    def __init__(self, told: str = "") -> None:
        super().__init__(sentence(told))


def system_reason(error: OSError) -> str | None:
    """Why the system refused, in words; None for an error that is not about disks, permissions or open files.

    >>> system_reason(OSError(errno.ENOSPC, "")), system_reason(OSError("no number"))
    ('no space left on the device', None)
    """
    return _REASONS.get(error.errno or 0)


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def refuse_bare_text(name: str, value: object) -> None:
    """`BadInputError` for one text where several are expected: it would be read letter by letter."""
    if isinstance(value, str | bytes):
        raise BadInputError(f"{name} is a list of texts; got the single text {value!r}: write [{value!r}]")
