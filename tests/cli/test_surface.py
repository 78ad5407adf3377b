"""What holds for every command: fast help, flags with one meaning, exit codes, JSON that any program can read."""

from __future__ import annotations

import errno
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from residualign._messages import percent
from residualign.cli import exits, main
from residualign.cli.app import REQUESTS
from residualign.cli.commands import resume_command
from residualign.cli.console import as_json
from residualign.cli.views import bar, seconds
from residualign.commands._request import fields_of
from residualign.commands.adapt import AdaptRequest
from residualign.commands.sweep import SweepRequest
from residualign.errors import BadInputError, RunError
from residualign.fitting.methods import METHODS

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = (*REQUESTS, "models")


def test_help_imports_no_model_library() -> None:
    code = (
        "import sys; from residualign.cli import main; code = main(['--help']); "
        "heavy = {'torch', 'transformers', 'numpy', 'sklearn', 'PIL.Image'} & set(sys.modules); "
        "sys.exit(code or ','.join(heavy) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert all(command.split()[0] in ran.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_shows_no_value_for_a_switch(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    # arguments by their names alone, values of flags by their placeholders
    assert not [sign for sign in ("<", "{MODEL", "{DIR", "{STORE", "{DATA", "{NAME", "list[") if sign in told]


def test_the_contract_of_flags() -> None:
    """Names that other people's scripts rely on (and no flag that nobody knows of)."""
    flags = {one.flag for request in REQUESTS.values() for one in fields_of(request) if not one.is_argument}
    known = "seed quick overwrite skip-bad template classes classifier store reference shots method mean device"
    known += " dtype batch-size workers model out loss stream split unit format variance-threshold fraction"
    known += " subsamples seeds top component text dictionary words texts pairs matching"
    known += " same-space anchors score ablation heads keep-mlps compare adapter keep-components scaled basis"
    known += " start learning-rate repeats rest against"
    assert flags == {f"--{name}" for name in known.split()}


def test_the_help_lists_every_method() -> None:
    (option,) = [one for one in fields_of(REQUESTS["adapt"]) if one.flag == "--method"]
    assert all(name in str(option.parameter.help) for name in METHODS)


def test_the_page_of_flags_is_that_of_the_commands() -> None:
    """`python docs/make_flags.py` writes it."""
    page = runpy.run_path(str(DOCS / "make_flags.py"))["page"]()
    assert (DOCS / "flags.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInputError("x"), 2),
        (RunError("x"), 1),
        (MemoryError(), 1),
        (torch.OutOfMemoryError("CUDA out of memory"), 1),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), 1),
        (OSError(errno.ENOSPC, "no space"), 1),
    ],
)
def test_known_failures_have_a_code_and_a_sentence(error: Exception, code: int) -> None:
    explained = exits.explain(error)
    assert explained is not None
    assert explained[0] == code
    assert "\n" not in explained[1]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), OSError(errno.ENOENT, "a bug")])
def test_errors_of_ours_keep_their_traceback(error: Exception) -> None:
    assert exits.explain(error) is None


def test_the_command_to_go_on_with_starts_nothing_over() -> None:
    request = AdaptRequest(source="mini", data="my data", overwrite=True, out=Path("o"), shots=4)
    assert resume_command("adapt", request) == "residualign adapt mini 'my data' --out o --shots 4"
    assert resume_command("sweep", SweepRequest(source="store")) is None


def test_json_is_ascii_and_has_no_nan() -> None:
    text = as_json({"name": "<script> 🐶 \udc80", "values": (1.5, float("nan"), float("inf")), "none": None})
    assert text.isascii()
    assert json.loads(text) == {"name": "<script> 🐶 \udc80", "values": [1.5, None, None], "none": None}


def test_bars_and_figures() -> None:
    assert [len(bar(share / 97, 13)) for share in range(98)] == [13] * 98
    assert bar(0.0, 5) == bar(-1.0, 5) == "     "
    assert bar(1.0, 5) == bar(2.0, 5) == "█████"
    assert bar(0.5, 6, unicode=False) == "###   "
    assert (percent(0.7015), percent(None)) == ("70.2 %", "–")
    assert (seconds(3.21), seconds(125.0), seconds(None)) == ("3.2 s", "2 min 05 s", "–")
