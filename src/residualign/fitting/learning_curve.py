"""The history of a fit as curves: one for each run that validation chose among."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CurvePoint", "LearningCurve", "learning_curve"]

_STEPS = ("iteration", "epoch", "learning_rate")


@dataclass(frozen=True)
class CurvePoint:
    """One validation. step: an iteration or epoch, counted from 1, or a learning rate; losses are mean cross-entropies.

    train_loss: None where only validation was looked at. val_loss: None where it was not finite. val_accuracy: a share
    in [0, 1], None where it was not measured. seconds: since the fit began (of one rate: what trying it took).
    """

    step: float
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float | None


@dataclass(frozen=True)
class LearningCurve:
    """One run of a solver. candidate: what sets it apart, in words; empty where there was no other.

    step_name: what a step is: `iteration`, `epoch`, or `learning_rate` for the search before the fit.
    """

    solver: str
    candidate: str
    step_name: str
    points: tuple[CurvePoint, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a point, for a table."""
        own = {"solver": self.solver, "candidate": self.candidate, "step_name": self.step_name}
        return [own | asdict(point) for point in self.points]


def learning_curve(history: Sequence[Mapping[str, Any]]) -> tuple[LearningCurve, ...]:
    """The curves in a history (`Adapter.history`, the lines of `history.jsonl`), in the order they were run.

    A record that has no known step (an adapter that was not fitted here) starts no curve and is left out.
    """
    curves: dict[tuple[str, str, str], list[CurvePoint]] = {}
    for record in history:
        step_name = next((name for name in _STEPS if name in record), None)
        if step_name is None:
            continue
        key = (str(record.get("solver", "")), _candidate(record), step_name)
        names = ("train_loss", "val_loss", "val_accuracy", "seconds")
        values = (None if record.get(name) is None else float(record[name]) for name in names)
        curves.setdefault(key, []).append(CurvePoint(float(record[step_name]), *values))
    return tuple(LearningCurve(*key, tuple(points)) for key, points in curves.items())


def _candidate(record: Mapping[str, Any]) -> str:
    """What L-BFGS let validation choose from: `pull lambdas 0.1, whitening 0.25`."""
    pulls = [f"pull {name.replace('_', ' ')} {_short(value)}" for name, value in (record.get("pull") or {}).items()]
    whitening = [f"whitening {_short(record['whitening'])}"] if "whitening" in record else []
    return ", ".join(pulls + whitening)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"
