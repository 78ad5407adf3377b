"""Which images are for training, validation and testing: the one place that says so.

Splits that a source has are used as they are. Those it lacks are split off its training images, class by class:

| the source has | val | test | train |
|---|---|---|---|
| no splits, or train alone | 10 % | 20 % | the other 70 % |
| train and test | 10 % of train | its own | the other 90 % |
| train and val | its own | 20 % of train | the other 80 % |
| all three | its own | its own | its own |
| no train | what it has | what it has | empty |

*Counts.* Of a class of n images a share p takes round(p n), but at least one; test takes before val, and train keeps at
least one. So a class of three or more is in every split, one of two is in train and the first that takes, and one of a
single image is in train alone.

*Order.* The images of a class, as the source orders them, are drawn in the order of random 64-bit numbers: `PCG64`
seeded with (seed, class, purpose). The raw stream of a NumPy bit generator never changes, so the choice is the same on
every machine and NumPy, and the choice within one class does not hang on the other classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from residualign.data.split import Split
from residualign.errors import BadInputError

__all__ = ["FewShots", "complete_splits", "few_shot"]

_HELD_OUT = {"test": 0.2, "val": 0.1}
_SPLITTING, _SHOTS = 1, 2  # purposes: a few-shot draw must not follow the order of the split it draws from


def complete_splits(
    own: Mapping[str, Split], seed: int, class_names: Sequence[str]
) -> tuple[dict[str, Split], str, tuple[str, ...]]:
    """All three splits, by the table above; then the rule in words, and notes on classes too small for every split."""
    check_seed(seed)
    splits = {name: own.get(name, Split.empty(name)) for name in ("train", "val", "test")}
    missing = [name for name in _HELD_OUT if name not in own]
    if "train" not in own or not missing:
        present = [name for name in splits if name in own]
        return splits, "own" if len(present) == len(splits) else f"own ({', '.join(present)} only)", ()
    parts = _held_out(splits["train"], {name: _HELD_OUT[name] for name in missing}, seed)
    source = splits["train"]
    for name, indices in parts.items():
        splits[name] = source.take(indices, name=name)
    counts = source.class_counts(len(class_names))
    small = [name for name, count in zip(class_names, counts, strict=True) if 0 < count <= len(missing)]
    notes = (f"{_listed(small)} too few images to be in every split",) if small else ()
    if len(missing) == 2:
        return splits, f"stratified 70/10/20, seed {seed}", notes
    (name,) = missing
    return splits, f"own, {name} from train (stratified {_HELD_OUT[name]:.0%}, seed {seed})", notes


def _held_out(split: Split, shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Positions for every name in `shares`, and for "train" what is left; each list ascending."""
    parts: dict[str, list[int]] = {name: [] for name in (*shares, "train")}
    for label, positions in _by_class(split.labels).items():
        drawn = _drawn(positions, seed, label, _SPLITTING)
        for name, share in shares.items():
            count = min(max(1, int(share * len(positions) + 0.5)), len(drawn) - 1)
            parts[name] += drawn[:count]
            drawn = drawn[count:]
        parts["train"] += drawn
    return {name: sorted(indices) for name, indices in parts.items()}


@dataclass(frozen=True)
class FewShots:
    """Positions of the chosen images, ascending; and a note where a class has fewer than were asked for."""

    indices: tuple[int, ...]
    notes: tuple[str, ...] = ()


def few_shot(
    images: Split | Sequence[int], shots: int, seed: int = 42, *, class_names: Sequence[str] | None = None
) -> FewShots:
    """Choose at most `shots` images of each class, in the order that the module's text states.

    images is a split, or its labels alone: only their order counts. `split.take(few_shot(split, 4).indices)` is the
    smaller split. A class with fewer images gives all it has, and a note says so. The choice for k shots is part of the
    choice for k + 1 under the same seed. Raises `BadInputError` where `shots` is below 1 or a class has no image at
    all; without `class_names` the classes are 0 to the largest label.

    >>> few_shot([0, 0, 0, 1, 1, 1], shots=3).indices
    (0, 1, 2, 3, 4, 5)
    """
    check_seed(seed)
    if shots < 1:
        raise BadInputError(f"shots must be at least 1 image a class, got {shots}")
    labels = images.labels if isinstance(images, Split) else tuple(int(label) for label in images)
    if not labels:
        raise BadInputError(f"cannot choose {shots} images a class: there are no images")
    names = tuple(str(label) for label in range(max(labels) + 1)) if class_names is None else tuple(class_names)
    positions = _by_class(labels)
    empty = [name for label, name in enumerate(names) if label not in positions]
    if empty:
        raise BadInputError(f"cannot choose {shots} images a class: {_listed(empty)} no image to choose from")
    chosen = [i for label, own in positions.items() for i in _drawn(own, seed, label, _SHOTS)[:shots]]
    small = [name for label, name in enumerate(names) if len(positions[label]) < shots]
    notes = (f"{_listed(small)} fewer than {shots} images; all of them are used",) if small else ()
    return FewShots(tuple(sorted(chosen)), notes)


def check_seed(seed: int) -> None:
    """Raise `BadInputError` for a negative seed, which NumPy's generators do not take."""
    if seed < 0:
        raise BadInputError(f"seed must be 0 or larger, got {seed}")


def _by_class(labels: Sequence[int]) -> dict[int, list[int]]:
    """Positions of each class, ascending; classes ascending."""
    positions: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        positions.setdefault(label, []).append(i)
    return dict(sorted(positions.items()))


def _drawn(positions: Sequence[int], seed: int, label: int, purpose: int) -> list[int]:
    numbers = np.random.PCG64([seed, label, purpose]).random_raw(len(positions))
    return [positions[i] for i in np.argsort(numbers, kind="stable")]


def _listed(names: Sequence[str], most: int = 5) -> str:
    """`class 'a' has`, `classes 'a', 'b' have`, and no more than a few names."""
    shown = ", ".join(repr(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"class {shown} has" if len(names) == 1 else f"classes {shown}{more} have"
