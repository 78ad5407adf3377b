"""Reading lambda: which components moved, and how accuracy falls when they are reset to 1.

Stability across seeds is in `stability`, learning curves are in `learning_curve`; both have their names here too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign.adapter.stability import Stability, fit_seeds, lambda_stability
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, Features, ScaledUnit, build_features
from residualign.fitting.learning_curve import CurvePoint, LearningCurve, learning_curve

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter
    from residualign.spectrum.spectrum import Spectra, Spectrum

__all__ = [
    "CurvePoint",
    "LearningCurve",
    "MovedComponent",
    "PutBackCurve",
    "PutBackOrder",
    "Stability",
    "fit_seeds",
    "lambda_stability",
    "learning_curve",
    "moved_components",
    "put_back_curve",
    "shown_lambdas",
]

PutBackOrder = Literal["largest", "smallest", "random"]

_POINTS = 41


@dataclass(frozen=True)
class MovedComponent:
    """One lambda, and how far it moves the embedding of an image.

    label: the unit, or `output` for the whole embedding. component: counted from 0, largest variance first; None for a
    unit that is scaled as a whole. value: the lambda; where a common factor of all lambdas changes no cosine
    (`Scaling.scale_free`) it is over their root mean square. explained_variance: of the images of the spectra along
    the component, in squared units of the embedding; None without spectra. effect: root mean square length, over those
    images, of what the embedding gains when the lambda goes from one to its value; |value - 1| without spectra.
    """

    label: str
    component: int | None
    value: float
    explained_variance: float | None
    effect: float

    def to_json(self) -> dict[str, Any]:
        """As JSON types; the value under the name `lambda`."""
        content = asdict(self)
        content["lambda"] = content.pop("value")
        return content


@dataclass(frozen=True)
class PutBackCurve:
    """Accuracy as more and more lambdas are put back to one.

    order: by effect, largest or smallest first, or random from `seed`. put_back: how many lambdas are one at each
    point; the first is 0, the last all of them. accuracy: shares in [0, 1], of the same images.
    """

    order: str
    seed: int | None
    put_back: tuple[int, ...]
    accuracy: tuple[float, ...]
    n_images: int

    def needed_for(self, share: float) -> int | None:
        """The fewest lambdas put back at which the gain from fitting has fallen to this share; None if it never does.

        Exact to the spacing of the points. The gain is the accuracy at the first point less that at the last.
        """
        gain = self.accuracy[0] - self.accuracy[-1]
        threshold = self.accuracy[-1] + share * gain
        below = (n for n, value in zip(self.put_back, self.accuracy, strict=True) if value <= threshold)
        return next(below, None)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "put_back": list(self.put_back), "accuracy": list(self.accuracy)}


def moved_components(adapter: Adapter, spectra: Spectra | None = None) -> tuple[MovedComponent, ...]:
    """Every lambda of an adapter with its effect on the embedding, largest effect first (ties: in the order of units).

    spectra: of the images whose variance counts, not necessarily those the components are from: the variance along a
    component phi is sum_j v_j (phi . phi_j)^2. A whole unit moves with its mean, so its effect is
    |value - 1| sqrt(total variance + |mean|^2). `BadInputError` for an adapter without lambdas (`linear`). Costs
    O(component^2 x dim) a unit.
    """
    lambdas = _lambdas(adapter).tolist()
    found: list[MovedComponent] = []
    for unit in adapter.full_scaling.units:
        spectrum = None if spectra is None else spectra.output if unit.label == OUTPUT else spectra[unit.label]
        values = lambdas[len(found) : len(found) + unit.n_lambdas]
        variances, second_moments = _variances(unit, spectrum)
        for k, value in enumerate(values):
            moment = 1.0 if second_moments is None else second_moments[k]
            found.append(
                MovedComponent(
                    label=unit.label,
                    component=None if unit.components is None else k,
                    value=value,
                    explained_variance=None if variances is None else variances[k],
                    effect=abs(value - 1.0) * moment**0.5,
                )
            )
    return tuple(sorted(found, key=lambda one: -one.effect))


def put_back_curve(
    adapter: Adapter,
    coordinates: Coordinates,
    labels: Int[Tensor, " image"],
    *,
    spectra: Spectra | None = None,
    order: str = "largest",
    points: int = _POINTS,
    seed: int = 0,
) -> PutBackCurve:
    """Accuracy on labelled images as lambdas are put back to one, a few more at each point.

    spectra: as in `moved_components`, which decides the order; without them it is that of |value - 1|. points: at most
    so many, denser at both ends. Exact: each point is the accuracy of the adapter with these lambdas set to one, in
    float64. Costs O(image x component x dim) in all, however many points, beside image x class x dim for each.
    """
    _check_curve(order, points, labels, len(coordinates))
    lambdas = _lambdas(adapter)
    ranked = _order(adapter, spectra, order, seed)
    counts = _counts(len(ranked), points)
    maps = adapter.maps.to(dtype=torch.float64)
    features = build_features(coordinates, maps, adapter.full_scaling, torch.float64)
    correct = torch.zeros(len(counts), dtype=torch.long)
    size = features.chunk if features.values is None else 2048
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        correct += _correct(adapter, features, part, labels[part], lambdas, ranked, counts)
    accuracy = tuple((correct.double() / len(labels)).tolist())
    return PutBackCurve(order, seed if order == "random" else None, counts, accuracy, len(labels))


def _correct(
    adapter: Adapter,
    features: Features,
    part: slice,
    labels: Tensor,
    lambdas: Tensor,
    ranked: Int[Tensor, " lambda"],
    counts: Sequence[int],
) -> Int[Tensor, " point"]:
    """How many of some images are classified rightly at each point."""
    values = features.rows(part)
    embedded = features.adapted(lambdas, part)
    right = []
    for before, count in zip((0, *counts), counts, strict=False):
        back = ranked[before:count]
        columns = back if features.one_lambda_a_feature else torch.isin(features.group, back).nonzero().flatten()
        change = 1.0 - lambdas[features.group[columns]]
        embedded = embedded + (values[:, columns] * change) @ features.weight[columns]
        right.append((adapter.classifier.logits(embedded).argmax(dim=-1).cpu() == labels.cpu()).sum())
    return torch.stack(right)


def shown_lambdas(adapter: Adapter) -> dict[str, Tensor]:
    """Lambdas in float64 by the label of their unit, as commands, page and figures show them.

    Where a common factor of all lambdas changes no cosine (`Scaling.scale_free`: nothing is left unscaled) they are
    divided by their root mean square, else they are as fitted; `linear` has none.
    """
    return adapter.full_scaling.split(_lambdas(adapter)) if "lambdas" in adapter.learned else {}


def _lambdas(adapter: Adapter) -> Float[Tensor, " lambda"]:
    """All lambdas in float64, over their root mean square where a common factor means nothing."""
    if "lambdas" not in adapter.learned:
        raise BadInputError(f"method {adapter.method!r} has no lambdas to read")
    lambdas = adapter.learned["lambdas"].to(adapter.maps.embedding.device, torch.float64)
    return lambdas / lambdas.square().mean().sqrt() if adapter.full_scaling.scale_free else lambdas


def _order(adapter: Adapter, spectra: Spectra | None, order: str, seed: int) -> Int[Tensor, " lambda"]:
    """Positions in the joined vector of lambdas, in the order they are put back."""
    starts, first = {}, 0
    for unit in adapter.full_scaling.units:
        starts[unit.label] = first
        first += unit.n_lambdas
    if order == "random":
        return torch.randperm(first, generator=torch.Generator().manual_seed(seed))
    moved = moved_components(adapter, spectra)
    positions = torch.tensor([starts[one.label] + (one.component or 0) for one in moved], dtype=torch.long)
    return positions if order == "largest" else positions.flip(0)


def _variances(unit: ScaledUnit, spectrum: Spectrum | None) -> tuple[list[float] | None, list[float] | None]:
    """Variance, and mean square of what the lambda multiplies, by component of a unit."""
    if spectrum is None:
        return None, None
    if unit.components is None:
        moment = spectrum.total_variance + float(spectrum.mean.double().square().sum())
        return [spectrum.total_variance], [moment]
    own = spectrum.components.to(unit.components)
    along = (unit.components @ own.T).square() @ spectrum.explained_variance.to(unit.components)
    variance: list[float] = along.tolist()
    # a spectrum made of other images has another mean; what is scaled is the distance from the adapter's own
    shift = unit.components @ (spectrum.mean.to(unit.components) - unit.mean)
    return variance, (along + shift.square()).tolist()


def _counts(total: int, points: int) -> tuple[int, ...]:
    """0 ... total, denser at both ends: there the lambdas with the largest effect are, whichever order it is."""
    steps = points - 1
    return tuple(dict.fromkeys(round(total * (1 - math.cos(math.pi * i / steps)) / 2) for i in range(steps + 1)))


def _check_curve(order: str, points: int, labels: Tensor, n_images: int) -> None:
    if order not in get_args(PutBackOrder):
        raise BadInputError(f"order is one of {', '.join(get_args(PutBackOrder))}; got {order!r}")
    if points < 2:
        raise BadInputError(f"points is at least 2, the first and the last; got {points}")
    if len(labels) != n_images or not n_images:
        raise BadInputError(f"labels and coordinates are of the same images, at least one; got {len(labels)} labels "
                            f"for {n_images} images")  # fmt: skip
