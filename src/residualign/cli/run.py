"""Run one command line in this process: settle the environment, call the command, say what failed."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.text import Text

from residualign._messages import sentence as told
from residualign.cli.app import app
from residualign.cli.commands import Interrupted
from residualign.cli.console import error_console
from residualign.cli.exits import INTERRUPTED, explain, interrupted_sentence

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; see `residualign.cli.exits`."""
    _settle_the_environment()
    _never_fail_to_print()
    try:
        with _warnings_as_sentences():
            app(list(arguments), prog_name="residualign")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            # Ctrl-C while typer read the arguments
            _say("", interrupted_sentence(None))
        return stop.code if isinstance(stop.code, int) else 0
    except Interrupted as interrupted:
        # not cut: the command in it is to be given again
        _say("", interrupted_sentence(interrupted.again, interrupted.kept))
        return INTERRUPTED
    except KeyboardInterrupt:
        _say("", interrupted_sentence(None))
        return INTERRUPTED
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        explained = explain(error)
        if explained is None:
            raise
        code, sentence = explained
        _say("error: ", told(sentence))
        return code
    return 0


def _say(prefix: str, sentence: str) -> None:
    error_console().print(Text.assemble((prefix, "bad"), sentence), soft_wrap=True)


def _settle_the_environment() -> None:
    """Set environment variables that libraries read at import; values set by the user are kept.

    Waiting threads sleep instead of spinning: many steps here are short, and on a busy machine spinning threads wait
    for each other (one pass took 90 seconds instead of nine). The hub client does not log its retries: without a
    network one sentence is enough.
    """
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("OPENBLAS_NUM_THREADS", "1"), ("HF_HUB_VERBOSITY", "error")):
        os.environ.setdefault(name, value)


def _never_fail_to_print() -> None:
    """Print an escape for a character of a class name that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Print `UserWarning`s as one line on stderr, without file and line number; leave others to Python."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning):
            error_console().print(Text.assemble(("warning: ", "warn"), told(str(message))), soft_wrap=True)
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=UserWarning)
        warnings.showwarning = show
        yield
