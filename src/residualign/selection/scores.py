"""Scores of heads, which estimate how much each head matters for a task before any is ablated, and budgets of heads.

Source: arXiv 2411.00246 section 5 (S, U, U|T, R); the correlations are those of arXiv 2406.01583. All are computed on
the validation images, as published. Where the paper leaves a choice open:

- every score uses a head's direct contribution, constants included; "the output" is the model's whole embedding (the
  published code correlates with the sum of the heads only);
- U averages over the dimensions of the output. The published code orthonormalizes the images' own embeddings, which
  with more images than dimensions is an arbitrary basis that depends on their order (numbers: docs/select.md);
- U|T averages over the class vectors, orthonormalized in class order (QR), as published.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.classification.classifier import Classifier
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.selection.ablation import ClassProducts

__all__ = [
    "BUDGETS",
    "SCORES",
    "Budget",
    "ScoreName",
    "accuracy_scores",
    "budgets",
    "class_directions",
    "correlation_scores",
    "cosine_scores",
    "get_score",
    "head_scores",
    "parse_budget",
    "random_scores",
    "ranked",
    "score_title",
]

ScoreName = Literal["S", "U", "UT", "R", "cosine"]
SCORES: tuple[str, ...] = get_args(ScoreName)

BUDGETS = ("1", "1%", "5%", "10%", "25%", "50%", "75%", "100%")
"""The paper's budgets, and all heads."""

_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<share>\s*%)?")

_IN_SPAN = 1e-5
"""A unit vector is in the span of earlier ones, up to rounding, if less than this length is outside it."""

_CHUNK = 4096


def get_score(name: str) -> str:
    """The score of this name (`U|T` is `UT`); `BadInputError` for an unknown one."""
    found = name.replace("|", "")
    if found not in SCORES:
        raise BadInputError(f"a score is one of {', '.join(SCORES)}, got {name!r}")
    return found


def score_title(name: str) -> str:
    """The paper's name of a score."""
    return "U|T" if name == "UT" else name


def head_scores(
    name: str, products: ClassProducts, maps: UnitMaps, classifier: Classifier, seed: int = 0
) -> Float[Tensor, " head"]:
    """The scores of all heads in unit order, float64; larger is better.

    S: accuracy of the head's contribution alone, in [0, 1]. U: its correlation with the output, U|T: the same within
    the span of the class vectors, cosine: the mean cosine with the output, all in [-1, 1]. R: random, from the seed.
    """
    chosen, coordinates = get_score(name), products.coordinates
    if chosen == "S":
        return accuracy_scores(products)
    if chosen == "U":
        return correlation_scores(coordinates, maps, torch.eye(maps.dim, dtype=torch.float64))
    if chosen == "UT":
        return correlation_scores(coordinates, maps, class_directions(classifier.vectors))
    if chosen == "cosine":
        return cosine_scores(coordinates, maps)
    return random_scores(len(maps.units.of_kind("head")), seed)


def ranked(scores: Float[Tensor, " head"]) -> tuple[int, ...]:
    """Positions of the heads from the best score to the worst; ties: the earlier head first."""
    return tuple(scores.argsort(descending=True, stable=True).tolist())


def accuracy_scores(products: ClassProducts) -> Float[Tensor, " head"]:
    """S: the accuracy of a head's contribution alone."""
    heads = [i for i, unit in enumerate(products.units) if unit.kind == "head"]
    correct = torch.zeros(len(heads), dtype=torch.float64)
    for values, labels in products.blocks():
        correct += (values[:, heads].argmax(dim=-1) == labels[:, None]).sum(dim=0)
    return correct / max(len(products), 1)


def class_directions(vectors: Float[Tensor, "class dim"]) -> Float[Tensor, "direction dim"]:
    """The class vectors orthonormalized in their order; one in the span of earlier ones adds nothing."""
    unit = F.normalize(vectors.double(), dim=-1)
    directions: list[Tensor] = []
    for vector in unit:
        rest = vector
        # a second pass removes what rounding left of earlier directions
        for _ in range(2):
            for direction in directions:
                rest = rest - (rest @ direction) * direction
        length = rest.norm()
        if length > _IN_SPAN:
            directions.append(rest / length)
    return torch.stack(directions)


