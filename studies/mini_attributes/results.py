"""The results of the study, as dataclasses and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from recipes.mini.attribute_truth import MAIN, Attribute

from studies.mini_attributes.measure import UnitScore
from studies.mini_attributes.scores import Floats, LinearScore, concentration
from studies.mini_attributes.words import ComponentAgreement, WordAgreement

# A head is called specialized in an attribute that accounts for at least this share of its variance, and this many
# times the share of any other main attribute.
SPECIALIZED_SHARE, SPECIALIZED_TIMES = 0.25, 2.0


@dataclass(frozen=True)
class AttributeResult:
    """An attribute: its images, scores of the whole embedding and of every head and MLP, and the words.

    first: the first component of the head with the largest share for this attribute.
    """

    attribute: Attribute
    embedding: LinearScore
    units: tuple[UnitScore, ...]
    words: WordAgreement
    first: ComponentAgreement

    @property
    def heads(self) -> tuple[UnitScore, ...]:
        """The heads' scores alone, in unit order."""
        return tuple(unit for unit in self.units if ".H" in unit.unit)

    def to_json(self) -> dict[str, Any]:
        counts = np.bincount(self.attribute.labels[self.attribute.shown])
        return {
            "attribute": self.attribute.name,
            "values": dict(zip(self.attribute.values, counts.tolist(), strict=True)),
            "left_out": list(self.attribute.left_out),
            "images": int(counts.sum()),
            "embedding": asdict(self.embedding),
            "units": [asdict(unit) | {"skill": unit.linear.skill} for unit in self.units],
            "words": asdict(self.words),
            "first": asdict(self.first),
        }


@dataclass(frozen=True)
class AttributeProof:
    """All attributes of one set of generated images."""

    images: int
    seed: int
    mix: str
    spectra: str
    attributes: tuple[AttributeResult, ...]

    @property
    def main(self) -> tuple[AttributeResult, ...]:
        """The attributes that define specialization."""
        return tuple(result for result in self.attributes if result.attribute.name in MAIN)

    @property
    def labels(self) -> tuple[str, ...]:
        """The heads, in unit order."""
        return tuple(head.unit for head in self.attributes[0].heads)

    def shares(self) -> Floats:
        """(head, main attribute): the share of each head's variance between the attribute's values."""
        rows = [[head.variance_share for head in result.heads] for result in self.main]
        return np.reshape(np.array(rows, dtype=float), (len(rows), len(self.labels))).T

    def skills(self) -> Floats:
        """(head, main attribute): accuracy of a linear classifier on the head, 0 at chance, 1 if all are correct."""
        rows = [[head.linear.skill for head in result.heads] for result in self.main]
        return np.reshape(np.array(rows, dtype=float), (len(rows), len(self.labels))).T

    def concentrations(self) -> Floats:
        """(head,): how concentrated the shares of the main attributes are on one of them, 0 to 1."""
        return concentration(self.shares())

    def specialized(self) -> dict[str, tuple[str, ...]]:
        """For every main attribute the heads specialized in it, the largest share first."""
        shares = self.shares()
        result = {}
        for column, of in enumerate(self.main):
            others = np.delete(shares, column, axis=1).max(1, initial=0.0)
            rows = np.flatnonzero(
                (shares[:, column] >= SPECIALIZED_SHARE) & (shares[:, column] >= SPECIALIZED_TIMES * others)
            )
            order = sorted(rows.tolist(), key=lambda row: -shares[row, column])
            result[of.attribute.name] = tuple(self.labels[row] for row in order)
        return result

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "seed": self.seed,
            "mix": self.mix,
            "spectra": self.spectra,
            "specialized": {name: list(heads) for name, heads in self.specialized().items()},
            "concentration": dict(zip(self.labels, self.concentrations().tolist(), strict=True)),
            "attributes": [result.to_json() for result in self.attributes],
        }
