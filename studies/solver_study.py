"""Which solver, start, mean and pull to fit with: every method on real data, full and few shots, several seeds.

    python -m studies.solver_study --model MODEL --data DATA --data DATA --reference DATA --scratch FOLDER

Missing stores are extracted into the scratch folder. Each result is appended to results.jsonl there at once,
so a run that was stopped can be resumed. The tables are printed at the end and written to tables.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from residualign.classification.classifier import linear_probe
from residualign.errors import BadInputError
from residualign.fitting.fit import FitSettings, few_images, fit_method
from residualign.fitting.methods import get_method
from residualign.fitting.solvers import LBFGS, Candidate, ScheduleFree, default_solver
from studies.solver_tables import tables
from studies.subjects import Subject, open_subjects


@dataclass(frozen=True)
class Way:
    """A named way to fit: a method with its options. seeded: whether the result depends on the seed."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    seeded: bool = False


PLAIN = LBFGS([Candidate()])
PULLED = LBFGS([Candidate({"lambdas": pull}) for pull in (0.0, 0.1, 1.0, 10.0)])
WHITENED = LBFGS([Candidate(whitening=0.5)])
NO_RACE = replace(default_solver(get_method("residual")), race=None)

WAYS = (
    Way("probe", "probe"),
    Way("residual, L-BFGS", "residual", {"solver": "lbfgs"}),
    Way("residual, L-BFGS, no race", "residual", {"solver": NO_RACE}),
    Way("residual, L-BFGS, no pull, no whitening", "residual", {"solver": PLAIN}),
    Way("residual, L-BFGS, pulls, no whitening", "residual", {"solver": PULLED}),
    Way("residual, L-BFGS, no pull, whitening 0.5", "residual", {"solver": WHITENED}),
    Way("residual, L-BFGS, randn", "residual", {"solver": "lbfgs", "start": "randn"}, seeded=True),
    Way("residual, L-BFGS, mean dropped", "residual", {"solver": "lbfgs", "mean": "drop"}),
    Way("residual, Schedule-Free", "residual", {"solver": "schedule-free"}, seeded=True),
    Way("residual, Schedule-Free 0.8", "residual", {"solver": ScheduleFree(0.8)}, seeded=True),
    Way("residual, Schedule-Free, pull 0.1", "residual", {"solver": ScheduleFree(pull={"lambdas": 0.1})}, seeded=True),
    Way("residual, Schedule-Free, randn", "residual", {"solver": "schedule-free", "start": "randn"}, seeded=True),
    Way("residual, Schedule-Free, mean dropped", "residual", {"solver": "schedule-free", "mean": "drop"}, seeded=True),
    Way(
        "residual, Schedule-Free 0.8, randn, mean dropped (the paper)",
        "residual",
        {"solver": ScheduleFree(0.8), "mean": "drop", "start": "randn"},
        seeded=True,
    ),
    Way("joint, L-BFGS", "joint", {"solver": "lbfgs"}),
    Way("joint, L-BFGS, mean dropped", "joint", {"solver": "lbfgs", "mean": "drop"}),
    Way("joint, Schedule-Free", "joint", {"solver": "schedule-free"}, seeded=True),
    Way("residual-heads, L-BFGS", "residual-heads", {"solver": "lbfgs"}),
    Way("residual-heads, L-BFGS, mean dropped", "residual-heads", {"solver": "lbfgs", "mean": "drop"}),
    Way("residual-heads, Schedule-Free", "residual-heads", {"solver": "schedule-free"}, seeded=True),
    Way(
        "residual-heads, Schedule-Free 0.8, randn, mean dropped (the paper)",
        "residual-heads",
        {"solver": ScheduleFree(0.8), "mean": "drop", "start": "randn"},
        seeded=True,
    ),
    Way("coarse, L-BFGS", "coarse", {"solver": "lbfgs"}),
    Way("coarse, Schedule-Free", "coarse", {"solver": "schedule-free"}, seeded=True),
    Way("spectral-output, L-BFGS", "spectral-output", {"solver": "lbfgs"}),
    Way("spectral-output, L-BFGS, mean dropped", "spectral-output", {"solver": "lbfgs", "mean": "drop"}),
    Way("spectral-output, Schedule-Free", "spectral-output", {"solver": "schedule-free"}, seeded=True),
    Way("linear, L-BFGS", "linear", {"solver": "lbfgs"}),
    Way("linear, Schedule-Free", "linear", {"solver": "schedule-free"}, seeded=True),
)


