"""The shape of the source: sizes of files, folders and signatures, and no circle between any two modules.

Who may import whom is stated by the contracts in `pyproject.toml`, which `lint-imports` checks.
"""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import residualign

SOURCE = Path(residualign.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# the share of all lines that a folder may have
LARGEST = 0.12


def test_no_circle_of_modules() -> None:
    graph = grimp.build_graph("residualign", cache_dir=None)
    order = TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_no_long_file() -> None:
    long = {str(path.relative_to(SOURCE)): n for path in FILES if (n := _lines(path)) > 420}
    assert not long, f"ask which second idea has moved in: {long}"


def test_no_large_folder() -> None:
    lines: Counter[str] = Counter()
    for path in FILES:
        lines[path.relative_to(SOURCE).parts[0]] += _lines(path)
    shares = {room: n / lines.total() for room, n in lines.items()}
    large = {room: f"{share:.1%}" for room, share in shares.items() if share > LARGEST}
    assert not large


def test_no_function_of_many_parameters() -> None:
    many = {
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _n_parameters(node) > 10
    }
    assert not many


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _n_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)
