"""Texts in the output space of a model: the dictionary, and captions that state the values of an attribute."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from recipes.mini.attribute_truth import Attribute, captions_of, names_value
from recipes.mini.generate import generate

Encoder = Callable[[list[str]], Tensor]
Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Dictionary:
    """Texts, their sections, and their vectors (text, dim) minus the mean of all texts, with unit rows."""

    name: str
    texts: tuple[str, ...]
    sections: tuple[str, ...]
    atoms: Floats

    @staticmethod
    def encode(name: str, sections: Mapping[str, Sequence[str]], encode_text: Encoder) -> Dictionary:
        """The texts of these sections in the model's output space."""
        pairs = [(text, section) for section, texts in sections.items() for text in texts]
        texts, names = zip(*pairs, strict=True)
        vectors = unit_vectors(texts, encode_text)
        return Dictionary(name, texts, names, _unit(vectors - vectors.mean(0)))

    def names(self, attribute: Attribute) -> Booleans:
        """(text, value): the text names the value."""
        pairs = zip(self.texts, self.sections, strict=True)
        return np.array([[names_value(attribute.name, v, text, section) for v in attribute.values]
                         for text, section in pairs])  # fmt: skip


def of_words(sections: Mapping[str, Sequence[str]], words: Collection[str]) -> dict[str, list[str]]:
    """The texts that consist only of these words."""
    known = set(words)
    return {
        name: [text for text in texts if set(re.findall(r"[\w-]+", text.lower())) <= known]
        for name, texts in sections.items()
    }


def taught_words(n_captions: int = 20_000, seed: int = 0) -> set[str]:
    """The words in the recipe's captions, which are all that mini was trained on; a few hundred images cover them."""
    texts = (text for index in range(n_captions // 500) for text in generate(seed, index, 500, size=8).captions)
    return {word for text in texts for word in re.findall(r"[\w-]+", text.lower())}


def unit_vectors(texts: Sequence[str], encode_text: Encoder, batch: int = 256) -> Floats:
    """(text, dim) unit rows in float64."""
    parts = [encode_text(list(texts[start : start + batch])) for start in range(0, len(texts), batch)]
    vectors: Floats = normalize(torch.cat(parts).detach().double(), dim=-1).numpy()
    return vectors


def value_vectors(attribute: Attribute, encode_text: Encoder) -> Floats:
    """(value, dim): the mean unit vector of each value's captions, minus the mean over the values."""
    groups = [captions_of(attribute.name, value) for value in attribute.values]
    vectors = unit_vectors([text for group in groups for text in group], encode_text)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    means: Floats = np.stack([part.mean(0) for part in np.split(vectors, ends)])
    apart: Floats = means - means.mean(axis=0, keepdims=True)
    return apart


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
