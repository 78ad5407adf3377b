"""The geometry of every unit over the images of one split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign.errors import BadInputError
from residualign.geometry.halves import deviation_interval, draw_halves
from residualign.geometry.points import output_points, unit_points
from residualign.geometry.profile import LayerProfile, layer_profile
from residualign.geometry.two_nn import two_nn
from residualign.spectrum import Spectra, Spectrum, truncate
from residualign.spectrum._pca import RELATIVE_CUTOFF
from residualign.store import StoreSplit
from residualign.units import Unit

__all__ = [
    "PROFILED",
    "Geometry",
    "LinearDimension",
    "UnitGeometry",
    "check_settings",
    "linear_dimension",
    "linear_dimension_of_points",
    "measure_geometry",
]

PROFILED = ("linear_dimension", "two_nn", "ratio", "evr_first", "participation_ratio")

"""The figures that have layer profiles: fields of `UnitGeometry`."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class UnitGeometry:
    """How many dimensions one unit's contributions fill.

    label, kind, layer, head: of the unit; the model's output has kind "output".
    linear_dimension: L, the fewest components that hold the threshold's share of variance; 0 for a unit that never
    varies, and then all that follows is nan.
    two_nn: N, the intrinsic dimension; nan for fewer than three distinct points. two_nn_interval: 95 %, of halves
    without replacement about their mean. two_nn_half: mean over the halves, N at half the density: where it differs
    much from two_nn, the dimension depends on scale. two_nn_straightness: 1 where the fit is a line.
    ratio: L / N; ratio_interval: 95 %, both from the same halves.
    evr_first: share of variance of the first component. participation_ratio: over all eigenvalues.
    n_points: distinct points; n_duplicates: images whose point coincides with an earlier one's, dropped for N.
    """

    label: str
    kind: str
    layer: int | None
    head: int | None
    linear_dimension: int
    two_nn: float
    two_nn_interval: Interval
    two_nn_half: float
    two_nn_straightness: float
    ratio: float
    ratio_interval: Interval
    evr_first: float
    participation_ratio: float
    n_points: int
    n_duplicates: int


@dataclass(frozen=True)
class Geometry:
    """The geometry of units, in unit order, of the model's output (None where units were chosen), and by layer.

    profiles: of every figure in `PROFILED`, for heads, then for MLPs. n_images: points before duplicates went.
    source: whose principal components L, EVR and participation ratio are of. own_spectra: whether of these images.
    """

    units: tuple[UnitGeometry, ...]
    output: UnitGeometry | None
    profiles: tuple[LayerProfile, ...]
    threshold: float
    fraction: float
    subsamples: int
    seed: int
    n_images: int
    source: str
    own_spectra: bool

    def unit(self, label: str) -> UnitGeometry:
        """The unit with this label, or "output"; `BadInputError` where it was not measured."""
        found = next((one for one in self._all() if one.label == label), None)
        if found is None:
            raise BadInputError(
                f"unit {label!r} was not measured; measured were {', '.join(u.label for u in self._all())}"
            )
        return found

    def profile(self, quantity: str, kind: str = "head") -> LayerProfile | None:
        """The profile of one figure; None where no unit of that kind was measured."""
        return next((one for one in self.profiles if (one.quantity, one.kind) == (quantity, kind)), None)

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a unit, flat, for tables; intervals as two columns."""
        return [_flat(asdict(one)) for one in self._all()]

    def profile_rows(self) -> list[dict[str, Any]]:
        """One mapping a layer of each profile, for tables."""
        return [
            {
                "kind": profile.kind,
                "quantity": profile.quantity,
                "layer": layer,
                "mean": profile.mean[i],
                "mean_low": profile.intervals[i][0],
                "mean_high": profile.intervals[i][1],
                "spread": profile.spread[i],
            }
            for profile in self.profiles
            for i, layer in enumerate(profile.layers)
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, but for nan."""
        return asdict(self)

    def _all(self) -> tuple[UnitGeometry, ...]:
        return self.units if self.output is None else (*self.units, self.output)


