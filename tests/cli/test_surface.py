"""What holds for every command: fast help, flags with one meaning, exit codes, JSON that any program can read."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest
import torch
import typer

from residualign.cli import app, exits, main, options
from residualign.cli.console import as_json
from residualign.cli.views import bar, percent, seconds
from residualign.errors import BadInputError, RunError
from residualign.fitting.methods import METHODS

COMMANDS = (
    "demo",
    "extract",
    "adapt",
    "classify",
    "evaluate",
    "report",
    "decompose",
    "geometry",
    "similarity",
    "explain",
    "select",
    "ablate",
    "where",
    "lambdas",
    "models",
    "models check",
    "data",
)


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


def test_flags_mean_one_thing_everywhere() -> None:
    """A flag has one help text, whatever command it is on; --out names a folder or a file."""
    texts: dict[str, set[str]] = {}
    commands = list(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]
    for command in commands:
        # the commands below one come after it in the same list
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            for flag in parameter.opts:
                if flag.startswith("--") and flag != "--help":
                    texts.setdefault(flag, set()).add(parameter.help)
    assert {flag for flag, told in texts.items() if len(told) > 1} == {"--out"}
    known = "json seed quick overwrite skip-bad template classes classifier store reference shots method mean device"
    known += " dtype batch-size workers model out loss stream split unit format threshold fraction"
    known += " subsamples seeds top component text dictionary words texts variance pairs matching"
    known += " same-space anchors score ablation heads keep-mlps compare adapter components scaled basis"
    known += " start learning-rate repeats rest against"
    assert set(texts) == {f"--{name}" for name in known.split()}


def test_the_help_lists_every_method() -> None:
    (option,) = options.Methods.__metadata__
    assert all(name in option.help for name in METHODS)


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
    sentence = exits.resume_sentence(["adapt", "mini", "my data", "--overwrite", "--out", "o"])
    assert sentence.endswith("go on with: residualign adapt mini 'my data' --out o")
    assert exits.resume_sentence(["classify", "dir", "x.png"]) == "interrupted"


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
