"""How much memory this process took at most."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["peak_memory"]

_STATUS = Path("/proc/self/status")


def peak_memory() -> int | None:
    """Bytes of the largest resident set of this process so far; None where the system does not tell."""
    if _STATUS.exists():
        # getrusage would count what the parent held before this program was started
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
