"""Runs one function in a new process, so that its peak memory can be measured alone."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.machine import peak_rss_bytes

__all__ = ["in_fresh_process", "main"]


def in_fresh_process(function: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    """What the function returns (JSON-able), and `peak_rss_bytes` of the process: interpreter, torch and all.

    `base_rss_bytes` is the peak before the function ran, with its module imported.
    """
    import torch

    call = {"module": function.__module__, "function": function.__name__, "arguments": arguments}
    call["threads"] = torch.get_num_threads()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh"], input=json.dumps(call), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{function.__name__}({arguments}) failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Read a call from stdin, answer on stdout."""
    import torch

    call = json.load(sys.stdin)
    torch.set_num_threads(call["threads"])
    function = getattr(importlib.import_module(call["module"]), call["function"])
    base = peak_rss_bytes()
    answer = function(**call["arguments"])
    print(json.dumps({**answer, "base_rss_bytes": base, "peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
