"""Where the files of an uncompressed tar lie, found once, so that each can be read by itself."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from residualign.errors import BadInputError

__all__ = ["COMPRESSED", "Member", "index_tar", "read_range"]

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
"""Name endings of tar files in which nothing can be read by its offset."""


@dataclass(frozen=True)
class Member:
    """One file in a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


def index_tar(path: Path, name: str) -> list[Member]:
    """The files in a tar, in its order; folders and links are passed over.

    name: what to call the tar in errors. Raises `BadInputError` for a file that is no tar, is compressed, or ends too
    early, with the last file that was found. Costs one header read a file, none of their bytes.
    """
    members: list[Member] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isreg() and not info.issparse():
                    members.append(Member(info.name, info.offset_data, info.size))
                # tarfile keeps every header it has seen; a shard may have a hundred thousand
                tar.members = []  # type: ignore[attr-defined]
    except tarfile.ReadError as error:
        if members:
            raise BadInputError(
                f"the shard {name!r} is truncated or damaged after {members[-1].name!r} ({_reason(error)})"
            ) from error
        if _is_compressed(path):
            raise BadInputError(
                f"the shard {name!r} is compressed; its files cannot be read by offset: unpack it"
            ) from error
        raise BadInputError(f"the shard {name!r} is no tar file, or damaged ({_reason(error)})") from error
    except OSError as error:
        raise BadInputError(f"the shard {name!r} cannot be read ({error.strerror or error})") from error
    return members


def read_range(path: Path, offset: int, size: int) -> bytes:
    """These bytes of a file; fewer where it ends before. OSError where it cannot be read."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _is_compressed(path: Path) -> bool:
    starts = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
    return read_range(path, 0, 6).startswith(starts)


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
