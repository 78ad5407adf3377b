"""How numbers and names are put into words: one way for the terminal, the page, the card and every sentence."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from os import PathLike

__all__ = [
    "did_you_mean",
    "interval",
    "listed",
    "minus",
    "percent",
    "plural",
    "points",
    "sentence",
    "shell_word",
    "skipped_sentence",
    "visible",
    "whole_percent",
]

NONE = "–"
"""Shown in a table where there is no number."""


def percent(share: float | None) -> str:
    """A share in [0, 1] as people read it.

    >>> percent(0.7012), percent(None), percent(-1e-9)
    ('70.1 %', '–', '0.0 %')
    """
    # z: no minus before a zero
    return NONE if share is None or share != share else f"{100 * share:z.1f} %"


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


def minus(text: str) -> str:
    """The text with minus signs for the hyphens before numbers, for the page and figures.

    >>> minus("zero-shot fell: -0.2")
    'zero-shot fell: −0.2'
    """
    return re.sub(r"(?<![\w.)-])-(?=\.?\d)", "\N{MINUS SIGN}", text)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names in quotes, with dots where some are left out.

    >>> listed(["a", "b", "c", "d"])
    "'a', 'b', 'c', ..."
    """
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def plural(n: int, one: str, several: str = "") -> str:
    """A number of things. several: the plural, if it is not `one` with an s.

    >>> plural(1, "image"), plural(1259, "image"), plural(1, "file is", "files are"), plural(3, "class", "classes")
    ('1 image', '1,259 images', '1 file is', '3 classes')
    """
    return f"{n:,} {one if n == 1 else several or f'{one}s'}"


def shell_word(path: str | PathLike[str]) -> str:
    """A path as one word of a command that can be pasted into a shell.

    >>> shell_word("runs/digits"), shell_word("my runs/digits")
    ('runs/digits', "'my runs/digits'")
    """
    return shlex.quote(str(path))


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """What to add in brackets to a message about an unknown name; empty if no known name is similar.

    >>> did_you_mean("clip_b", ["clip-b", "dino", "clip-l"]), did_you_mean("dog", ["clip-b"])
    (' (did you mean clip-b or clip-l?)', '')
    """
    *others, last = difflib.get_close_matches(name.lower(), list(names)) or [""]
    alternatives = f"{', '.join(others)} or {last}" if others else last
    return f" (did you mean {alternatives}?)" if last else ""


def skipped_sentence(keys: Sequence[str]) -> str:
    """What to say of images that were skipped because they cannot be read.

    >>> skipped_sentence(["cat/1.png"])
    "skipped 1 unreadable image: 'cat/1.png'"
    """
    if len(keys) == 1:
        return f"skipped 1 unreadable image: {keys[0]!r}"
    return f"skipped {len(keys):,} unreadable images, the first is {keys[0]!r}"


# control characters, halves of surrogate pairs, line and paragraph separators, and format characters without a form of
# their own; joiners stay inside words of scripts, and emoji, that are written with them
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff]|(?<![^\x00-\x7f])[\u200c\u200d]"
)


def visible(text: str) -> str:
    r"""The text with an escape for every character that shows nothing but changes what is shown.

    A name from a file of a stranger could otherwise move the cursor, rewrite lines above, ring, end a line, or turn the
    direction of the text that follows it.

    >>> print(visible("cat\x1b[2J"), visible("a\nb"), visible("a\u202egnp.exe"))
    cat\x1b[2J a\nb a\u202egnp.exe
    """
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


_SENTENCE, _ITS_END, _SLACK = 1600, 400, 100


def sentence(text: str) -> str:
    r"""A sentence as it is told: one line, `visible`, and cut in the middle where it is long: ends say what to do.

    >>> sentence("first\n  second\x1b"), len(sentence("x" * 10**6))
    ('first second\\x1b', 2030)
    """
    left = len(text) - _SENTENCE - _ITS_END
    if left > _SLACK:
        return f"{sentence(text[:_SENTENCE])} ... [{left:,} characters] ... {sentence(text[-_ITS_END:])}"
    return visible(" ".join(line.strip() for line in text.splitlines()) if "\n" in text else text)
