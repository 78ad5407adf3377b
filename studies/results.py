"""The results table: every method with its defaults, and the linear probe, on real data.

    python -m studies.results --model MODEL --data DATA --data DATA [--reference DATA] --scratch FOLDER --json FILE

Missing stores are extracted into the scratch folder, one per data set, with at most as many images as --sizes says.
Spectra come from --reference, else from those that come with the model, else from the data's training split.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import residualign as ra
from residualign.classification.classifier import linear_probe
from residualign.fitting.methods import METHODS
from studies.subjects import Subject, open_subjects


def measure(subject: Subject, kind: str | None) -> list[dict[str, Any]]:
    """One row per method, the probe last: accuracy on test and val in [0, 1], number of parameters, seconds to fit."""
    rows: list[dict[str, Any]] = []
    store = subject.store.in_memory()
    for method in METHODS:
        with warnings.catch_warnings():
            # warnings that text vectors coincide, which some of these tables show anyway
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            adapter = ra.fit(store, method=method, spectra=subject.spectra, classifier=kind)
        rows.append(
            {
                "data": subject.name,
                "classifier": adapter.classifier.kind,
                "method": method,
                "parameters": adapter.parameters,
                "seconds": time.perf_counter() - began,
                **adapter.accuracy,
            }
        )
        _say(rows[-1])
    splits = [store.split(name) for name in ("train", "val", "test")]
    probe = linear_probe(*((split.embeddings(), split.labels) for split in splits))
    rows.append(
        {
            "data": subject.name,
            "method": "linear probe",
            "parameters": probe.parameters,
            "seconds": probe.seconds,
            "adapted": probe.accuracy,
            "val": probe.val_accuracy,
        }
    )
    _say(rows[-1])
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line per data set, one column per method: test accuracy; below each, parameters and seconds."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = ["| data | before | " + " | ".join(methods) + " |", "|---" * (len(methods) + 2) + "|"]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = {row["method"]: row for row in rows if row["data"] == data}
        before = own[methods[0]]
        accuracy = " | ".join(f"{own[method]['adapted']:.3f}" for method in methods)
        cost = " | ".join(f"{own[method]['parameters']:,} · {own[method]['seconds']:.1f} s" for method in methods)
        lines.append(f"| {data} ({before['classifier']}) | {before['zero_shot']:.3f} | {accuracy} |")
        lines.append(f"| parameters · seconds | | {cost} |")
    return "\n".join(lines)


def _say(row: dict[str, Any]) -> None:
    print(row["data"], row["method"], f"{row['adapted']:.3f}", f"{row['seconds']:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--reference")
    parser.add_argument("--classifier", choices=["text", "means"])
    parser.add_argument("--sizes", type=int, nargs=3, default=(2000, 500, 2000), metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for subject in open_subjects(
        args.model,
        args.data,
        args.reference,
        tuple(args.sizes),
        args.scratch,
        lambda text: print(text, file=sys.stderr),
    ):
        rows += measure(subject, args.classifier)
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
