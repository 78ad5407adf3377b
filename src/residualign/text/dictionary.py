"""Short texts to describe units with: read from a file, encoded by the model's own text tower."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import listed
from residualign.errors import BadInputError, refuse_bare_text
from residualign.models.finite import is_finite
from residualign.models.names import DICTIONARY_NAME, bundled_file
from residualign.models.vision_model import VisionModel

__all__ = [
    "MIN_TEXTS",
    "OWN_NAME",
    "Coherence",
    "TextDictionary",
    "Texts",
    "choose_texts",
    "encode_dictionary",
    "from_vectors",
    "load_texts",
    "mean_cosine",
    "no_text_sentence",
]

OWN_NAME = "the dictionary of residualign"

MIN_TEXTS = 10
"""With fewer a description says more about the dictionary than about the unit."""

_BATCH = 256
_DRAWS = 1000

# a difference of unit vectors in float32 is rounding below this: the text then says what the dictionary's mean says
_NOTHING_OWN = 1e-5


@dataclass(frozen=True)
class Texts:
    """Descriptions in the order of their file, each once.

    name: the file, or `OWN_NAME`. sections: the heading each one stands under, "" before the first. n_duplicates: lines
    that were dropped because the same words had come before.
    """

    name: str
    texts: tuple[str, ...]
    sections: tuple[str, ...]
    n_duplicates: int = 0

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.sections)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class TextDictionary:
    """Texts and their directions in the output space of one model.

    atoms: (atom, dim), unit rows, float64; `BadInputError` where they are not finite. unknown: texts that were left out
    because they hold words outside the tokenizer's vocabulary.
    """

    name: str
    texts: tuple[str, ...]
    sections: tuple[str, ...]
    atoms: Float[Tensor, "atom dim"]
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.sections) == self.atoms.shape[0]
        if not is_finite(self.atoms):
            bad = (~torch.isfinite(self.atoms).all(dim=1)).nonzero().flatten().tolist()
            raise BadInputError(
                f"the atoms of {len(bad)} of {len(self)} texts hold NaN or infinity "
                f"({listed([self.texts[row] for row in bad])}); expected unit rows"
            )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def dim(self) -> int:
        """Size of the output space."""
        return self.atoms.shape[1]

    @cached_property
    def centered(self) -> TextDictionary:
        """The same texts without what all of them share: atoms minus their mean, at unit length again.

        Text embeddings lie in a narrow cone, whose axis says nothing of any one text and yet dominates every product. A
        text that says no more than the mean has an atom of zeros, which no method chooses.
        """
        apart = self.atoms - self.atoms.mean(dim=0)
        length = apart.norm(dim=1, keepdim=True)
        atoms = torch.where(length > _NOTHING_OWN, apart / length.clamp(min=_NOTHING_OWN), 0.0)
        return TextDictionary(self.name, self.texts, self.sections, atoms, self.unknown)

    def take(self, indices: Int[Tensor, " taken"]) -> TextDictionary:
        """Some of the texts, in the order given."""
        rows = indices.tolist()
        texts, sections = (tuple(column[i] for i in rows) for column in (self.texts, self.sections))
        return TextDictionary(self.name, texts, sections, self.atoms[indices], self.unknown)


def load_texts(path: str | os.PathLike[str] | None = None) -> Texts:
    """The descriptions in a text file, or those of the package.

    UTF-8, one description a line; blank lines are skipped, spaces at the ends and repeated ones are dropped. A line
    that starts with `#` is a heading or a comment: the last one above a description names its section. Of descriptions
    that differ in capitals only the first is kept. `BadInputError` for a file that is not there, not UTF-8, or has
    fewer than `MIN_TEXTS` descriptions.
    """
    name = OWN_NAME if path is None else os.fspath(path)
    if path is None:
        content = files("residualign").joinpath("text", "dictionary.txt").read_bytes()
    else:
        if not Path(path).is_file():
            raise BadInputError(f"no dictionary at {name!r}; expected a UTF-8 text file with one description a line")
        content = Path(path).read_bytes()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"the dictionary {name!r} is not UTF-8 text (byte {error.start}); expected one description a line"
        ) from None
    found: dict[str, tuple[str, str]] = {}
    section, n_lines = "", 0
    for line in lines:
        text = " ".join(line.split())
        if text.startswith("#"):
            section = text.lstrip("# ")
        elif text:
            n_lines += 1
            found.setdefault(text.casefold(), (text, section))
    if len(found) < MIN_TEXTS:
        raise BadInputError(
            f"the dictionary {name!r} holds {len(found)} different descriptions; expected at least {MIN_TEXTS}, "
            "one a line"
        )
    texts, sections = zip(*found.values(), strict=True)
    return Texts(name, texts, sections, n_lines - len(found))


def choose_texts(path: str | os.PathLike[str] | None, model_name: str) -> Texts:
    """The descriptions in the file that is named, else those that come with the model, else those of the package.

    A small text tower embeds words it was never taught at random, and a random vector is sometimes the nearest. Errors
    are those of `load_texts`.
    """
    if path is None and (shipped := bundled_file(model_name, DICTIONARY_NAME)) is not None:
        return replace(load_texts(shipped), name=f"the dictionary that comes with {model_name}")
    return load_texts(path)


def encode_dictionary(
    model: VisionModel, texts: Texts, *, progress: Callable[[int, int], None] | None = None
) -> TextDictionary:
    """The dictionary in the model's output space: text embeddings at unit length.

    Texts with words outside the tokenizer's vocabulary are left out and named in `unknown`: their embedding is that of
    other words. Cost: one pass of the text tower. `BadInputError` for a model without a text tower, and where fewer
    than `MIN_TEXTS` texts are known.
    """
    if not model.has_text:
        raise BadInputError(no_text_sentence(model.name))
    unknown = model.unknown_words(list(texts.texts))
    left = set(unknown)
    kept = [i for i, text in enumerate(texts.texts) if text not in left]
    if len(kept) < MIN_TEXTS:
        raise BadInputError(
            f"the text tower of {model.name!r} knows all words of {len(kept)} of {len(texts)} descriptions in "
            f"{texts.name!r}; expected at least {MIN_TEXTS} it knows"
        )
    sentences = [texts.texts[i] for i in kept]
    parts: list[Tensor] = []
    for start in range(0, len(sentences), _BATCH):
        parts.append(_unit(model.encode_text(sentences[start : start + _BATCH])))
        if progress is not None:
            progress(min(start + _BATCH, len(sentences)), len(sentences))
    return TextDictionary(
        texts.name, tuple(sentences), tuple(texts.sections[i] for i in kept), torch.cat(parts), tuple(unknown)
    )


def no_text_sentence(model_name: str) -> str:
    """Why a model cannot be asked for words."""
    return (
        f"model {model_name!r} has no text tower, so no text has a place in its output space; "
        "its units are explained by images alone, without a dictionary and a method"
    )


def from_vectors(name: str, texts: Sequence[str], vectors: Float[Tensor, "atom dim"]) -> TextDictionary:
    """A dictionary of vectors that are there already, in no sections."""
    refuse_bare_text("texts", texts)
    return TextDictionary(name, tuple(texts), ("",) * len(texts), _unit(vectors))


def _unit(vectors: Float[Tensor, "atom dim"]) -> Float[Tensor, "atom dim"]:
    vectors = vectors.detach().to("cpu", torch.float64)
    length = vectors.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(length).all()) or bool((length == 0).any()):
        raise BadInputError("a text's embedding has no direction: it is zero, infinite or NaN")
    unit: Tensor = vectors / length
    return unit


class Coherence:
    """Coherence of chosen texts: their mean pairwise cosine, in standard deviations above random draws.

    The draws are as many different texts of the same dictionary, 1,000 times, from `seed`: zero is what chance gives,
    three is rare. Methods that refit choose texts that add to one another, so values below zero are no sign of failure;
    compare units with one another. None for fewer than two texts, and where all draws are alike.
    """

    def __init__(self, dictionary: TextDictionary, seed: int = 0) -> None:
        self._atoms = dictionary.atoms
        self._seed = seed
        self._drawn: dict[int, tuple[float, float]] = {}

    def __call__(self, indices: tuple[int, ...]) -> float | None:
        """Of the texts with these indices. O(draws x text x dim) for a number of texts not yet met, else O(text)."""
        n = len(indices)
        if n < 2:
            return None
        if n not in self._drawn:
            self._drawn[n] = self._draw(n)
        mean, deviation = self._drawn[n]
        own = float(mean_cosine(self._atoms[list(indices)]))
        return (own - mean) / deviation if deviation > 1e-12 else None

    def _draw(self, n: int) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(self._seed)
        draws = (torch.randperm(len(self._atoms), generator=generator)[:n] for _ in range(_DRAWS))
        values = torch.stack([mean_cosine(self._atoms[draw]) for draw in draws])
        return float(values.mean()), float(values.std())


def mean_cosine(atoms: Float[Tensor, "text dim"]) -> Float[Tensor, ""]:
    """Mean cosine over all pairs of unit rows; at least two."""
    n = len(atoms)
    # |sum of rows|^2 holds every pair twice and every row with itself once
    return (atoms.sum(dim=0).square().sum() - atoms.square().sum()) / (n * (n - 1))