def measure_geometry(
    split: StoreSplit,
    spectra: Spectra,
    *,
    units: Iterable[Unit] | None = None,
    threshold: float = 0.99,
    fraction: float = 0.9,
    subsamples: int = 100,
    seed: int = 0,
    own_spectra: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Geometry:
    """Linear and intrinsic dimension, their ratio, and how variance is spread, of every unit over a split.

    spectra: where L, EVR and participation ratio come from; own_spectra says that they are of these very images, and
    then every half sample has its own; else they are one given number, and only N varies. units: None for all of them
    and the model's output. threshold: share of variance in (0, 1]. fraction: share of points of the TwoNN fit.
    subsamples: half samples without replacement (an even number; 0: no intervals), the same images for every unit.
    seed: of the halves. progress: called with (units done, units).

    Raises `BadInputError` for an empty split, spectra of another tower, and numbers out of range. Time and memory: see
    `nearest` and `unit_points`; the halves cost an eigendecomposition each. Source: arXiv 2411.00246 section 4.
    """
    store, n = split.store, len(split)
    if n == 0:
        raise BadInputError(f"split {split.name!r} has no images, and geometry needs at least one")
    if spectra.units != store.units or spectra.dim != store.maps.dim:
        raise BadInputError(
            f"the spectra belong to {spectra.units} in {spectra.dim} dimensions, "
            f"the store has {store.units} in {store.maps.dim}"
        )
    check_settings(threshold, fraction, subsamples)
    wanted = tuple(store.units) if units is None else tuple(units)
    halves = draw_halves(n, subsamples, seed)
    total = len(wanted) + (units is None)
    measured: list[_Measured] = []
    for unit, spectrum, points in _everything(split, spectra, wanted, units is None):
        measured.append(_measure(unit, spectrum, points, threshold, fraction, halves, own_spectra))
        if progress is not None:
            progress(len(measured), total)
    of_units = measured[: len(wanted)]
    return Geometry(
        units=tuple(one.unit for one in of_units),
        output=measured[-1].unit if units is None else None,
        profiles=tuple(_profiles(of_units)),
        threshold=threshold,
        fraction=fraction,
        subsamples=subsamples,
        seed=seed,
        n_images=n,
        source=spectra.source,
        own_spectra=own_spectra,
    )


def check_settings(threshold: float, fraction: float, subsamples: int) -> None:
    """`BadInputError` for numbers that `measure_geometry` refuses."""
    if not 0 < threshold <= 1:
        raise BadInputError(f"threshold is a share of variance in (0, 1], got {threshold}")
    if not 0 < fraction <= 1:
        raise BadInputError(f"fraction is a share of the points in (0, 1], got {fraction}")
    if subsamples < 0 or subsamples % 2:
        raise BadInputError(
            f"subsamples come in pairs of halves: expected an even number, or 0 for none, got {subsamples}"
        )


@dataclass(frozen=True, eq=False)
class _Measured:
    """A unit, and the figures in `PROFILED` over each half."""

    unit: UnitGeometry
    halves: Float[Tensor, "half 5"]


def _everything(
    split: StoreSplit, spectra: Spectra, units: Sequence[Unit], with_output: bool
) -> Iterator[tuple[Unit | None, Spectrum, Tensor]]:
    own = ((unit, spectra[unit.label], points) for unit, points in unit_points(split, units))
    output = ((None, spectra.output, output_points(split)) for _ in range(with_output))
    return chain(own, output)


def _measure(
    unit: Unit | None,
    spectrum: Spectrum,
    points: Float[Tensor, "image size"],
    threshold: float,
    fraction: float,
    halves: Sequence[Int[Tensor, " member"]],
    own_spectra: bool,
) -> _Measured:
    linear = linear_dimension(spectrum, threshold)
    if own_spectra and linear.components == 0:
        # what is left of a unit that never varies is rounding
        points = torch.zeros_like(points)
    intrinsic = two_nn(points, fraction=fraction, halves=halves)
    if own_spectra:
        of_halves = [linear_dimension_of_points(points[half], threshold) for half in halves]
    else:
        of_halves = [linear] * len(halves)
    table = torch.tensor(
        [_figures(one, n) for one, n in zip(of_halves, intrinsic.halves.tolist(), strict=True)], dtype=torch.float64
    ).view(-1, len(PROFILED))
    ratio = _ratio(linear, intrinsic.dimension)
    measured = UnitGeometry(
        label="output" if unit is None else unit.label,
        kind="output" if unit is None else unit.kind,
        layer=None if unit is None else unit.layer,
        head=None if unit is None else unit.head,
        linear_dimension=linear.components,
        two_nn=intrinsic.dimension,
        two_nn_interval=intrinsic.interval,
        two_nn_half=float(intrinsic.halves.nanmean()) if halves else math.nan,
        two_nn_straightness=intrinsic.fit.straightness,
        ratio=ratio,
        ratio_interval=deviation_interval(ratio, table[:, PROFILED.index("ratio")]),
        evr_first=linear.evr_first,
        participation_ratio=linear.participation_ratio,
        n_points=intrinsic.n_points,
        n_duplicates=intrinsic.n_duplicates,
    )
    return _Measured(measured, table)


def _figures(linear: LinearDimension, dimension: float) -> tuple[float, ...]:
    """In the order of `PROFILED`."""
    ratio = _ratio(linear, dimension)
    return float(linear.components), dimension, ratio, linear.evr_first, linear.participation_ratio


def _ratio(linear: LinearDimension, dimension: float) -> float:
    return linear.components / dimension


def _profiles(measured: Sequence[_Measured]) -> Iterator[LayerProfile]:
    for kind in ("head", "mlp"):
        chosen = [one for one in measured if one.unit.kind == kind and one.unit.layer is not None]
        if not chosen:
            continue
        layers = tuple(one.unit.layer for one in chosen if one.unit.layer is not None)
        for i, quantity in enumerate(PROFILED):
            values = torch.tensor([float(getattr(one.unit, quantity)) for one in chosen], dtype=torch.float64)
            halves = torch.stack([one.halves[:, i] for one in chosen], dim=1)
            yield layer_profile(quantity, kind, layers, values, halves)


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, tuple):
            stem = name.removesuffix("_interval")
            flat |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
        else:
            flat[name] = value
    return flat