def run(subject: Subject, way: Way, shots: int | None, seed: int) -> dict[str, Any]:
    """One cell of the study, or the reason why it cannot be run."""
    cell = {"subject": subject.name, "way": way.name, "shots": shots, "seed": seed}
    began = time.process_time()
    try:
        if way.method == "probe":
            splits = map(few_images(subject.store, shots, seed).split, ("train", "val", "test"))
            probe = linear_probe(*((split.embeddings(), split.labels) for split in splits))
            found = {"adapted": probe.accuracy, "val": probe.val_accuracy, "zero_shot": None}
            cost = {"seconds": probe.seconds, "cpu_seconds": time.process_time() - began}
            return {**cell, **found, **cost, "parameters": probe.parameters}
        settings = FitSettings(shots=shots, seed=seed, **way.options)
        result = fit_method(subject.store, way.method, subject.spectra, settings=settings)
    except BadInputError as error:
        return {**cell, "refused": str(error)}
    chosen = {key: result.settings[key] for key in ("pull", "whitening") if key in result.settings}
    return {
        **cell,
        **result.accuracy,
        "seconds": result.seconds,
        "cpu_seconds": time.process_time() - began,
        "parameters": result.parameters,
        "epochs": result.epochs,
        "learning_rate": result.learning_rate,
        **chosen,
    }


def cells(
    subjects: list[Subject], shots: list[int | None], seeds: int
) -> Iterator[tuple[Subject, Way, int | None, int]]:
    """Every cell, the first seed of everything first; cells that do not depend on the seed are run once."""
    for seed in range(seeds):
        for way in WAYS:
            for number in shots:
                for subject in subjects:
                    if seed == 0 or way.seeded or number is not None:
                        yield subject, way, number, seed


def main() -> None:
    """Read the arguments, run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model name or directory")
    parser.add_argument("--data", action="append", required=True, help="a data set (can be repeated)")
    parser.add_argument(
        "--reference",
        help="data set whose training split gives the components (default: spectra of the model, else each data set)",
    )
    parser.add_argument("--scratch", type=Path, required=True, help="directory for stores and results")
    parser.add_argument("--sizes", default="2000,500,2000", help="maximum number of train, val and test images")
    parser.add_argument("--shots", default="full,16,4,1", help="images per class, or full")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop starting new cells after this many minutes"
    )
    parser.add_argument("--only", default="", help="run only ways whose name contains this")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    sizes = tuple(int(size) for size in arguments.sizes.split(","))
    shots = [None if number == "full" else int(number) for number in arguments.shots.split(",")]
    subjects = open_subjects(arguments.model, arguments.data, arguments.reference, sizes, arguments.scratch, _say)

    path = arguments.scratch / "results.jsonl"
    done = {_key(record): record for record in _read(path)}
    for subject, way, number, seed in cells(subjects, shots, arguments.seeds):
        cell = {"subject": subject.name, "way": way.name, "shots": number, "seed": seed}
        if _key(cell) in done or arguments.only not in way.name:
            continue
        if time.monotonic() - began > 60 * arguments.minutes:
            _say("out of time; run the same command again to continue")
            break
        record = run(subject, way, number, seed)
        done[_key(record)] = record
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        _say(f"{_key(record)}: {record.get('refused', record.get('adapted'))}")
    text = tables(list(done.values()), [way.name for way in WAYS])
    (arguments.scratch / "tables.md").write_text(text, encoding="utf-8")
    print(text)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("subject", "way", "shots", "seed"))


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
