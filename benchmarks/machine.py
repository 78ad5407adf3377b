"""The machine that was measured on, and how fast it multiplies and copies at best."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["copy_rate", "describe", "matrix_rate", "peak_rss_bytes"]


def describe() -> dict[str, Any]:
    """Processor, cores, threads, memory, load and versions; no host name and no path."""
    import psutil

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def matrix_rate(dtype: torch.dtype, size: int = 1024, repeats: int = 9) -> float:
    """Highest GFLOP/s observed for a product of two square matrices, with all threads."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: a @ b, repeats) / 1e9


@cache
def copy_rate(megabytes: int = 256, repeats: int = 5) -> float:
    """Highest GB/s observed for reading one tensor and writing another (both counted), larger than any cache."""
    source = torch.zeros(megabytes * 2**20 // 4)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), repeats) / 1e9


def _fastest(work: Callable[[], object], repeats: int) -> float:
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far.

    From VmHWM where there is one: `getrusage` counts the parent's memory from before the program was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if platform.system() == "Darwin" else peak * 1024)
