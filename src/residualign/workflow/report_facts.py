"""How a run was made: what a reader needs to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from residualign.report.contents import Fact

__all__ = ["made_facts"]

_SETTINGS = ("classifier", "solver", "mean", "rest", "start", "shots", "threshold", "loss", "logit_scale")


def made_facts(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Facts from the summary of a run and the settings of its method, in the order a reader asks for them."""
    made, prints = summary["made_with"], summary["fingerprints"]
    pairs: list[tuple[str, Any]] = [
        ("command", shlex.join(made["command"]) if made.get("command") else "from Python"),
        ("model", summary["model"]),
        ("data", summary["data"]),
        ("splits", f"{summary['split_rule']}: {_sizes(summary)}"),
        ("prompts", "; ".join(summary.get("templates", ()))),
        ("components from", f"{summary['reference']} ({summary['n_reference']:,} images; {summary['reference_kind']})"),
        ("method", summary["chosen"]),
        *((name.replace("_", " "), settings.get(name)) for name in _SETTINGS),
        ("seed", summary["seed"]),
        ("sum check", f"units sum to the model's output within {summary['residual_error']:.0e}"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())),
        ("images left out", summary["n_skipped"] or None),
        ("versions", ", ".join(f"{name} {value}" for name, value in made.items() if name != "command")),
        *((f"{name} fingerprint", value) for name, value in prints.items()),
    ]
    return tuple(Fact(name, _text(value)) for name, value in pairs if value not in (None, ""))


def _sizes(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {summary[f'n_{name}']:,}" for name in ("train", "val", "test") if f"n_{name}" in summary)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
