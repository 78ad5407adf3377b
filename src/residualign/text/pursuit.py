"""SOMP, OMP and TextSpan: choose a few texts of a dictionary that describe the samples of a unit, or one direction.

SOMP and TextSpan share one loop (`_greedy`): choose an atom, take its direction out of the data and all atoms, repeat.
Let Q hold the orthonormal directions of the atoms chosen so far. After a joint least-squares refit the data X leave the
residual X (I - Q^T Q), so the product of a residual row with an atom d is `x (I - Q^T Q) d^T`: the data may stay as
they are while the *atoms* lose their part in Q. With X = U A (`Samples`: U with orthonormal columns, A of a few rows)
it is `U (A d')`, d' the deflated atom. So all that is updated is `images = atoms' A^T`, (atom, rank), one rank-one step
at a time, and it holds nothing of an atom outside the data's span, although the refit, done through Q in the whole
space, knows that part: the numbers are those of the full problem, not of one with projected atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.text.dictionary import TextDictionary
from residualign.units import Unit

__all__ = ["Chosen", "Samples", "omp", "omp_each", "somp", "text_span"]

# an atom with less than this share of its squared length outside the span of those chosen before is not chosen
_DEPENDENT = 1e-12
# the loop ends when no atom has a larger product with the residual, in units of the data's norm
_EXPLAINED = 1e-10
# values this close to the largest count as equal to it; the first atom is then taken
_TIE = 1e-12
# singular values below this share of the largest are rounding in float64
_ROUNDING = 1e-10
# numbers whose squares fit into float64, sums of many of them too
_SMALLEST, _LARGEST = 1e-100, 1e100
# how many atoms are looked at together: at first, and at most
_FIRST, _MOST = 32, 256

Pick = Callable[["Samples", Float[Tensor, "atom rank"], Float[Tensor, " atom"]], int]
"""From the samples, the deflated atoms' images and their lengths (-1 where an atom is out), the atom to choose."""


@dataclass(frozen=True)
class Chosen:
    """What `somp`, `omp` and `text_span` return.

    indices: rows of the dictionary, texts: what they say. weights: as the method states. explained_variance_ratio:
    after each step, the share of the data's variance in the span of the texts chosen so far, in [0, 1], never falling.

    Fewer texts than asked for were chosen where nothing was left to explain, or no text was independent of those chosen
    before; none for data that never varies.
    """

    indices: tuple[int, ...]
    texts: tuple[str, ...]
    weights: tuple[float, ...]
    explained_variance_ratio: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Samples:
    """Centered rows `scores @ factor`, and the mean that was taken off.

    scores: (image, rank), orthonormal columns. factor: (rank, dim). mean: (dim,). All float64. rank is the number of
    the unit's own coordinates (head_dim + 2 for a head), or the smaller side of the data. Because the columns of
    `scores` are orthonormal, every sum of squares over images is one over `factor` alone. rounding: singular values
    below this share of the largest are those of rounding, and no direction of the rows.
    """

    scores: Float[Tensor, "image rank"]
    factor: Float[Tensor, "rank dim"]
    mean: Float[Tensor, " dim"]
    rounding: float = _ROUNDING

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "image coordinate"],
        weight: Float[Tensor, "coordinate dim"] | None = None,
        bias: Float[Tensor, " dim"] | None = None,
    ) -> Samples:
        """Of plain rows, or of `rows @ weight + bias`, which is then never formed.

        O(image x coordinate^2 + coordinate^2 x dim). `BadInputError` without rows, or with numbers that are not finite.
        """
        # rows of a short type carry its rounding in every direction; y @ weight stays inside the span of the weight
        given = _ROUNDING if weight is not None else max(_ROUNDING, 16 * torch.finfo(rows.dtype).eps)
        rows = rows.double()
        if not len(rows):
            raise BadInputError("there are no samples to describe; expected at least one")
        if not bool(torch.isfinite(rows).all()):
            raise BadInputError("samples hold NaN or infinity; expected finite numbers")
        center = rows.mean(dim=0)
        # QR and not the eigenvectors of the scatter: those lose every direction below 1e-8 of the largest
        scores, factor = torch.linalg.qr(rows - center)
        # of rows that never vary the difference to their mean is rounding
        constant = factor.abs().max() <= 1e-14 * len(rows) ** 0.5 * center.abs().max()
        factor = torch.zeros_like(factor) if constant else factor
        if weight is None:
            return cls(scores, factor, center, given)
        mean = center @ weight.double()
        return cls(scores, factor @ weight.double(), mean if bias is None else mean + bias.double())

    @classmethod
    def of_unit(cls, coordinates: Coordinates, maps: UnitMaps, unit: Unit) -> Samples:
        """Of one unit's contributions."""
        return cls.of(coordinates.of(unit), maps.weight(unit), maps.bias(unit))

    def __len__(self) -> int:
        return self.scores.shape[0]

    @property
    def sum_of_squares(self) -> float:
        """Of the centered rows: their total variance times the number of images (less one, as people divide)."""
        return float(self.factor.square().sum())


