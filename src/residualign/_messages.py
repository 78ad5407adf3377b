"""How numbers and names are put into words: one way for the terminal, the page, the card and every sentence."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["interval", "listed", "percent", "points", "skipped_sentence", "whole_percent"]

NONE = "–"
"""Shown in a table where there is no number."""


def percent(share: float | None) -> str:
    """A share in [0, 1] as people read it.

    >>> percent(0.7012), percent(None)
    ('70.1 %', '–')
    """
    return NONE if share is None or share != share else f"{100 * share:.1f} %"


def whole_percent(share: float | None) -> str:
    """A share in [0, 1] without decimals.

    >>> whole_percent(0.7012)
    '70 %'
    """
    return NONE if share is None or share != share else f"{100 * share:.0f} %"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points.

    >>> points(0.178), points(-0.002)
    ('+17.8 points', '-0.2 points')
    """
    return f"{100 * difference:+.1f} points"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares in percent.

    >>> interval(0.681, 0.724)
    '68.1 – 72.4'
    """
    return NONE if low is None or high is None or low != low else f"{100 * low:.1f} – {100 * high:.1f}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names in quotes, with dots where some are left out.

    >>> listed(["a", "b", "c", "d"])
    "'a', 'b', 'c', ..."
    """
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def skipped_sentence(keys: Sequence[str]) -> str:
    """What to say of images that were skipped because they cannot be read.

    >>> skipped_sentence(["cat/1.png"])
    "skipped 1 unreadable image: 'cat/1.png'"
    """
    if len(keys) == 1:
        return f"skipped 1 unreadable image: {keys[0]!r}"
    return f"skipped {len(keys):,} unreadable images, the first is {keys[0]!r}"
