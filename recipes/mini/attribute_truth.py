"""The attributes that are studied in units: which images show which value, and how captions state a value."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recipes.mini.attributes import COLUMN, DIGIT_WORDS, UNDEFINED, VALUES
from recipes.mini.captions import CASE_WORDS, FONT_WORDS, article, plural

Ints = NDArray[np.int64]

# The attributes that define specialization; the others are included because they are cheap.
MAIN = ("color", "background", "shape", "count", "position", "texture", "digit")
OTHERS = ("letter", "several", "size", "ground", "quality", "family", "script", "case", "font", "slant", "warp")

# "several" is the count without one: a single shape is large and many are small, so size would reveal it.
_COLUMN_OF = {"several": "count"}

# Half of the characters are white on black or black on white, on plain grounds: over all images the color of an object
# would reveal that of the background, and both would reveal what kind of object it is.
AMONG_SHAPES = ("color", "background", "ground", "size")
MIN_IMAGES = 20  # of a value, or it is left out

_NOUNS = ("circle", "square", "triangle", "star", "heart")
_CHARACTERS = ("digit 3", "letter b", "digit 8", "letter k")
# Sections of the dictionary in which a word means the attribute: "red" names a background in "a red background".
_SECTIONS = {
    "color": ("colors", "shapes", "counts"), "background": ("backgrounds",), "ground": ("backgrounds",),
    "shape": ("shapes", "textures", "counts", "sizes", "positions"), "count": ("counts",), "digit": ("digits",),
    "position": ("positions",), "texture": ("textures",), "letter": ("letters",), "size": ("sizes",),
    "quality": ("image quality",), "family": ("digits", "letters", "shapes", "writing"),
    "script": ("digits", "letters", "writing"), "case": ("letters",), "font": ("writing",),
    "slant": ("digits", "letters", "writing"), "warp": ("writing",), "several": ("counts",),
}  # fmt: skip


@dataclass(frozen=True)
class Attribute:
    """One attribute of a set of images.

    values: those with enough images; labels: (image,), index into values, -1 where the image has none of them, or
    different values in its two views. left_out: values with fewer than `MIN_IMAGES` images.
    """

    name: str
    values: tuple[str, ...]
    labels: Ints
    left_out: tuple[str, ...]

    @property
    def shown(self) -> np.ndarray:
        """(image,) booleans: the image has a value."""
        return self.labels >= 0


def attribute(name: str, views: Tensor, min_images: int = MIN_IMAGES) -> Attribute:
    """The attribute in the ground truth rows of images; views: (image, 2, attribute)."""
    rows = views.numpy().astype(np.int64)
    source = _COLUMN_OF.get(name, name)
    column = rows[:, :, COLUMN[source]]
    clear = (column[:, 0] == column[:, 1]) & (column[:, 0] != UNDEFINED)
    if name in AMONG_SHAPES:
        clear &= (rows[:, :, COLUMN["family"]] == VALUES["family"].index("shape")).all(1)
    if name == "several":
        clear &= column[:, 0] > 0
    raw = np.where(clear, column[:, 0], UNDEFINED)
    counts = np.bincount(raw[clear], minlength=len(VALUES[source]))
    kept = [i for i, count in enumerate(counts) if count >= min_images]
    renumbered = np.full(len(VALUES[source]) + 1, -1)
    renumbered[kept] = np.arange(len(kept))
    values = VALUES[source]
    return Attribute(
        name,
        tuple(values[i] for i in kept),
        renumbered[raw],
        tuple(value for i, value in enumerate(values) if 0 < counts[i] < min_images),
    )


def captions_of(name: str, value: str) -> tuple[str, ...]:
    """Captions of the kind mini was trained on that state this value, and are otherwise the same for every value."""
    match name:
        case "shape":
            return tuple(f"{frame}{article(value)}" for frame in ("", "a photo of ", "an image of ", "a drawing of "))
        case "count" | "several":
            count = VALUES["count"].index(value)
            return tuple(article(noun) if count == 0 else f"{value} {plural(noun)}" for noun in _NOUNS)
        case "position":
            nouns = (*_NOUNS, *_CHARACTERS)
            return tuple(f"{article(noun)} in the {value}" for noun in nouns)
        case "digit":
            word = DIGIT_WORDS[int(value)]
            return (f"the digit {value}", f"the number {word}", f"a photo of the digit {value}",
                    f"a printed digit {value}", f"a handwritten number {word}")  # fmt: skip
        case "letter":
            return (f"the letter {value}", f"a photo of the letter {value}", f"the character {value}",
                    f"a printed letter {value}", f"a handwritten letter {value}")  # fmt: skip
        case "background":
            return tuple(f"{article(noun)} on {article(value)} background" for noun in (*_NOUNS, *_CHARACTERS))
        case "ground":
            return tuple(f"{article(noun)} on a {value} {color} background" for noun in _NOUNS
                         for color in ("red", "blue", "gray"))  # fmt: skip
        case "quality":
            return tuple(f"a {value} photo of {article(noun)}" for noun in (*_NOUNS, *_CHARACTERS))
        case "family":
            return tuple(f"{frame}a {value}" for frame in ("", "a photo of ", "an image of "))
    carriers: tuple[str, ...] = _NOUNS if name in ("color", "texture", "size") else _CHARACTERS
    adjectives = CASE_WORDS[value] if name == "case" else FONT_WORDS[value] if name == "font" else (value,)
    if (name, value) in (("texture", "plain"), ("warp", "straight")):
        return tuple(article(noun) for noun in carriers)  # what captions never mention
    if name == "case":
        return tuple(article(f"{adjective} letter {letter}") for adjective in adjectives for letter in "bdgk")
    return tuple(article(f"{adjective} {noun}") for adjective in adjectives for noun in carriers)


def names_value(name: str, value: str, text: str, section: str) -> bool:
    """Whether a text of the dictionary, in `section`, says that the attribute has this value."""
    if section not in _SECTIONS[name] or (name == "position" and re.search("empty|outside", text)):
        return False
    words = [value]
    if name == "digit":
        words.append(DIGIT_WORDS[int(value)])
    elif name == "count" and value == "one":
        words.append("single")
    elif name in ("case", "font"):
        words = list((CASE_WORDS if name == "case" else FONT_WORDS)[value])
    elif name == "quality" and value == "clear":
        words += ["sharp", "clean"]
    if name == "position":
        # "top left" is neither the top nor the left, and "to the left of a square" is a relation
        words = [rf"(?<!top )(?<!bottom ){word}(?! (left|right|of)\b)" for word in words]
        words += ["middle"] if value == "center" else []
    elif name == "letter":
        words = [rf"(letter|character) {word}" for word in words]
    else:
        words = [rf"{re.escape(word)}(es|s)?" for word in words]
    return any(re.search(rf"\b{word}\b", text.lower()) for word in words)
