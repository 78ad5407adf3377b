"""Which failure ends with which exit code and sentence: the one place that says so.

| exit code | when |
|---|---|
| 0 | the work is done |
| 1 | a failure while running: disk full, output not writable, out of memory; an internal error, with its traceback |
| 2 | bad input: what was typed or what it names cannot be used |
| 130 | Ctrl-C |
"""

from __future__ import annotations

import sys

from residualign.errors import BadInputError, RunError, system_reason

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "explain", "interrupted_sentence"]

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# what the CPU allocators of torch say; they raise a plain RuntimeError
_ALLOCATOR_SAYS = ("can't allocate memory", "not enough memory", "out of memory")


def explain(error: BaseException) -> tuple[int, str] | None:
    """Exit code and sentence for a failure of a known kind; None for one that is an error of ours."""
    if isinstance(error, BadInputError):
        return BAD_INPUT, str(error)
    if isinstance(error, RunError):
        return FAILED, str(error)
    if _is_out_of_memory(error):
        return FAILED, "out of memory; a smaller --batch-size, fewer --workers or float32 in place of float64 need less"
    if isinstance(error, OSError) and (reason := system_reason(error)) is not None:
        where = f" ({error.filename})" if error.filename else ""
        return FAILED, f"{reason}{where}"
    return None


def interrupted_sentence(again: str | None) -> str:
    """What to say after Ctrl-C. again: the command that goes on from what was done; None where nothing is kept."""
    return "interrupted" if again is None else f"interrupted; completed work is kept. To resume: {again}"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # no command may import torch only to ask this: without it nothing of its kind was raised
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATOR_SAYS)
