"""Reading lambdas: which components moved, how accuracy falls as they are reset to 1, and how the fit went."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import percent, plural
from residualign._result import Result, Table
from residualign.adapter.compact import CompactScaling
from residualign.adapter.files import AdapterContent
from residualign.adapter.fold import Adapted
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, AnyUnit, Features, Scaling, build_features

if TYPE_CHECKING:
    from residualign.figures._figure import Figure
    from residualign.spectrum.spectrum import Spectra, Spectrum

__all__ = [
    "CurvePoint",
    "LearningCurve",
    "Moved",
    "MovedComponent",
    "PutBackCurve",
    "PutBackOrder",
    "learning_curve",
    "moved_components",
    "put_back_curve",
    "shown_lambdas",
]

PutBackOrder = Literal["largest", "smallest", "random"]

_POINTS, _CHUNK = 41, 2048


@dataclass(frozen=True)
class MovedComponent:
    """One lambda, and how far it moves the embedding of an image.

    label: the unit, or `output` for the whole embedding. component: from 0, largest variance first; None for a unit
    scaled as a whole. value: the lambda, divided by the root mean square of all lambdas if a common factor changes no
    cosine (`Scaling.scale_free`). explained_variance: of the images of the spectra along the component, in squared
    units of the embedding; None without spectra. effect: root mean square length, over those images, of the change of
    the embedding when the lambda goes from one to its value; |value - 1| without spectra.
    """

    label: str
    component: int | None
    value: float
    explained_variance: float | None
    effect: float

    def to_json(self) -> dict[str, Any]:
        """As JSON types; the value under the name `lambda`, and no effect where the images' variance is not known."""
        content = asdict(self)
        content["lambda"] = content.pop("value")
        if self.explained_variance is None:
            content["effect"] = None
        return content


@dataclass(frozen=True, eq=False, repr=False)
class Moved(Result):
    """Every lambda of an adapter, largest effect first.

    scale_free: whether a common factor of all lambdas changes no cosine; they are then divided by their root mean
    square.
    """

    components: tuple[MovedComponent, ...]
    scale_free: bool

    def __len__(self) -> int:
        return len(self.components)

    def __iter__(self) -> Iterator[MovedComponent]:
        return iter(self.components)

    @overload
    def __getitem__(self, index: int) -> MovedComponent: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[MovedComponent, ...]: ...
    def __getitem__(self, index: int | slice) -> MovedComponent | tuple[MovedComponent, ...]:
        return self.components[index]

    @property
    def tables(self) -> dict[str, Table]:
        """`moved`: one row per lambda."""
        return {"moved": [one.to_json() for one in self.components]}

    @property
    def figures(self) -> dict[str, Figure]:
        """`moved`: the lambdas that moved most, and all of them by effect."""
        from residualign.figures.fitting import lambda_figures

        return lambda_figures(self.tables, n_images=0, scale_free=self.scale_free)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {"scale_free": self.scale_free, **self.tables}

    def _summary(self) -> str:
        most = ", ".join(f"{one.label}[{one.component or 0}] {one.value:.3g}" for one in self.components[:3])
        return f"{plural(len(self), 'lambda')}; moved most: {most}"


@dataclass(frozen=True, repr=False)
class PutBackCurve(Result):
    """Accuracy as more and more lambdas are reset to one.

    order: by effect, largest or smallest first, or random from `seed`. put_back: how many lambdas were reset at each
    point; the first is 0, the last all of them. accuracy: shares in [0, 1], of the same images.
    """

    order: str
    seed: int | None
    put_back: tuple[int, ...]
    accuracy: tuple[float, ...]
    n_images: int

    def needed_for(self, share: float) -> int | None:
        """The fewest lambdas to reset for the gain from fitting to fall to this share; None if it never does.

        Exact to the spacing of the points. The gain is the accuracy at the first point minus that at the last.
        """
        gain = self.accuracy[0] - self.accuracy[-1]
        threshold = self.accuracy[-1] + share * gain
        below = (n for n, value in zip(self.put_back, self.accuracy, strict=True) if value <= threshold)
        return next(below, None)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "put_back": list(self.put_back), "accuracy": list(self.accuracy)}

    @property
    def tables(self) -> dict[str, Table]:
        """`put_back`: one row per point."""
        points = zip(self.put_back, self.accuracy, strict=True)
        return {"put_back": [{"order": self.order, "seed": self.seed, "put_back": n, "accuracy": a} for n, a in points]}

    def _summary(self) -> str:
        ends = (
            f"accuracy {percent(self.accuracy[0])} -> {percent(self.accuracy[-1])} on {plural(self.n_images, 'image')}"
        )
        return f"{plural(self.put_back[-1], 'lambda')} reset, {self.order} first, {ends}"


