"""Whether the words at the ends of components fit the images there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from recipes.mini.attribute_dictionary import Booleans, Dictionary
from recipes.mini.attribute_truth import Attribute

from studies.mini_attributes.scores import Floats, correlations, permutation_p

DRAWS = 10_000
TOP = 5


@dataclass(frozen=True)
class EndWords:
    """The texts of a dictionary furthest toward one end, furthest first.

    named: which of them name the value whose images are there; on_topic: which name any value of the attribute.
    """

    texts: tuple[str, ...]
    named: tuple[bool, ...]
    on_topic: tuple[bool, ...]


@dataclass(frozen=True)
class End:
    """One end of a component: the value whose images are there, and the words for it.

    value: of the largest (at the negative end smallest) mean coefficient. caption: the value whose captions are
    furthest toward this end. words: of each dictionary, in their order.
    """

    sign: str
    value: str
    caption: str
    words: tuple[EndWords, ...]


@dataclass(frozen=True)
class ComponentAgreement:
    """A component compared with the words for an attribute.

    correlation: over the attribute's values, of the mean coefficient of a value's images with the product of its
    captions (centered over the values) and the component; these are `means` and `captions`, value by value.
    """

    unit: str
    component: int
    explained_variance_ratio: float
    eta_squared: float
    best_auc: float
    correlation: float
    means: tuple[float, ...]
    captions: tuple[float, ...]
    ends: tuple[End, End]


@dataclass(frozen=True)
class WordRates:
    """How often a dictionary's words are right, over both ends of components; chance: for texts drawn at random.

    first, top: share of ends at which the furthest text, or any of the furthest five, names the value of the furthest
    mean coefficient. on_topic: share whose furthest text names any value of the attribute.
    """

    dictionary: str
    texts: int
    first: float
    first_chance: float
    top: float
    top_chance: float
    on_topic: float
    on_topic_chance: float


@dataclass(frozen=True)
class WordAgreement:
    """All components of an attribute that were examined, and how often their words are right.

    p: of the mean correlation, by permuting the values' captions. captions_right: share of ends at which the value
    with the furthest mean coefficient also has the furthest captions; chance 1 / values. rates: of each dictionary.
    """

    attribute: str
    components: tuple[ComponentAgreement, ...]
    correlation: float
    p: float
    captions_right: float
    captions_chance: float
    rates: tuple[WordRates, ...]


@dataclass(frozen=True)
class Candidate:
    """A component to evaluate: its direction (dim,) in the output space and the mean coefficient of every value."""

    unit: str
    component: int
    explained_variance_ratio: float
    eta_squared: float
    best_auc: float
    direction: Floats
    means: Floats


def agreement(
    attribute: Attribute,
    candidates: Sequence[Candidate],
    captions: Floats,
    dictionaries: Sequence[Dictionary],
    seed: int,
) -> WordAgreement:
    """Evaluate the words of components for one attribute; captions: (value, dim) of `value_vectors`."""
    directions = np.stack([candidate.direction for candidate in candidates])  # (component, dim)
    means = np.stack([candidate.means for candidate in candidates], axis=1)  # (value, component)
    said = captions @ directions.T
    found = correlations(means, said)
    names = [dictionary.names(attribute) for dictionary in dictionaries]
    cosines = [dictionary.atoms @ directions.T for dictionary in dictionaries]

    def end(i: int, sign: str) -> End:
        side = 1 if sign == "+" else -1
        value, caption = (int((side * scores[:, i]).argmax()) for scores in (means, said))
        words = tuple(
            _furthest(dictionary, side * scores[:, i], named, value)
            for dictionary, scores, named in zip(dictionaries, cosines, names, strict=True)
        )
        return End(sign, attribute.values[value], attribute.values[caption], words)

    judged = [
        ComponentAgreement(
            candidate.unit,
            candidate.component,
            candidate.explained_variance_ratio,
            candidate.eta_squared,
            candidate.best_auc,
            float(found[i]),
            tuple(means[:, i].tolist()),
            tuple(said[:, i].tolist()),
            (end(i, "+"), end(i, "-")),
        )
        for i, candidate in enumerate(candidates)
    ]
    ends = [end for component in judged for end in component.ends]
    values = [attribute.values.index(end.value) for end in ends]
    return WordAgreement(
        attribute.name,
        tuple(judged),
        float(found.mean()),
        permutation_p(means, said, DRAWS, seed),
        _mean([end.caption == end.value for end in ends]),
        1 / len(attribute.values),
        tuple(
            _rates(dictionary, named, values, [end.words[i] for end in ends])
            for i, (dictionary, named) in enumerate(zip(dictionaries, names, strict=True))
        ),
    )


def p_value(of: WordAgreement) -> str:
    """The p-value of an attribute as text; empty for fewer than four values, which have too few permutations."""
    return "" if of.captions_chance > 1 / 4 + 1e-9 else "< 0.001" if of.p < 0.001 else f"{of.p:.3f}"


def _furthest(dictionary: Dictionary, scores: Floats, names: Booleans, value: int) -> EndWords:
    first = np.argsort(-scores, kind="stable")[:TOP]
    return EndWords(
        tuple(dictionary.texts[i] for i in first),
        tuple(bool(named) for named in names[first, value]),
        tuple(bool(row.any()) for row in names[first]),
    )


def _rates(dictionary: Dictionary, names: Booleans, values: Sequence[int], words: Sequence[EndWords]) -> WordRates:
    share = names[:, list(values)].mean(axis=0)
    return WordRates(
        dictionary.name,
        len(dictionary.texts),
        _mean([end.named[0] for end in words]),
        float(share.mean()),
        _mean([any(end.named) for end in words]),
        float((1 - (1 - share) ** TOP).mean()),
        _mean([end.on_topic[0] for end in words]),
        float(names.any(axis=1).mean()),
    )


def _mean(these: Sequence[bool]) -> float:
    return float(np.mean(these))