def somp(data: Samples | Float[Tensor, "image dim"], dictionary: TextDictionary, n_texts: int) -> Chosen:
    """Choose texts one by one; after each, all samples are fitted anew by all texts chosen so far.

    The samples are centered. A step takes the text with the largest sum over the samples of |residual . atom|. weights:
    the norm over the samples of a text's coefficients in the last joint fit. Exactly what the plain loop gives, but no
    residual is ever formed, and most texts are ruled out by a bound.

    `BadInputError` for n_texts below one, and for samples of a different size than the dictionary's. Cost per step:
    O(atom x dim), and O(image x rank) for each text that the bound leaves; memory O(image x rank + atom x dim).
    Source: Tropp, Gilbert and Strauss 2006, algorithm 3.1, as arXiv 2411.00246 uses it.
    """
    samples, scale = _checked(data, dictionary, n_texts)
    path = _greedy(samples, dictionary.atoms, n_texts, _largest_sum_of_magnitudes)
    chosen = dictionary.atoms[list(path.indices)]
    # chosen = lower @ basis, so the coefficients W of the fit solve W lower = X basis^T, and ||U M|| = ||M||
    lower = (chosen @ path.basis.mT).tril()
    coefficients = torch.linalg.solve_triangular(lower, samples.factor @ path.basis.mT, upper=False, left=False)
    return Chosen(
        path.indices,
        tuple(dictionary.texts[i] for i in path.indices),
        tuple((scale * coefficients.norm(dim=0)).tolist()),
        tuple(path.explained.tolist()),
    )


def text_span(
    data: Samples | Float[Tensor, "image dim"], dictionary: TextDictionary, n_texts: int, *, rank: int | None = None
) -> Chosen:
    """Choose the text along which the samples spread most, take its direction out of samples and texts, repeat.

    Texts are first projected onto the leading `rank` right singular vectors of the samples as they are, not centered
    (None: onto all they span), and keep the length this leaves them: a text that the unit hardly reaches cannot win.
    Then the samples are centered. Of the samples only `factor` and `mean` are used, so the cost does not depend on
    their number.

    weights: the norm over the samples x of the coefficients (x . t) / |t|^2, where t is the text as its step sees it:
    projected, and without the directions of the texts before it. These are the coefficients of the published code,
    which takes (x . t) / |t|^2 times t out of the data; a weight times |t| is the norm of what its step takes out. Two
    other numbers are sometimes meant: the standard deviation of x . t, by which the published code chooses
    (`weight |t|^2 / sqrt(n - 1)`), and the coefficients of a joint fit by all texts chosen, which `somp` gives. Weights
    of texts with different |t| are therefore not comparable as shares; `explained_variance_ratio` is.

    `BadInputError` as in `somp`, and for a rank below one. O(atom x dim) per step. Source: Gandelsman et al.
    2310.05916, algorithm 1.
    """
    if rank is not None and rank < 1:
        raise BadInputError(f"rank is at least 1; got {rank}")
    samples, scale = _checked(data, dictionary, n_texts)
    # X^T X of rows that are not centered is A^T A + n m m^T, whatever the scores are
    rows = torch.cat([samples.factor, len(samples) ** 0.5 * samples.mean[None]])
    _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
    spanned = int((singular > samples.rounding * singular[0]).sum())
    vectors = vectors[: spanned if rank is None else min(rank, spanned)]
    projected = (dictionary.atoms @ vectors.mT) @ vectors
    path = _greedy(samples, projected, n_texts, _largest_sum_of_squares)
    return Chosen(
        path.indices,
        tuple(dictionary.texts[i] for i in path.indices),
        tuple((scale * path.product / path.length.square()).tolist()),
        tuple(path.explained.tolist()),
    )


def omp(direction: Float[Tensor, " dim"], dictionary: TextDictionary, n_texts: int) -> Chosen:
    """Choose texts one by one by |residual . atom|; after each, fit the direction anew by all chosen so far.

    Nothing is centered: there is one sample, and its mean is itself. weights: the coefficients of the last fit, with
    their signs: a positive text speaks of the end the direction points to, a negative one of the other.
    explained_variance_ratio: share of the direction's squared length. A direction of zeros has no texts.

    `BadInputError` for n_texts below one, and for a different size than the dictionary's. O(atom x dim) per step.
    Source: Pati, Rezaiifar and Krishnaprasad 1993.
    """
    return omp_each(direction[None], dictionary, n_texts)[0]