def moved_components(
    scaling: Scaling | CompactScaling, lambdas: Float[Tensor, " lambda"], spectra: Spectra | None = None
) -> Moved:
    """Every lambda with its effect on the embedding, largest effect first (ties: in the order of units).

    scaling: with spectra the one in the output space, `Scaling`. spectra: of the images whose variance counts, not
    necessarily those the components are from: the variance along a component phi is sum_j v_j (phi . phi_j)^2. A whole
    unit moves with its mean, so its effect is |value - 1| sqrt(total variance + |mean|^2). Costs O(component^2 x dim)
    per unit.
    """
    components = _in_unit_order(scaling, lambdas, spectra)
    return Moved(tuple(sorted(components, key=lambda one: -one.effect)), scaling.scale_free)


def _in_unit_order(
    scaling: Scaling | CompactScaling, lambdas: Float[Tensor, " lambda"], spectra: Spectra | None
) -> list[MovedComponent]:
    found = []
    parts = scaling.split(_over_their_size(lambdas, scaling.scale_free))
    for unit, (label, values) in zip(scaling.units, parts.items(), strict=True):
        spectrum = None if spectra is None else spectra.output if label == OUTPUT else spectra[label]
        variances = [(None, 1.0)] * len(values) if spectrum is None else _variances(unit, spectrum)
        for k, (value, (variance, moment)) in enumerate(zip(values.tolist(), variances, strict=True)):
            component = None if unit.components is None else k
            found.append(MovedComponent(label, component, value, variance, abs(value - 1.0) * moment**0.5))
    return found


def put_back_curve(
    adapted: Adapted,
    coordinates: Coordinates,
    labels: Int[Tensor, " image"],
    *,
    spectra: Spectra | None = None,
    order: str = "largest",
    points: int = _POINTS,
    seed: int = 0,
) -> PutBackCurve:
    """Accuracy on labeled images as lambdas are reset to one, a few more at each point.

    spectra: as in `moved_components`, which decides the order; without them it is that of |value - 1|. points: the most
    points of the curve, denser at both ends. Exact: each point is the accuracy of the adapter with these lambdas set to
    one, in float64. Costs O(image x component x dim) for all points together, and image x class x dim per point.
    """
    _check_curve(order, points, labels, len(coordinates))
    if "lambdas" not in adapted.learned:
        raise BadInputError("the adapter has no lambdas to read: its method is a linear map")
    lambdas = _over_their_size(adapted.learned["lambdas"].to(adapted.maps.embedding.device), adapted.scaling.scale_free)
    ranked = _order(adapted, spectra, order, seed)
    counts = _counts(len(ranked), points)
    maps = adapted.maps.to(dtype=torch.float64)
    features = build_features(coordinates, maps, adapted.scaling, torch.float64)
    correct = torch.zeros(len(counts), dtype=torch.long)
    size = min(features.chunk, _CHUNK)
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        correct += _correct(adapted, features, part, labels[part], lambdas, ranked, counts)
    accuracy = tuple((correct.double() / len(labels)).tolist())
    return PutBackCurve(order, seed if order == "random" else None, counts, accuracy, len(labels))


def _correct(
    adapted: Adapted,
    features: Features,
    part: slice,
    labels: Tensor,
    lambdas: Tensor,
    ranked: Int[Tensor, " lambda"],
    counts: Sequence[int],
) -> Int[Tensor, " point"]:
    """How many of some images are classified correctly at each point."""
    values = features.rows(part)
    embedded = features.adapted(lambdas, part)
    right = []
    for before, count in zip((0, *counts), counts, strict=False):
        back = ranked[before:count]
        columns = back if features.one_lambda_a_feature else torch.isin(features.group, back).nonzero().flatten()
        change = 1.0 - lambdas[features.group[columns]]
        embedded = embedded + (values[:, columns] * change) @ features.weight[columns]
        right.append((adapted.classifier.logits(embedded).argmax(dim=-1).cpu() == labels.cpu()).sum())
    return torch.stack(right)


def shown_lambdas(adapter: AdapterContent) -> Mapping[str, Tensor]:
    """Lambdas in float64 by unit label, as commands, page and figures show them.

    Divided by their root mean square if a common factor of all lambdas changes no cosine (`Scaling.scale_free`: nothing
    is left unscaled), else as fitted; `linear` has none.
    """
    if "lambdas" not in adapter.learned:
        return {}
    return adapter.scaling.split(_over_their_size(adapter.learned["lambdas"], adapter.scaling.scale_free))


def _over_their_size(lambdas: Float[Tensor, " lambda"], scale_free: bool) -> Float[Tensor, " lambda"]:
    lambdas = lambdas.double()
    return lambdas / lambdas.square().mean().sqrt() if scale_free else lambdas


