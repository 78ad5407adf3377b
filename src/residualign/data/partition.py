"""Which images are used for training, validation and testing.

Splits that a source has are used unchanged. Missing ones are split off its training images, class by class:

| the source has | val | test | train |
|---|---|---|---|
| no splits, or train alone | 10 % | 20 % | the other 70 % |
| train and test | 10 % of train | its own | the other 90 % |
| train and val | its own | 20 % of train | the other 80 % |
| all three | its own | its own | its own |
| no train | what it has | what it has | empty |

*Counts.* From a class of n images a split with share p takes round(p n), but at least one; test takes before val, and
train keeps at least one. So a class of three or more images is in every split, a class of two is in train and in the
first split that takes, and a class of one is in train only.

*Order.* The images of a class, in the source's order, are drawn in the order of random 64-bit numbers: `PCG64` seeded
with (seed, class, 1). NumPy guarantees the raw stream of a bit generator, so the choice is the same on every machine
and with every NumPy version, and the choice within one class does not depend on the other classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from residualign.data.split import Split
from residualign.errors import BadInputError

__all__ = ["complete_splits"]

_HELD_OUT = {"test": 0.2, "val": 0.1}
_PURPOSE = 1  # part of the seed, so that other draws do not follow this order


def complete_splits(
    own: Mapping[str, Split], seed: int, class_names: Sequence[str]
) -> tuple[dict[str, Split], str, tuple[str, ...]]:
    """All three splits by the table above, the rule in words, and notes on classes too small for every split."""
    if seed < 0:
        raise BadInputError(f"seed must be 0 or larger, got {seed}")
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
    """Positions for every name in `shares`, and for "train" the rest; each list ascending."""
    parts: dict[str, list[int]] = {name: [] for name in (*shares, "train")}
    for label, positions in _by_class(split.labels).items():
        drawn = _drawn(positions, seed, label)
        for name, share in shares.items():
            count = min(max(1, int(share * len(positions) + 0.5)), len(drawn) - 1)
            parts[name] += drawn[:count]
            drawn = drawn[count:]
        parts["train"] += drawn
    return {name: sorted(indices) for name, indices in parts.items()}


def _by_class(labels: Sequence[int]) -> dict[int, list[int]]:
    """Positions of each class, ascending; classes ascending."""
    positions: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        positions.setdefault(label, []).append(i)
    return dict(sorted(positions.items()))


def _drawn(positions: Sequence[int], seed: int, label: int) -> list[int]:
    numbers = np.random.PCG64([seed, label, _PURPOSE]).random_raw(len(positions))
    return [positions[i] for i in np.argsort(numbers, kind="stable")]


def _listed(names: Sequence[str], most: int = 5) -> str:
    """`class 'a' has` or `classes 'a', 'b' have`, with a few names at most."""
    shown = ", ".join(repr(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"class {shown} has" if len(names) == 1 else f"classes {shown}{more} have"
