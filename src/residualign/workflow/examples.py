"""Which test images are worth showing: those that adapting mended first, then those it broke, missed and kept."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

__all__ = ["choose_examples"]


def choose_examples(
    labels: Int[Tensor, " image"],
    before: Int[Tensor, " image"],
    after: Int[Tensor, " image"],
    *,
    each: int = 8,
    most: int = 400,
) -> list[int]:
    """Positions of at most `each` images a class and `most` in all, class by class, in a fixed order.

    Of every class the four kinds (mended, broken, still wrong, still right) take turns, each in the order of the split.
    """
    positions: dict[int, list[int]] = {}
    for label in labels.unique().tolist():
        of_class = (labels == label).nonzero().flatten().tolist()
        kinds: list[list[int]] = [[], [], [], []]
        for i in of_class:
            was, is_now = bool(before[i] == label), bool(after[i] == label)
            kinds[(0 if is_now else 2) if not was else (3 if is_now else 1)].append(i)
        positions[label] = _in_turn(kinds)[: max(1, min(each, most // max(len(labels.unique()), 1)))]
    return [i for chosen in positions.values() for i in chosen][:most]


def _in_turn(lists: list[list[int]]) -> list[int]:
    longest = max(map(len, lists))
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]
