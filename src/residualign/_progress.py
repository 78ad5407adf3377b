"""How work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Silent", "Tick"]

Tick = Callable[[int, int], None]
"""Called with (done, total) as a task goes on."""


@runtime_checkable
class Progress(Protocol):
    """Notes, warnings and progress, for people."""

    def note(self, sentence: str) -> None:
        """Say what is going on."""

    def warn(self, sentence: str) -> None:
        """Say what a careful user would want to know."""

    def task(self, description: str) -> AbstractContextManager[Tick]:
        """One piece of work that takes a while."""
        ...

    def done(self, result: object, seconds: float) -> None:
        """Hand over a part of the work (a store, spectra, a fitted method), and the seconds it took."""


class Silent:
    """Nobody listens."""

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


SILENT = Silent()
"""The usual listener of functions that are called from Python."""
