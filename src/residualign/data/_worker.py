"""What runs inside a worker process: one function, unpickled once, called with one job after another."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing import parent_process
from typing import Any

__all__ = ["begin", "work"]

Answer = tuple[Any, tuple[tuple[str, type[Warning]], ...]]
"""What the function gave, and the warnings that came up meanwhile."""

_function: Callable[[Any], Any] | None = None


def begin(payload: bytes) -> None:
    """Called once when the process starts. payload: the pickled function."""
    global _function
    # Ctrl-C goes to every process of a terminal; the parent alone decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    _function = pickle.loads(payload)
    # the processes share the machine's cores: more threads in each would only stand in each other's way
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def work(job: Any) -> Answer:
    """The function's result for one job. Warnings go to the parent, whose settings say what becomes of them."""
    assert _function is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = _function(job)
    return result, tuple(dict.fromkeys((str(warning.message), warning.category) for warning in caught))


def _end_with_parent() -> None:
    """A parent that was killed cannot say good-bye; without this its workers would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
