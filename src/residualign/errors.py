"""The errors a user can mend, and those that happen while running."""

__all__ = ["BadInputError", "RunError"]


class BadInputError(ValueError):
    """Something the caller gave cannot be used: one sentence that names it, what was expected and what came.

    The command line ends with exit code 2 and prints the sentence alone.
    """


class RunError(RuntimeError):
    """The input was good but the work could not be finished (disk full, output not writable, out of memory).

    The command line ends with exit code 1 and prints the sentence alone. What was done stays on disk.
    """
