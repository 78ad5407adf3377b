"""The command `residualign`: reads arguments, calls the library, prints. No mathematics here."""

# nothing slow is imported up here: from the first moment on, Ctrl-C has to end in a sentence
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

__all__ = ["main"]

_INTERRUPTED = 130
"""As in `residualign.cli.exits`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see `residualign.cli.exits`.

    Without `arguments` it is the command of this process (`sys.argv`), and handles Ctrl-C for it.
    """
    ctrl_c = _CtrlC()
    try:
        if arguments is None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, ctrl_c)
        # imported here: typer, rich and the commands take a while, and may be interrupted
        from residualign.cli.run import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return _interrupted()
    except Exception:
        # a library that is interrupted while it is imported may fail with an error of its own instead
        if not ctrl_c.pressed:
            raise
        return _interrupted()
    finally:
        ctrl_c.leaving = True


class _CtrlC:
    """Handles SIGINT: `KeyboardInterrupt`, as usual, and remembers it. leaving: all is said, and Python shuts down."""

    pressed = leaving = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.leaving:
            os._exit(_INTERRUPTED)
        self.pressed = True
        raise KeyboardInterrupt


def _interrupted() -> int:
    sys.stderr.write("interrupted\n")
    return _INTERRUPTED
