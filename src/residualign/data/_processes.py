"""Worker processes that start quickly, do not run the user's script again and ignore Ctrl-C.

A forked copy of this process could deadlock, because torch holds threads. Where the system has one, a fork server is
used: a fresh process that imports once what the workers need and is then forked, so that each worker costs milliseconds
and little memory. Elsewhere each worker is a fresh process.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Answer", "Launched", "begin", "launch", "packed", "start_pool", "submit", "work"]

_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

# `_ready` creates the file named in this variable; only the fork server may import it
_READY_MODULE, _READY_VARIABLE = "residualign.data._ready", "RESIDUALIGN_FORK_SERVER_READY"

# seconds after which a fork server is used even if it has not reported that it is ready
_PATIENCE = 60.0

Answer = tuple[Any, tuple[tuple[str, type[Warning]], ...]]
"""What the function returned, and the warnings it raised."""

# in a worker: what it was started to call
_function: Callable[[Any], Any] | None = None


def packed(function: Callable[[Any], Any]) -> tuple[bytes, frozenset[str]] | None:
    """The pickled function and the modules that unpickling imports; None if workers could not unpickle it."""
    try:
        payload = pickle.dumps(function)
        reader = _Reader(io.BytesIO(payload))
        reader.load()
    except Exception:
        # pickling runs code of other libraries, which may raise anything
        return None
    # workers do not run the user's script, so they do not have what it defines
    return None if "__main__" in reader.modules else (payload, frozenset(reader.modules))


class _Reader(pickle.Unpickler):
    """Unpickles, and records which modules it needs."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return super().find_class(module, name)


@dataclass(frozen=True)
class Launched:
    """A fork server that is starting. begun: when, by `time.monotonic`."""

    ready_file: Path
    begun: float

    def is_ready(self) -> bool:
        """Whether it has imported what the workers need, so that they start at once."""
        # a server that someone else started before is used, and creates no file
        return _METHOD == "spawn" or self.ready_file.exists() or time.monotonic() - self.begun > _PATIENCE


_launched: Launched | None = None


def launch(modules: frozenset[str]) -> Launched:
    """Start the fork server without waiting for it; it runs until this process ends.

    modules: what it imports before it serves; ignored if it is already running.
    """
    global _launched
    if _launched is None:
        folder = Path(tempfile.mkdtemp(prefix="residualign-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _launched = Launched(folder / "ready", time.monotonic())
        if _METHOD == "forkserver":
            _start_server(modules, _launched.ready_file)
    return _launched


def _start_server(modules: frozenset[str], ready_file: Path) -> None:
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.set_forkserver_preload([__name__, *sorted(modules), _READY_MODULE])
    # starting the tracker unblocks Ctrl-C, so it must be running before the block below
    resource_tracker.ensure_running()
    os.environ[_READY_VARIABLE] = str(ready_file)
    try:
        with _without_ctrl_c(), _without_script():
            forkserver.ensure_running()
    finally:
        del os.environ[_READY_VARIABLE]


def start_pool(payload: bytes, workers: int) -> ProcessPoolExecutor:
    """Processes that call the pickled function; one starts when a job is submitted and none is idle."""
    context = multiprocessing.get_context(_METHOD)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin, initargs=(payload,))


def submit(pool: ProcessPoolExecutor, job: Any) -> Future[Answer]:
    """Call the pool's function with a job; raises `BrokenProcessPool` if a worker has died."""
    # a start interrupted half way by Ctrl-C would leave a worker without its input
    with _without_ctrl_c(), _without_script():
        return pool.submit(work, job)


@contextmanager
def _without_script() -> Iterator[None]:
    """Hide the user's script from processes that start in the meantime.

    They would import it to find what it defines, and without a main guard it would start the same work again. Workers
    need nothing from it (see `packed`).
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C in this thread and in processes that start in the meantime, which keep the block for good.

    In this process a Ctrl-C takes effect when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin(payload: bytes) -> None:
    """Called once when a worker starts. payload: the pickled function."""
    global _function
    # Ctrl-C goes to every process of a terminal; only the parent acts on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    _function = pickle.loads(payload)
    # the workers share the machine's cores: more threads in each would only compete
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def work(job: Any) -> Answer:
    """The function's result for one job, and its warnings: the parent's settings decide what happens to them."""
    assert _function is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = _function(job)
    return result, tuple(dict.fromkeys((str(warning.message), warning.category) for warning in caught))


def _end_with_parent() -> None:
    """End when the parent is killed; otherwise workers would wait forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