def omp_each(
    directions: Float[Tensor, "direction dim"], dictionary: TextDictionary, n_texts: int
) -> tuple[Chosen, ...]:
    """`omp` of several directions at once, each by itself: the products with all texts are one matrix per step."""
    if n_texts < 1:
        raise BadInputError(f"n_texts is at least 1; got {n_texts}")
    if directions.shape[1] != dictionary.dim:
        raise BadInputError(
            f"directions of {directions.shape[1]} dimensions, texts of {dictionary.dim}; expected one output space"
        )
    if not bool(torch.isfinite(directions).all()):
        raise BadInputError("a direction holds NaN or infinity; expected finite numbers")
    atoms = dictionary.atoms
    # each direction in units of a power of two near its largest number: squares then neither vanish nor overflow
    scale = _unit_of(directions.to(atoms.dtype).abs().amax(dim=1, keepdim=True))
    directions = directions.to(atoms.dtype) / scale
    residual = directions.clone()
    total = residual.square().sum(dim=1)
    steps = min(n_texts, len(atoms))
    # rows beyond a direction's own count stay zero and change nothing
    basis = residual.new_zeros(len(residual), steps, atoms.shape[1])
    own = atoms.square().sum(dim=1)
    left = own.expand(len(residual), -1).clone()
    indices: list[list[int]] = [[] for _ in residual]
    explained: list[list[float]] = [[] for _ in residual]
    rows = torch.arange(len(residual))
    for step in range(steps):
        magnitudes = (residual @ atoms.mT).abs()
        magnitudes[left <= _DEPENDENT * own.clamp(min=1e-300)] = -1.0
        value, index = magnitudes.max(dim=1)
        going = value > _EXPLAINED * total.sqrt()
        if not bool(going.any()):
            break
        direction = atoms[index]
        for _ in range(2):
            direction = direction - ((basis @ direction[..., None]).mT @ basis)[:, 0]
        direction = torch.where(going[:, None], direction / direction.norm(dim=1, keepdim=True), 0.0)
        basis[:, step] = direction
        residual = residual - (residual * direction).sum(dim=1, keepdim=True) * direction
        left -= (direction @ atoms.mT).square()
        left[rows[going], index[going]] = 0.0
        shares = (1 - residual.square().sum(dim=1) / total.clamp(min=1e-300)).clamp(min=0.0)
        for i in going.nonzero().flatten().tolist():
            indices[i].append(int(index[i]))
            explained[i].append(float(shares[i]))
    return tuple(
        _chosen(dictionary, directions[i], basis[i, : len(taken)], taken, explained[i], float(scale[i]))
        for i, taken in enumerate(indices)
    )


def _unit_of(largest: Tensor) -> Tensor:
    """A power of two near each number, so that dividing by it is exact; 1 for zero, and within what squares allow."""
    exponent = torch.frexp(largest).exponent.clamp(-1000, 1000)
    extreme = (largest > 0) & ((largest < _SMALLEST) | (largest > _LARGEST))
    return torch.where(extreme, torch.ldexp(torch.ones_like(largest), exponent), 1.0)


def _chosen(
    dictionary: TextDictionary,
    direction: Tensor,
    basis: Tensor,
    indices: list[int],
    explained: list[float],
    scale: float,
) -> Chosen:
    # atoms = lower @ basis, so the weights w of the fit w @ atoms solve w lower = basis . direction
    lower = (dictionary.atoms[indices] @ basis.mT).tril()
    weights = torch.linalg.solve_triangular(lower, (basis @ direction)[None], upper=False, left=False)
    return Chosen(
        tuple(indices),
        tuple(dictionary.texts[i] for i in indices),
        tuple((scale * weights[0]).tolist()),
        tuple(explained),
    )


def _checked(data: Samples | Tensor, dictionary: TextDictionary, n_texts: int) -> tuple[Samples, float]:
    """The samples, once they and the arguments beside them have been looked at, and the unit they are in.

    The unit is 1, unless squares of the samples would vanish or overflow.
    """
    if n_texts < 1:
        raise BadInputError(f"n_texts is at least 1; got {n_texts}")
    samples = data if isinstance(data, Samples) else Samples.of(data)
    if samples.factor.shape[1] != dictionary.dim:
        raise BadInputError(
            f"samples of {samples.factor.shape[1]} dimensions, texts of {dictionary.dim}; expected one output space"
        )
    scale = float(_unit_of(samples.factor.abs().amax().clamp(min=0.0))) if samples.factor.numel() else 1.0
    return replace(samples, factor=samples.factor / scale, mean=samples.mean / scale), scale


@dataclass(frozen=True)
class _Path:
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


def _greedy(samples: Samples, atoms: Float[Tensor, "atom dim"], count: int, pick: Pick) -> _Path:
    """Choose at most `count` atoms. O(atom x dim) per step, and what `pick` costs."""
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
    return _Path(tuple(chosen), basis, shares.clamp(max=1.0), products, sizes)


def _largest_sum_of_squares(samples: Samples, images: Tensor, lengths: Tensor) -> int:
    """The atom whose products with the residual have the largest standard deviation: they are centered already."""
    return _first(lengths)


def _largest_sum_of_magnitudes(samples: Samples, images: Tensor, lengths: Tensor) -> int:
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


def _first(values: Float[Tensor, " atom"]) -> int:
    return int((values >= (1 - _TIE) * values.max()).nonzero()[0])


def _orthogonal(atom: Float[Tensor, " dim"], basis: Float[Tensor, "step dim"]) -> Float[Tensor, " dim"]:
    # twice is enough: what the first pass leaves of the basis is rounding
    for _ in range(2):
        atom = atom - (basis @ atom) @ basis
    return atom
