"""Where output goes: results to stdout, everything else to stderr; with --json, one JSON object to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

from residualign._files import plain
from residualign._messages import sentence as told
from residualign._messages import visible
from residualign._progress import Tick

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Out", "as_json", "error_console"]

_PIPE_WIDTH = 400

_THEME = Theme(
    {
        "accent": "cyan",
        "good": "green",
        "bad": "red",
        "warn": "yellow",
        "title": "bold",
        "heading": "bold cyan",
        "quiet": "bright_black",
    }
)


class _VisibleConsole(Console):
    """Shows control and format characters of names as escapes, wherever they come from; its own colors are no text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment("\n".join(map(visible, segment.text.split("\n"))), segment.style)


class Out:
    """The two streams of one command.

    `show` prints for people and is silent under `--json`; `finish` prints the JSON object and is silent without it;
    `note` and `warn` always go to stderr.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.stdout = _console(stderr=False)
        self.stderr = error_console()
        self._bar: Bar | None = None

    def show(self, *renderables: RenderableType) -> None:
        """Print results for people. A progress bar is hidden meanwhile, because both may share a terminal."""
        if self.as_json:
            return
        if self._bar is not None:
            self._bar.stop()
        for renderable in renderables:
            self.stdout.print(renderable, highlight=False)
        if self._bar is not None:
            self.stdout.file.flush()
            self._bar.start()

    def finish(self, payload: Mapping[str, Any]) -> None:
        """Print the one JSON object."""
        if self.as_json:
            sys.stdout.write(as_json(payload) + "\n")
            sys.stdout.flush()

    def note(self, sentence: str) -> None:
        """Print a note on stderr."""
        self.stderr.print(Text(told(sentence), style="quiet"), soft_wrap=True)

    def warn(self, sentence: str) -> None:
        """Print a warning on stderr."""
        self.stderr.print(Text.assemble(("warning: ", "warn"), told(sentence)), soft_wrap=True)

    def error(self, sentence: str) -> None:
        """Print why one of several items failed, where the command continues with the next."""
        self.stderr.print(Text.assemble(("error: ", "bad"), told(sentence)), soft_wrap=True)

    def done(self, result: object, seconds: float) -> None:
        """Do nothing: most commands print results at their end."""

    @contextmanager
    def task(self, description: str) -> Iterator[Tick]:
        """A progress bar on stderr that disappears when the work is done; none if stderr is not a terminal."""
        if not self.stderr.is_terminal:
            yield lambda done, total: None
            return
        # imported here because a command that fails at once needs no bar
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(style="quiet", complete_style="accent", finished_style="accent", pulse_style="quiet"),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=self.stderr, transient=True) as self._bar:
            bar = self._bar
            row = bar.add_task(description, total=None)
            try:
                yield lambda done, total: bar.update(row, completed=done, total=total)
            finally:
                self._bar = None


def error_console() -> Console:
    """The console of stderr."""
    return _console(stderr=True)


def as_json(payload: Mapping[str, Any]) -> str:
    """One JSON object in ASCII, whatever class names and paths contain; numbers that are not finite become null."""
    return json.dumps(plain(payload), ensure_ascii=True, allow_nan=False)


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # a pipe has no width, and its output must not be truncated
    width = None if stream.isatty() else _PIPE_WIDTH
    return _VisibleConsole(file=stream, theme=_THEME, highlight=False, emoji=False, markup=False, width=width)
