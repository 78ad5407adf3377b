"""Which class names mean the same: one rule for folders, class files and adapters.

A name is itself first. If nothing has that name, it is the one that differs only in its Unicode form (macOS writes é
as two characters), in blanks around it, in the zeros before a number, or in case; if several do, it is none of them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["matched", "plain"]


def plain(name: str) -> str:
    """The name in its composed Unicode form (NFC), without blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def matched(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Index into `known` of every name of `wanted`, None for those it does not hold; no two have the same index.

    >>> matched(["cat", "Dog ", "7"], ["007", "dog", "cat"])
    [2, 1, 0]
    """
    own = {name: i for i, name in enumerate(known)}
    found = [own.get(name) for name in wanted]
    for key in (plain, _without_zeros, _caseless):
        if None not in found:
            break
        _match(wanted, known, found, key)
    return found


def _match(wanted: Sequence[str], known: Sequence[str], found: list[int | None], key: Callable[[str], str]) -> None:
    """Fill in what is equal by this key and by nothing else."""
    taken = set(found)
    keys = [key(name) for name in known]
    counts = Counter(keys)
    index = {one: i for i, one in enumerate(keys) if counts[one] == 1 and i not in taken}
    asked = Counter(key(name) for name, at in zip(wanted, found, strict=True) if at is None)
    for row, name in enumerate(wanted):
        if found[row] is None and asked[key(name)] == 1:
            found[row] = index.get(key(name))


def _without_zeros(name: str) -> str:
    told = plain(name)
    return str(int(told)) if told.isascii() and told.isdigit() and len(told) < 100 else told


def _caseless(name: str) -> str:
    return plain(plain(name).casefold())
