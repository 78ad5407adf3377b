"""Writing a file so that it is either complete or absent, with a plain sentence where it cannot be written.

Nothing is written or removed through a link: see `open_new`, `refuse_link` and `check_file_name`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from residualign.errors import BadInputError, RunError, system_reason

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LOCK_NAME",
    "TEMPORARY_SUFFIX",
    "DirectoryLock",
    "check_file_name",
    "is_link",
    "json_bytes",
    "json_line",
    "open_new",
    "plain",
    "publish",
    "publish_together",
    "read_tensors",
    "refuse_link",
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
    publish_together(target.parent, {target.name: content})


def publish_together(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write every file under a temporary name, and only then rename them all, in order; otherwise as `publish`."""
    staged = {name: Path(folder) / (name + TEMPORARY_SUFFIX) for name in contents}
    try:
        for name, content in contents.items():
            with open_new(staged[name]) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        # renaming replaces a link that has the name, not the file that it points to
        for name, path in staged.items():
            os.replace(path, Path(folder) / name)
    except OSError:
        for path in staged.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    _sync_folder(Path(folder))


def open_new(path: str | os.PathLike[str]) -> IO[bytes]:
    """A new file, open for writing; a file or a link of the same name is removed first and never written through.

    Temporary names can be guessed, so that a folder of somebody else may hold a link by that name.
    """
    Path(path).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def is_link(path: str | os.PathLike[str]) -> bool:
    """Whether this is a symbolic link, or a junction on Windows, whatever it points to."""
    # Python 3.11 does not know junctions
    return os.path.islink(path) or bool(getattr(os.path, "isjunction", lambda _: False)(path))


def refuse_link(path: str | os.PathLike[str], way_out: str) -> None:
    """`BadInputError` for a link in place of a folder in which files are written or removed."""
    if is_link(path):
        raise BadInputError(
            f"{os.fspath(path)!r} is a link, expected a folder: nothing is written or removed through a link; {way_out}"
        )


def check_file_name(name: object, what: str = "file name") -> str:
    """The name, if it names a file or folder in the folder where it is used.

    `BadInputError` for a path, `..`, anything that a file system of any machine reads as one, and control characters.
    what: what the name is, for the sentence.
    """
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or any(kind(name).name != name for kind in (PurePosixPath, PureWindowsPath))
        or any(ord(sign) < 32 for sign in name)
    ):
        raise BadInputError(f"{what} {name!r} cannot be used in a file name; expected a plain name without slashes")
    return name


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
    >>> json_bytes(["\udc80"])  # a file name that is not UTF-8
    b'[\n "\\udc80"\n]\n'
    """
    return _encoded(json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def json_line(value: Any) -> bytes:
    """One record of a file of JSON lines."""
    return _encoded(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))


def _encoded(text: str) -> bytes:
    # lone surrogates, which UTF-8 cannot encode, are written as the escapes of JSON
    return (text + "\n").encode("utf-8", "backslashreplace")


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
            lock = self.folder / LOCK_NAME
            if is_link(lock) or (lock.is_file() and lock.stat().st_nlink > 1):
                # no run of ours has it: whoever opened it would lock, and some versions empty, a different file
                lock.unlink()
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
