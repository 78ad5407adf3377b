"""How the work tells what it does, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

__all__ = ["Progress", "Silent", "Watcher"]

Progress = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""


@runtime_checkable
class Watcher(Protocol):
    """Notes, warnings and progress, for people."""

    def note(self, sentence: str) -> None:
        """What is going on."""

    def warn(self, sentence: str) -> None:
        """What a careful user would want to know."""

    def progress(self, description: str) -> AbstractContextManager[Progress]:
        """One piece of work that takes a while."""
        ...

    def done(self, result: object, seconds: float) -> None:
        """A part of the work is there (a store, spectra, a fitted method) and took this long."""


class Silent:
    """Nobody listens."""

    def note(self, sentence: str) -> None:
        """Nothing."""

    def warn(self, sentence: str) -> None:
        """Nothing."""

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress]:
        """Nothing."""
        yield lambda done, total: None

    def done(self, result: object, seconds: float) -> None:
        """Nothing."""
