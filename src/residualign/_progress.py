"""Notes, warnings and progress of long work, for a listener that the work does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Silent", "Tick", "Ticking"]

Tick = Callable[[int, int], None]
"""Called with (done, total) as a task proceeds."""


@runtime_checkable
class Progress(Protocol):
    """A listener to notes, warnings and progress."""

    def note(self, sentence: str) -> None:
        """Say what is happening."""

    def warn(self, sentence: str) -> None:
        """Say what the user should know about the result."""

    def task(self, description: str) -> AbstractContextManager[Tick]:
        """A context manager around one piece of long work; gives the function that reports its progress."""
        ...

    def done(self, result: object, seconds: float) -> None:
        """Report a finished part of the work (a store, spectra, a fitted method) and the seconds it took."""


class Silent:
    """A listener that ignores everything."""

    def note(self, sentence: str) -> None:
        """Nothing."""

    def warn(self, sentence: str) -> None:
        """Nothing."""

    @contextmanager
    def task(self, description: str) -> Iterator[Tick]:
        """Nothing."""
        yield lambda done, total: None

    def done(self, result: object, seconds: float) -> None:
        """Nothing."""


class Ticking(Silent):
    """Only the steps of every task are heard, by one plain callable."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    @contextmanager
    def task(self, description: str) -> Iterator[Tick]:
        """The callable itself."""
        yield self._tick


SILENT = Silent()
"""The default listener of functions called from Python."""
