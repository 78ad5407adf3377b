"""Ctrl-C before a command runs, and again while the process ends: one sentence, exit code 130, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# SIGINT at the import of one module; `swallow`: that import then fails with an error of its own
_SCRIPT = """
import atexit, signal, sys
from residualign.cli import main

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                if {swallow}:
                    raise RecursionError("maximum recursion depth exceeded") from None
                raise

sys.meta_path.insert(0, Press())
if {again}:
    atexit.register(signal.raise_signal, signal.SIGINT)
sys.argv = ["residualign", "adapt", "mini", "digits", "--out", {out!r}]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "swallow", "again"),
    [("typer", False, False), ("typer", False, True), ("torch", False, False), ("torch", True, False)],
)
def test_ctrl_c_during_imports(tmp_path: Path, module: str, swallow: bool, again: bool) -> None:
    script = _SCRIPT.format(module=module, swallow=swallow, again=again, out=str(tmp_path / "out"))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr.startswith("interrupted"), ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""