@dataclass(frozen=True)
class LinearDimension:
    """components: the fewest leading ones that hold the threshold's share of variance; 0 where nothing varies.

    evr_first: the share of the first component, in (0, 1]. participation_ratio: (sum of eigenvalues)^2 over the sum of
    their squares, from 1 (one direction) to the number of directions (all alike). Both nan where nothing varies.
    """

    components: int
    evr_first: float
    participation_ratio: float


def linear_dimension(spectrum: Spectrum, threshold: float = 0.99) -> LinearDimension:
    """The linear dimension L of a unit from its spectrum.

    threshold: a share of variance in (0, 1]; `BadInputError` outside. Where a spectrum was cut (a head of a tower that
    pools by attention keeps head_dim components unless told otherwise) and does not reach the threshold, L is the
    number it has, and the participation ratio leaves the squares of what was cut out of its denominator. Source: arXiv
    2411.00246 section 4 (L and the explained variance ratio); the participation ratio as in its published code.
    """
    kept = truncate(spectrum, threshold).n_components
    if kept == 0:
        return LinearDimension(0, float("nan"), float("nan"))
    variance = spectrum.explained_variance.double()
    participation = spectrum.total_variance**2 / float(variance.square().sum())
    return LinearDimension(kept, float(variance[0]) / spectrum.total_variance, participation)


def linear_dimension_of_points(points: Float[Tensor, "image size"], threshold: float = 0.99) -> LinearDimension:
    """The same for points without a spectrum, by the rules of one: O(image size^2 + size^3)."""
    centred = points.double() - points.double().mean(dim=0)
    n, size = centred.shape
    # the smaller of the two products: both have the same eigenvalues but for zeros
    product = centred @ centred.T if n < size else centred.T @ centred
    variance = torch.linalg.eigvalsh(product).flip(0).clamp(min=0) / max(n - 1, 1)
    largest = float(variance[0]) if len(variance) else 0.0
    kept = variance[variance > RELATIVE_CUTOFF * largest] if largest > 0 else variance[:0]
    nothing = torch.zeros(len(kept), 0, dtype=torch.float64)
    spectrum = Spectrum(points.new_zeros(0).double(), nothing, kept, float(variance.sum()), n)
    return linear_dimension(spectrum, threshold)
