"""Run one benchmark or all: print the tables, write JSON and Markdown."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Result, Row
from benchmarks.machine import copy_rate, describe, matrix_rate

NAMES = (
    "tracing",
    "families",
    "epochs",
    "one_pass",
    "spectra",
    "adapted_inference",
    "fit_growth",
    "decoding",
    "somp",
    "similarity",
    "two_nn",
)
"""A benchmark is a module with a frozen dataclass `Sizes` (every field has a default and becomes a flag) and
`run(sizes) -> Result`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks named on the command line; 0, or argparse's 2."""
    modules = _modules(arguments)
    parsed = _parser(modules).parse_args(arguments)
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    console = Console(width=None if sys.stdout.isatty() else 140)
    report: dict[str, Any] = {"machine": {**describe(), **_rates()}, "benchmarks": []}
    machine, pages = report["machine"], []
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    for module in modules:
        given = {f.name: getattr(parsed, f.name) for f in fields(module.Sizes) if getattr(parsed, f.name) is not None}
        sizes = replace(module.Sizes(), **{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})
        start = time.perf_counter()
        result = module.run(sizes)
        seconds = time.perf_counter() - start
        console.print(_table(result))
        for limit in result.limits:
            console.print(f"  - {limit}")
        load = round(os.getloadavg()[0], 2)
        console.print(f"  {seconds:.0f} s in all; load average now {load}")
        report["benchmarks"].append({**result.as_json(), "seconds": round(seconds, 1), "load_average_after": load})
        pages.append(_markdown(result))
        # after each, so that results are kept if a later one is stopped
        if parsed.json:
            parsed.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if parsed.markdown:
            parsed.markdown.write_text("\n".join(pages), encoding="utf-8")
    return 0


def _modules(arguments: Sequence[str] | None) -> list[Any]:
    """The requested benchmarks; their modules define the flags, and importing one can take seconds."""
    asked = [word for word in (sys.argv[1:] if arguments is None else arguments) if word in NAMES]
    return [importlib.import_module(f"benchmarks.{name}") for name in asked[:1] or NAMES]


def _parser(modules: Sequence[Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="output file for everything, including raw times")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="output file for the tables")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    defaults: dict[str, dict[str, Any]] = {}
    for module in modules:
        short = module.__name__.rpartition(".")[2]
        for name, value in asdict(module.Sizes()).items():
            defaults.setdefault(name, {})[short] = value
    for name, values in defaults.items():
        value = next(iter(values.values()))
        several = isinstance(value, tuple)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=type(value[0] if several else value),
            nargs="+" if several else None,
            help=", ".join(f"{short}: {default}" for short, default in values.items()),
        )
    return parser


def _rates() -> dict[str, float]:
    return {
        "float32_gflops": round(matrix_rate(torch.float32)),
        "float64_gflops": round(matrix_rate(torch.float64)),
        "copy_gb_s": round(copy_rate(), 1),
    }


def _table(result: Result) -> Table:
    table = Table(title=f"{result.name}: {result.title}", title_justify="left", title_style="bold")
    for column in ("", "value", "95 % interval", "aim", ""):
        table.add_column(column, justify="right" if column in ("value", "95 % interval", "aim") else "left")
    for row in result.rows:
        table.add_row(row.what, f"{_digits(row.value)} {row.unit}".strip(), _interval(row), row.aim, row.note)
    return table


def _markdown(result: Result) -> str:
    lines = [
        f"### {result.name}: {result.title}",
        "",
        "| | value | 95 % interval | aim | |",
        "|---|---:|---:|---:|---|",
    ]
    for row in result.rows:
        value = f"{_digits(row.value)} {row.unit}".strip()
        lines.append(f"| {row.what.strip()} | {value} | {_interval(row)} | {row.aim} | {row.note} |")
    return "\n".join([*lines, "", *(f"- {limit}" for limit in result.limits), ""])


def _interval(row: Row) -> str:
    return "" if row.low is None or row.high is None else f"{_digits(row.low)} .. {_digits(row.high)}"


def _digits(value: float) -> str:
    """Four significant digits."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
