"""The one loop behind SOMP and TextSpan: choose an atom, take its direction out of the data and all atoms, repeat.

Let Q hold the orthonormal directions of the atoms chosen so far. After a joint least-squares refit the data X leave the
residual X (I - Q^T Q), so the product of a residual row with an atom d is `x (I - Q^T Q) d^T`: the data may stay as
they are while the *atoms* lose their part in Q. With X = U A (`Samples`: U with orthonormal columns, A of a few rows)
it is `U (A d')`, d' the deflated atom. So all that is updated is `images = atoms' A^T`, (atom, rank), one rank-one step
at a time, and it holds nothing of an atom outside the data's span, although the refit, done through Q in the whole
space, knows that part: the numbers are those of the full problem, not of one with projected atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.text.samples import Samples

__all__ = ["Path", "greedy", "largest_sum_of_magnitudes", "largest_sum_of_squares"]

_DEPENDENT = 1e-12
"""An atom with less than this share of its squared length outside the span of those chosen before is not chosen."""

_EXPLAINED = 1e-10
"""The loop ends when no atom has a larger product with the residual, in units of the data's norm."""

_TIE = 1e-12
"""Values this close to the largest count as equal to it; the first atom is then taken."""

Pick = Callable[[Samples, Float[Tensor, "atom rank"], Float[Tensor, " atom"]], int]
"""From the samples, the deflated atoms' images and their lengths (-1 where an atom is out), the atom to choose."""


@dataclass(frozen=True)
class Path:
    """What the loop went through.

    indices: the atoms chosen. basis: (step, dim), their orthonormal directions, in order. explained: (step,), share of
    the data's sum of squares inside the basis up to each step. product, length: (step,), at its step the norm over the
    samples of the residual's products with the chosen deflated atom, and that atom's length.
    """

    indices: tuple[int, ...]
    basis: Float[Tensor, "step dim"]
    explained: Float[Tensor, " step"]
    product: Float[Tensor, " step"]
    length: Float[Tensor, " step"]


def greedy(samples: Samples, atoms: Float[Tensor, "atom dim"], count: int, pick: Pick) -> Path:
    """Choose at most `count` atoms. O(atom x dim) a step, and what `pick` costs."""
    factor, total = samples.factor, samples.sum_of_squares
    images = atoms @ factor.mT
    left = atoms.square().sum(dim=1)
    own = left.clone()
    chosen: list[int] = []
    basis = factor.new_zeros(0, factor.shape[1])
    explained, product, length = [0.0], [], []
    while len(chosen) < min(count, len(atoms)) and total > 0:
        lengths = images.norm(dim=1)
        # the second condition: an atom that lies all but outside a projection has no direction of its own
        out = (left <= _DEPENDENT * own) | (own <= _DEPENDENT)
        lengths = torch.where(out, -1.0, lengths)
        if float(lengths.max()) <= _EXPLAINED * total**0.5:
            break
        index = pick(samples, images, lengths)
        direction = _orthogonal(atoms[index], basis)
        product.append(float(lengths[index]))
        length.append(float(direction.norm()))
        direction = direction / direction.norm()
        basis = torch.cat([basis, direction[None]])
        chosen.append(index)
        moved, along = factor @ direction, atoms @ direction
        explained.append(explained[-1] + float(moved.square().sum()) / total)
        images.addr_(along, moved, alpha=-1.0)
        left -= along.square()
        left[index] = 0.0
    numbers = (torch.tensor(values, dtype=factor.dtype) for values in (explained[1:], product, length))
    shares, products, sizes = numbers
    return Path(tuple(chosen), basis, shares.clamp(max=1.0), products, sizes)


def largest_sum_of_squares(samples: Samples, images: Tensor, lengths: Tensor) -> int:
    """The atom whose products with the residual have the largest standard deviation: they are centred already."""
    return _first(lengths)


def largest_sum_of_magnitudes(samples: Samples, images: Tensor, lengths: Tensor) -> int:
    """The atom whose products with the residual have the largest sum of magnitudes.

    A sum of n magnitudes is at most the root of n times their norm, which is the length of the atom's image. Atoms are
    therefore looked at from the longest image down, and no more once the bound falls below the best sum found: exact,
    usually after a small share of them. Source of the bound: Cauchy and Schwarz.
    """
    scores, n = samples.scores, len(samples)
    bounds = lengths * n**0.5
    order = lengths.argsort(descending=True, stable=True)
    sums = torch.full_like(lengths, -1.0)
    best, start, size = 0.0, 0, _FIRST
    ordered = bounds[order].tolist()
    while start < len(order) and ordered[start] * (1 + 1e-9) >= best and ordered[start] >= 0:
        some = order[start : start + size]
        some = some[lengths[some] >= 0]
        sums[some] = (scores @ images[some].mT).abs_().sum(dim=0)
        best = float(sums.max())
        start, size = start + size, min(2 * size, _MOST)
    return _first(sums)


_FIRST, _MOST = 32, 256


def _first(values: Float[Tensor, " atom"]) -> int:
    return int((values >= (1 - _TIE) * values.max()).nonzero()[0])


def _orthogonal(atom: Float[Tensor, " dim"], basis: Float[Tensor, "step dim"]) -> Float[Tensor, " dim"]:
    # twice is enough: what the first pass leaves of the basis is rounding
    for _ in range(2):
        atom = atom - (basis @ atom) @ basis
    return atom
