"""One run at a time per output folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from residualign._files import saying_what_is_kept
from residualign.errors import BadInputError

__all__ = ["LOCK_NAME", "DirectoryLock"]

LOCK_NAME = ".lock"


class DirectoryLock:
    """Holds a local folder for one run; the kernel lets go of it when the process ends, however it ends.

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
