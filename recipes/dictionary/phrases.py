"""Phrases from word lists: the sections of the dictionary, in order, without duplicates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

WORDS = Path(__file__).parent / "words"
FILES = ("look", "picture", "places", "living", "things")
# Words whose first letter does not match their first sound.
AN, A = ("hour", "x-ray"), ("one", "uni", "euro", "used", "uku")


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    first = noun.lower()
    vowel = (first[0] in "aeiou" and not first.startswith(A)) or first.startswith(AN)
    return f"{'an' if vowel else 'a'} {noun}"


def fill(frame: str, word: str) -> str:
    """A word in a frame: `{}` the word itself, `{a}` with its article, `{1}` what follows its bar.

    `~word` is a plural or a mass noun, which has no article; a word that includes an article keeps it. "a {}" becomes
    "an {}" where needed.
    """
    bare, _, second = (part.strip() for part in word.partition("|"))
    has_none = bare.startswith("~") or bare.startswith(("a ", "an ", "the "))
    bare = bare.removeprefix("~")
    with_article = bare if has_none else article(bare)
    frame = re.sub(r"\ba \{\}", "{a}", frame)
    return frame.replace("{a}", with_article).replace("{1}", second).replace("{}", bare)


def group(entry: dict[str, Any]) -> Iterator[str]:
    """The phrases of one group of a section.

    `lines` are taken as they are. `say` puts every word (`of`) into every frame; `turn` gives each word the next frame
    in turn, `times` times, starting one frame later each time.
    """
    if "lines" in entry:
        yield from entry["lines"].splitlines()
        return
    words = [str(word).strip() for word in str(entry["of"]).split(",")]
    if "say" in entry:
        for frame in entry["say"]:
            yield from (fill(frame, word) for word in words)
        return
    frames = entry["turn"]
    for turn in range(entry.get("times", 1)):
        yield from (fill(frames[(i + turn) % len(frames)], word) for i, word in enumerate(words))


def sections() -> dict[str, list[str]]:
    """Every section with its phrases. Raises `ValueError` for a phrase that occurs twice (ignoring case)."""
    result: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for file in FILES:
        for name, entries in yaml.safe_load((WORDS / f"{file}.yaml").read_text(encoding="utf-8")).items():
            if name in result:
                raise ValueError(f"section {name!r} occurs twice")
            result[name] = [phrase for entry in entries for phrase in group(entry)]
            for phrase in result[name]:
                if phrase.lower() in seen:
                    raise ValueError(f"{phrase!r} occurs twice, in {seen[phrase.lower()]!r} and {name!r}")
                seen[phrase.lower()] = name
    return result


def text() -> str:
    """The dictionary file: a heading, then for every section a line `# name` and one phrase per line."""
    parts = [f"# {name}\n" + "".join(f"{phrase}\n" for phrase in phrases) for name, phrases in sections().items()]
    return "\n".join(parts)