def _order(adapted: Adapted, spectra: Spectra | None, order: str, seed: int) -> Int[Tensor, " lambda"]:
    """Positions in the joined vector of lambdas, in the order they are reset."""
    if order == "random":
        return torch.randperm(adapted.scaling.n_lambdas, generator=torch.Generator().manual_seed(seed))
    components = _in_unit_order(adapted.scaling, adapted.learned["lambdas"], spectra)
    effects = torch.tensor([one.effect for one in components], dtype=torch.float64)
    positions = effects.argsort(descending=True, stable=True)
    return positions if order == "largest" else positions.flip(0)


def _variances(unit: AnyUnit, spectrum: Spectrum) -> list[tuple[float, float]]:
    """Variance, and mean square of what the lambda multiplies, by component of a unit."""
    if unit.components is None or unit.mean is None:
        return [(spectrum.total_variance, spectrum.total_variance + float(spectrum.mean.double().square().sum()))]
    own = spectrum.components.to(unit.components)
    variance = (unit.components @ own.T).square() @ spectrum.explained_variance.to(unit.components)
    # a spectrum of different images has a different mean; what is scaled is the distance from the adapter's own
    shift = unit.components @ (spectrum.mean.to(unit.components) - unit.mean)
    return list(zip(variance.tolist(), (variance + shift.square()).tolist(), strict=True))


def _counts(total: int, points: int) -> tuple[int, ...]:
    """0 ... total, denser at both ends, where the lambdas with the largest effect are in either order."""
    steps = points - 1
    return tuple(dict.fromkeys(round(total * (1 - math.cos(math.pi * i / steps)) / 2) for i in range(steps + 1)))


def _check_curve(order: str, points: int, labels: Tensor, n_images: int) -> None:
    if order not in get_args(PutBackOrder):
        raise BadInputError(f"order is one of {', '.join(get_args(PutBackOrder))}; got {order!r}")
    if points < 2:
        raise BadInputError(f"points is at least 2, the first and the last; got {points}")
    if len(labels) != n_images or not n_images:
        raise BadInputError(f"labels and coordinates are of the same images, at least one; got {len(labels)} labels "
                            f"for {plural(n_images, 'image')}")  # fmt: skip


_STEPS = ("iteration", "epoch", "learning_rate")


@dataclass(frozen=True)
class CurvePoint:
    """One validation. step: an iteration or epoch, counted from 1, or a learning rate; losses are mean cross-entropies.

    train_loss: None if only validation was evaluated. val_loss: None if it was not finite. val_accuracy: in [0, 1],
    None if it was not measured. seconds: since the fit began (for a learning rate: the time spent on it).
    """

    step: float
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float | None


@dataclass(frozen=True, repr=False)
class LearningCurve(Result):
    """One run of a solver. candidate: its configuration, in words; empty if there was only one.

    step_name: what a step is: `iteration`, `epoch`, or `learning_rate` for the search before the fit.
    """

    solver: str
    candidate: str
    step_name: str
    points: tuple[CurvePoint, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row per point."""
        own = {"solver": self.solver, "candidate": self.candidate, "step_name": self.step_name}
        return [own | asdict(point) for point in self.points]

    @property
    def tables(self) -> dict[str, Table]:
        """`learning_curve`: one row per point."""
        return {"learning_curve": self.rows()}

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    def _summary(self) -> str:
        return f"{self.solver}, {self.candidate or 'one candidate'}, {len(self.points):,} x {self.step_name}"


def learning_curve(history: Sequence[Mapping[str, Any]]) -> tuple[LearningCurve, ...]:
    """The curves in a history (`Adapter.history`, the lines of `history.jsonl`), in the order they were run.

    Records without a known step (of an adapter that was not fitted here) are left out.
    """
    curves: dict[tuple[str, str, str], list[CurvePoint]] = {}
    for record in history:
        step_name = next((name for name in _STEPS if name in record), None)
        if step_name is None:
            continue
        key = (str(record.get("solver", "")), _candidate(record), step_name)
        names = ("train_loss", "val_loss", "val_accuracy", "seconds")
        values = (None if record.get(name) is None else float(record[name]) for name in names)
        curves.setdefault(key, []).append(CurvePoint(float(record[step_name]), *values))
    return tuple(LearningCurve(*key, tuple(points)) for key, points in curves.items())


def _candidate(record: Mapping[str, Any]) -> str:
    """The configuration of L-BFGS that validation judged: `L2 penalty on lambdas 0.1, whitening 0.25`."""
    said = []
    for name, pull in (record.get("pull") or {}).items():
        group = name.replace("_", " ")
        said.append(f"{group} {pull}" if isinstance(pull, str) else f"L2 penalty on {group} {pull:g}")
    if "whitening" in record:
        said.append(f"whitening {record['whitening']:g}")
    return ", ".join(said)
