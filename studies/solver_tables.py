"""The tables of the solver study: means over seeds, and the number of runs behind each row."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

__all__ = ["tables"]


def tables(records: list[dict[str, Any]], ways: list[str]) -> str:
    """One Markdown table per number of shots, with rows in the order of `ways`.

    Test accuracy by subject, then means over subjects of test and validation accuracy and seconds.
    """
    blocks = []
    for shots in sorted(
        {record["shots"] for record in records}, key=lambda number: (number is not None, -(number or 0))
    ):
        chosen = [record for record in records if record["shots"] == shots]
        title = "All training images" if shots is None else f"{shots} shots"
        blocks.append(f"### {title}\n\n{_table(chosen, ways)}")
    return "\n\n".join(blocks) + "\n"


def _table(records: list[dict[str, Any]], ways: list[str]) -> str:
    subjects = list(dict.fromkeys(record["subject"] for record in records))
    rows: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    refused = {}
    for record in records:
        if "refused" in record:
            refused[record["way"]] = record["refused"]
        else:
            rows[record["way"]][record["subject"]].append(record)
    heads = ["way", *subjects, "mean test", "mean val", "CPU seconds", "runs"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    zero_shot = {s: _mean(rows.get("residual, L-BFGS", {}).get(s, []), "zero_shot") for s in subjects}
    if all(value is not None for value in zero_shot.values()) and subjects:
        lines.append(_row("(before adapting)", list(zero_shot.values()), None, None, ""))
    for way in ways:
        cells = rows.get(way)
        if not cells:
            continue
        test = [_mean(cells.get(subject, []), "adapted") for subject in subjects]
        val = _over([_mean(cells.get(subject, []), "val") for subject in subjects])
        seconds = _over([_mean(cells.get(subject, []), "cpu_seconds") for subject in subjects])
        lines.append(_row(way, test, val, seconds, str(sum(len(cell) for cell in cells.values()))))
    lines += [f"\nRefused: {way}: {reason}" for way, reason in list(refused.items())[:1]]
    return "\n".join(lines)


def _row(name: str, test: list[float | None], val: float | None, seconds: float | None, runs: str) -> str:
    shown = [_three(value) for value in [*test, _over(test), val]]
    return "| " + " | ".join([name, *shown, "" if seconds is None else f"{seconds:.1f}", runs]) + " |"


def _mean(records: list[dict[str, Any]], key: str) -> float | None:
    """The mean over the runs that have it."""
    known = [record[key] for record in records if record.get(key) is not None]
    return sum(known) / len(known) if known else None


def _over(values: list[float | None]) -> float | None:
    """The mean over subjects; None unless every subject has been run."""
    if not values or any(value is None for value in values):
        return None
    return sum(value for value in values if value is not None) / len(values)


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
