"""Do lambdas depend on the seed? Rank correlation between fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT
from residualign.fitting.fit import FitSettings, Fitted, few_images, fit_method
from residualign.spectrum.moments import Moments
from residualign.units import Unit

if TYPE_CHECKING:
    from residualign.classification.classifier import Classifier
    from residualign.spectrum.spectrum import Spectra
    from residualign.store import Store

__all__ = ["Stability", "Vary", "fit_seeds", "lambda_stability"]

Vary = Literal["start", "images"]

_SHARE = 0.8


@runtime_checkable
class _HasLambdas(Protocol):
    """What was fitted, or an adapter."""

    @property
    def lambdas(self) -> Mapping[str, Tensor]:
        """By label."""
        ...


@dataclass(frozen=True)
class Stability:
    """Spearman's rank correlation of lambdas between every pair of fits.

    kind: `all`, `head`, `mlp` or `output`. weighted: whether components are weighted by their variance. mean, low,
    high: over the pairs, in [-1, 1]; NaN if the lambdas of a fit are all equal.
    """

    kind: str
    weighted: bool
    mean: float
    low: float
    high: float
    n_pairs: int
    n_lambdas: int

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def lambda_stability(fits: Sequence[_HasLambdas], spectra: Spectra | None = None) -> tuple[Stability, ...]:
    """Rank correlations between the lambdas of fits on the same components, over all of them and for each kind.

    spectra: of the components; if given, each kind also comes with components weighted by their variance (the Pearson
    correlation of the ranks under these weights). `BadInputError` for fewer than two fits, for fits without lambdas,
    and for fits that differ in units or numbers of components. O(fit^2 x lambda).
    """
    if len(fits) < 2:
        raise BadInputError(f"stability compares fits: at least two, got {len(fits)}")
    tables = [fit.lambdas for fit in fits]
    sizes = [{label: len(values) for label, values in table.items()} for table in tables]
    if not sizes[0]:
        raise BadInputError("stability is about lambdas, and these fits have none (method 'linear')")
    if any(size != sizes[0] for size in sizes):
        raise BadInputError("stability compares fits on the same components; these have other units or numbers of them")
    kinds: dict[str, list[str]] = {"all": list(tables[0])}
    for label in tables[0]:
        kinds.setdefault(OUTPUT if label == OUTPUT else Unit.parse(label).kind, []).append(label)
    if len(kinds) == 2:
        # one kind alone is all of them
        kinds.pop("all")
    found = []
    for kind, labels in kinds.items():
        lambdas = [torch.cat([table[label].detach().double().cpu() for label in labels]).numpy() for table in tables]
        found.append(_stability(kind, lambdas, None))
        if spectra is not None:
            found.append(_stability(kind, lambdas, _variances(spectra, labels, sizes[0])))
    return tuple(found)


def fit_seeds(
    store: Store,
    seeds: Sequence[int],
    method: str = "residual",
    spectra: Spectra | None = None,
    *,
    vary: str = "start",
    classifier: Classifier | str | None = None,
    settings: FitSettings | None = None,
) -> tuple[Fitted, ...]:
    """One fit per seed, on the same components.

    vary: `start` starts from lambdas of 1 + N(0, 1), as in the paper; `images` starts from ones and fits on a random
    0.8 of the training images (of every class). spectra: None takes those of all training images. settings: of every
    fit, except the seed and the start. Started from ones on all images, L-BFGS does not depend on the seed.
    """
    if vary not in ("start", "images"):
        raise BadInputError(f"vary is 'start' or 'images', got {vary!r}")
    if spectra is None:
        moments = Moments.empty(store.maps).update(few_images(store, None).split("train").coordinates())
        spectra = moments.spectra(store.maps, source="training split")
    used = settings or FitSettings()
    if vary == "start":
        used = replace(used, start="randn")
    labels = store.split("train").labels
    return tuple(
        fit_method(
            store if vary == "start" else store.subset({"train": _share(labels, seed)}),
            method,
            spectra,
            classifier=classifier,
            settings=replace(used, seed=seed),
        )
        for seed in seeds
    )


def _share(labels: Tensor, seed: int) -> Tensor:
    """Positions, ascending, of a random share of every class; a class of two images keeps both."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in sorted(set(labels.tolist())):
        rows = (labels == label).nonzero().flatten()
        keep = max(round(_SHARE * len(rows)), min(2, len(rows)))
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:keep]])
    return torch.cat(chosen).sort().values if chosen else labels.new_zeros(0)


def _variances(spectra: Spectra, labels: Sequence[str], sizes: Mapping[str, int]) -> NDArray[np.float64]:
    """The variance of every component; a unit scaled as a whole counts with all of its variance."""
    parts = []
    for label in labels:
        spectrum = spectra.output if label == OUTPUT else spectra[label]
        variance = spectrum.explained_variance.double().cpu().numpy()
        if sizes[label] == 1 and len(variance) != 1:
            variance = np.array([spectrum.total_variance])
        if len(variance) < sizes[label]:
            raise BadInputError(f"the spectra have {len(variance)} components of {label}, the fits {sizes[label]}")
        parts.append(variance[: sizes[label]])
    return np.concatenate(parts)


def _stability(kind: str, lambdas: Sequence[NDArray[np.float64]], weights: NDArray[np.float64] | None) -> Stability:
    ranks = [rankdata(one) for one in lambdas]
    own = np.ones(len(ranks[0])) if weights is None else weights
    values = np.array([_correlation(one, other, own) for one, other in combinations(ranks, 2)])
    mean, low, high = float(values.mean()), float(values.min()), float(values.max())
    return Stability(kind, weights is not None, mean, low, high, len(values), len(ranks[0]))


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Pearson's correlation under weights; NaN where one side does not vary."""
    share = weights / weights.sum()
    x, y = x - share @ x, y - share @ y
    length = float(share @ (x * x)) * float(share @ (y * y))
    return float(share @ (x * y)) / length**0.5 if length > 0 else float("nan")
