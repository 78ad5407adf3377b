"""What is said when a library cannot load a model, whatever it raised."""

from __future__ import annotations

import errno

from residualign.errors import BadInputError

__all__ = ["not_loaded"]

# of the machine, not of the model: these keep their own exit code and sentence
_FULL = (errno.ENOSPC, errno.EDQUOT)


def not_loaded(name: str, how: str, error: Exception) -> BadInputError:
    """One sentence with the first line of what the library said; a full disk or memory behind it is raised as it is."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MemoryError) or (isinstance(link, OSError) and link.errno in _FULL):
            raise link
        link = link.__cause__ or link.__context__
    said = str(error).strip()
    reason = said.splitlines()[0] if said else type(error).__name__
    return BadInputError(f"model {name!r} could not be loaded {how}: {reason}")
