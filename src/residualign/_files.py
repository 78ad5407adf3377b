"""Writing a file so that it is either complete or absent, with a plain sentence where it cannot be written."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from residualign.errors import BadInputError, RunError, system_reason

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LOCK_NAME",
    "TEMPORARY_SUFFIX",
    "DirectoryLock",
    "json_bytes",
    "json_line",
    "plain",
    "publish",
    "read_tensors",
    "saying_what_is_kept",
]

TEMPORARY_SUFFIX = ".partial"


@contextlib.contextmanager
def saying_what_is_kept(path: str | os.PathLike[str], kept: str) -> Iterator[None]:
    """Turn a failure to write into one sentence.

    Raises `RunError` naming `path`, the reason, and `kept`: what is safe on disk and how to go on.
    """
    try:
        yield
    except OSError as error:
        reason = system_reason(error) or error.strerror or str(error)
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


def plain(value: Any) -> Any:
    """Lists, text keys and finite numbers throughout: a number that is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def json_bytes(value: Any) -> bytes:
    r"""A JSON file: indented, UTF-8, a line break at its end; numbers that are not finite become null.

    >>> json_bytes({"accuracy": float("nan")})
    b'{\n "accuracy": null\n}\n'
    """
    return (json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_line(value: Any) -> bytes:
    """One record of a file of JSON lines."""
    return (json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_tensors(path: str | os.PathLike[str], format: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a safetensors file with a JSON header under the key `residualign`.

    Raises `BadInputError` naming the file where it is absent, truncated, of a different kind or version.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise BadInputError(f"no such file: {name}; expected a {format} file")
    try:
        with safe_open(name, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("residualign", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise BadInputError(f"{name} is damaged or not a safetensors file: {error}") from None
    if not isinstance(header, dict) or header.get("format") != format:
        found = header.get("format") if isinstance(header, dict) else "something else"
        raise BadInputError(f"{name} is not a {format} file but {found}")
    if header.get("version") != version:
        raise BadInputError(f"{name} has version {header.get('version')}, this residualign reads version {version}")
    return header, tensors


LOCK_NAME = ".lock"


class DirectoryLock:
    """Locks a local folder for one run; the system releases the lock when the process ends, however it ends.

    A context manager. The folder is made if it is absent. The file `.lock` in it is removed on leaving; one that a
    killed run left behind locks nothing. Entering raises `BadInputError` where another run holds the folder, and
    `RunError` where the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / LOCK_NAME, timeout=0)

    def __enter__(self) -> DirectoryLock:
        if self.folder.exists() and not self.folder.is_dir():
            raise BadInputError(f"{self.folder} is a file, expected a folder or a new name")
        with saying_what_is_kept(self.folder, "nothing was changed there"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise BadInputError(
                    f"another run is writing to {self.folder}; wait for it to end, or choose another folder"
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # removed while it is still held: whoever opened it meanwhile finds a file without a name and looks again
        with contextlib.suppress(OSError):
            os.unlink(self.folder / LOCK_NAME)
        self._lock.release()
