"""How many heads may stay."""

from __future__ import annotations

import re
from dataclasses import dataclass

from residualign.errors import BadInputError

__all__ = ["BUDGETS", "Budget", "budgets", "parse_budget"]

BUDGETS = ("1", "1%", "5%", "10%", "25%", "50%", "75%", "100%")
"""The paper's, and all heads."""

_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<share>\s*%)?")


@dataclass(frozen=True)
class Budget:
    """A budget as it was written, and the heads it comes to."""

    name: str
    n_heads: int


def parse_budget(budget: int | str, n_heads: int) -> Budget:
    """A count ("1", 12) or a share of the heads ("5%"); `BadInputError` for anything else.

    A share is rounded down, and is at least two heads, so that every share says more than the budget of one head; none
    is more than there are. Source: arXiv 2411.00246 section 5; the rounding is the published code's.
    """
    found = _BUDGET.fullmatch(str(budget).strip())
    if found is None:
        raise BadInputError(f"a budget is a number of heads, like 12, or a share of them, like 5%; got {budget!r}")
    number = float(found["number"])
    if found["share"] is not None:
        if not 0 < number <= 100:
            raise BadInputError(f"a budget is a share of the heads in (0, 100] %, got {budget!r}")
        # a share that comes to a whole number must not lose a head to rounding
        return Budget(str(budget), min(max(int(number * n_heads / 100 + 1e-9), 2), n_heads))
    if not (number == int(number) and 1 <= number <= n_heads):
        raise BadInputError(f"a budget is between 1 and the {n_heads} heads of the model, got {budget!r}")
    return Budget(str(budget), int(number))


def budgets(n_heads: int) -> tuple[Budget, ...]:
    """The paper's budgets for a model of so many heads.

    >>> [budget.n_heads for budget in budgets(144)]
    [1, 2, 7, 14, 36, 72, 108, 144]
    """
    return tuple(parse_budget(name, n_heads) for name in BUDGETS)
