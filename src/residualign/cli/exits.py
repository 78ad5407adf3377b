"""Exit codes and messages of failures, defined here and nowhere else.

| exit code | when |
|---|---|
| 0 | the work is done |
| 1 | a failure while running: disk full, output not writable, out of memory; an internal error, with its traceback |
| 2 | bad input: an argument, or what it names, cannot be used |
| 130 | Ctrl-C |
"""

from __future__ import annotations

import re
import sys

from residualign.errors import BadInputError, RunError, system_reason

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "explain", "interrupted_sentence"]

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# messages of torch's CPU allocators, which raise a plain RuntimeError
_ALLOCATOR_SAYS = ("can't allocate memory", "not enough memory", "out of memory")


def explain(error: BaseException) -> tuple[int, str] | None:
    """Exit code and message for a known kind of failure; None for any other, which is a bug."""
    if isinstance(error, BadInputError):
        return BAD_INPUT, _in_flags(str(error))
    if isinstance(error, RunError):
        return FAILED, str(error)
    if _is_out_of_memory(error):
        return FAILED, "out of memory; try a smaller --batch-size, fewer --workers, or float32 instead of float64"
    if isinstance(error, OSError) and (reason := system_reason(error)) is not None:
        where = f" ({error.filename})" if error.filename else ""
        return FAILED, f"{reason}{where}"
    return None


def interrupted_sentence(again: str | None, kept: bool = False) -> str:
    """The message after Ctrl-C. again: the command to give again, if it can resume. kept: whether work was kept."""
    if again is None:
        return "interrupted"
    if kept:
        return f"interrupted; completed work is kept. To resume: {again}"
    return f"interrupted before anything was completed. To start again: {again}"


def _in_flags(sentence: str) -> str:
    """A sentence of the library, which names its arguments, with flags in their place."""
    return re.sub(r'\bdtype="(\w+)"', r"--dtype \1", sentence.replace("skip_bad=True", "--skip-bad"))


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # torch is not imported to check this: an error of its own can only come from a loaded torch
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_SAYS)