def correlation_scores(
    coordinates: Coordinates, maps: UnitMaps, directions: Float[Tensor, "direction dim"]
) -> Float[Tensor, " head"]:
    """U, U|T: each head's Pearson correlation with the output over the images, averaged over orthonormal directions.

    A direction along which a head or the output does not vary counts as zero. One head in memory at a time; costs
    O(image x coordinate x direction) per head. Source: arXiv 2411.00246 section 5; 2406.01583.
    """
    output = _standardized(coordinates.output.double() @ directions.T)
    scores = []
    for unit in maps.units.of_kind("head"):
        weight = maps.weight(unit).double() @ directions.T
        # constants vanish in a correlation
        own = _standardized(coordinates.of(unit).double() @ weight)
        scores.append((own * output).sum(dim=0).mean())
    return torch.stack(scores)


def cosine_scores(coordinates: Coordinates, maps: UnitMaps) -> Float[Tensor, " head"]:
    """The mean over the images of the cosine between a head's contribution and the output, both centered.

    An image whose contribution or output equals the mean counts as zero. O(image x coordinate x dim) per head.
    """
    output = coordinates.output.double()
    direction = F.normalize(output - output.mean(dim=0), dim=-1)
    scores = []
    for unit in maps.units.of_kind("head"):
        weight, total = maps.weight(unit).double(), torch.zeros((), dtype=torch.float64)
        center = coordinates.of(unit).double().mean(dim=0)
        for start in range(0, len(coordinates), _CHUNK):
            part = slice(start, start + _CHUNK)
            own = (coordinates[part].of(unit).double() - center) @ weight
            total += (F.normalize(own, dim=-1) * direction[part]).sum()
        scores.append(total / max(len(coordinates), 1))
    return torch.stack(scores)


def random_scores(n_heads: int, seed: int) -> Float[Tensor, " head"]:
    """R: standard normal numbers that depend only on the seed."""
    return torch.randn(n_heads, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _standardized(values: Float[Tensor, "image direction"]) -> Float[Tensor, "image direction"]:
    """Columns centered and scaled to length one; columns that do not vary are zero."""
    centered = values - values.mean(dim=0)
    length = centered.norm(dim=0)
    # what is left of a constant column is rounding of its own size
    varies = length > 1e-12 * values.norm(dim=0)
    return torch.where(varies, centered / length.where(varies, torch.ones_like(length)), 0.0)


@dataclass(frozen=True)
class Budget:
    """A budget as it was given, and its number of heads."""

    name: str
    n_heads: int


def parse_budget(budget: int | str, n_heads: int) -> Budget:
    """A count ("1", 12) or a share of the heads ("5%"); `BadInputError` for anything else.

    A share is rounded down to at least two heads, so that it differs from the budget of one head, and at most all of
    them. Source: arXiv 2411.00246 section 5; the rounding is that of the published code.
    """
    found = _BUDGET.fullmatch(str(budget).strip())
    if found is None:
        raise BadInputError(f"a budget is a number of heads, like 12, or a share of them, like 5%; got {budget!r}")
    number = float(found["number"])
    if found["share"] is not None:
        if not 0 < number <= 100:
            raise BadInputError(f"a budget is a share of the heads in (0, 100] %, got {budget!r}")
        # a share that is a whole number of heads must not lose one to rounding
        return Budget(str(budget), min(max(int(number * n_heads / 100 + 1e-9), 2), n_heads))
    if not (number == int(number) and 1 <= number <= n_heads):
        raise BadInputError(f"a budget is between 1 and the {n_heads} heads of the model, got {budget!r}")
    return Budget(str(budget), int(number))


def budgets(n_heads: int) -> tuple[Budget, ...]:
    """The paper's budgets for a model with this many heads.

    >>> [budget.n_heads for budget in budgets(144)]
    [1, 2, 7, 14, 36, 72, 108, 144]
    """
    return tuple(parse_budget(name, n_heads) for name in BUDGETS)
