"""What `measure_geometry` finds: figures of every unit, their profiles by layer, and two tests of a profile."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._messages import listed, plural
from residualign._result import Result, Table
from residualign.errors import BadInputError

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["PROFILED", "Geometry", "Hunchback", "LayerProfile", "Trend", "UnitGeometry"]

PROFILED = ("linear_dimension", "two_nn", "ratio", "evr_first", "participation_ratio")
"""The figures that have layer profiles: fields of `UnitGeometry`."""

Interval = tuple[float, float]


@dataclass(frozen=True, repr=False)
class UnitGeometry(Result):
    """How many dimensions the contributions of one unit fill.

    Attributes
    ----------
    label, kind, layer, head
        The unit; the model's output has the label and the kind "output".
    linear_dimension : int
        L, the number of principal components that explain `variance_threshold` of the variance; 0 for a unit that never
        varies, and then everything below is NaN.
    two_nn : float
        N, the intrinsic dimension; NaN for fewer than three distinct points.
    two_nn_interval : tuple of float
        95 % interval of N, from half-samples.
    two_nn_half : float
        Mean of N over the half-samples, that is at half the density. Where it differs much from `two_nn`, the dimension
        depends on scale.
    two_nn_straightness : float
        Squared cosine between both sides of the fitted line: 1 for a perfect fit.
    ratio, ratio_interval
        L / N and its 95 % interval, from the same half-samples.
    evr_first : float
        Share of the variance that the first component explains, in (0, 1].
    participation_ratio : float
        (Sum of eigenvalues)^2 / sum of their squares: 1 for one direction, k for k equal ones.
    n_points, n_duplicates : int
        Distinct points, and images that were dropped for N because their point coincides with an earlier one.
    near_duplicates : float
        Share of the distinct points whose nearest neighbor is closer than a thousandth of the median nearest distance.
    doubtful : bool
        Whether N is not to be relied on: more than one point in a hundred is such a near duplicate, or the straightness
        is below 0.9 (of 100 points or more).
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
    near_duplicates: float
    doubtful: bool

    def _summary(self) -> str:
        return f"{self.label}: L={self.linear_dimension}, N={self.two_nn:.3g}, L/N={self.ratio:.3g}"

    @property
    def row(self) -> dict[str, Any]:
        """The fields as one row of a table, an interval as two columns."""
        flat: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if isinstance(value, tuple):
                stem = name.removesuffix("_interval")
                flat |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
            else:
                flat[name] = value
        return flat

    @property
    def tables(self) -> dict[str, Table]:
        """`geometry_units`, one row."""
        return {"geometry_units": [self.row]}


@dataclass(frozen=True, repr=False)
class Hunchback:
    """Whether a profile rises to a maximum strictly inside and falls again.

    A maximum is chosen because it is large, so rise and fall of a flat, noisy profile are positive as well. Hence rise
    and fall are also measured in halves in which the peak was *not* chosen: the layer is the maximum of one half, and
    rise and fall are read in the half that shares no image with it.

    Attributes
    ----------
    peak : int
        Layer of the maximum (the first of equal ones).
    position : float
        peak / (layers - 1): 0 for the first layer and 1 for the last.
    rise, fall : float
        The maximum minus the value of the first, and of the last layer.
    position_interval : tuple of float
        95 %, of the halves' own maxima.
    rise_interval, fall_interval : tuple of float
        95 %: rise and fall less the central 95 % of the deviations of those halves from their own mean, as for layers.
    share_inside : float
        Share of the halves whose own maximum is strictly inside, with rise and fall above zero.
    holds : bool
        Whether the maximum is strictly inside, both intervals are above zero, and so are the central 95 % of rise and
        fall in the halves above. False without halves, where the intervals are NaN.
    """

    peak: int
    position: float
    rise: float
    fall: float
    position_interval: Interval
    rise_interval: Interval
    fall_interval: Interval
    share_inside: float
    holds: bool

    def __repr__(self) -> str:
        return (
            f"Hunchback(peak at layer {self.peak}, rise {_with_interval(self.rise, self.rise_interval)}, "
            f"fall {_with_interval(self.fall, self.fall_interval)}, holds={self.holds})"
        )


@dataclass(frozen=True, repr=False)
class Trend:
    """Whether a profile grows with depth: Spearman's rank correlation of layer and value, in [-1, 1].

    Attributes
    ----------
    spearman : float
        NaN where all layers are equal.
    interval : tuple of float
        95 %, within [-1, 1]: the correlation less the central 95 % of the deviations of the halves' correlations from
        their own mean. Each half is first moved, layer by layer, so that the mean of all halves is the profile of the
        whole: fewer images are farther apart, which shifts a dimension without being chance.
    share_growing : float
        Share of the halves in which the correlation is above zero.
    grows : bool
        Whether the whole interval is above zero, and so are the central 95 % of the halves' correlations. False without
        halves, where the interval is NaN.
    """

    spearman: float
    interval: Interval
    share_growing: float
    grows: bool

    def __repr__(self) -> str:
        return f"Trend(rank correlation {_with_interval(self.spearman, self.interval)}, grows={self.grows})"


def _with_interval(value: float, interval: Interval) -> str:
    low, high = interval
    return f"{value:.3g}" if math.isnan(low) else f"{value:.3g} ({low:.3g} to {high:.3g})"


@dataclass(frozen=True, repr=False)
class LayerProfile(Result):
    """One figure of the heads or MLPs by layer.

    Attributes
    ----------
    quantity : str
        The field of `UnitGeometry`.
    kind : str
        "head" or "mlp".
    layers : tuple of int
    mean, spread : tuple of float
        Mean and standard deviation over the units of each layer whose figure is known; NaN where none is.
    intervals : tuple of tuple of float
        95 % interval of each mean, from half-samples.
    hunchback, trend
        The two tests; None for fewer than three layers, or where a layer has no value.
    """

    quantity: str
    kind: str
    layers: tuple[int, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    intervals: tuple[Interval, ...]
    hunchback: Hunchback | None
    trend: Trend | None

    def _summary(self) -> str:
        values = ", ".join(f"{value:.3g}" for value in self.mean)
        return f"{self.quantity} of {self.kind}s, {plural(len(self.layers), 'layer')}: {values}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per layer."""
        return [
            {
                "kind": self.kind,
                "quantity": self.quantity,
                "layer": layer,
                "mean": self.mean[i],
                "mean_low": self.intervals[i][0],
                "mean_high": self.intervals[i][1],
                "spread": self.spread[i],
            }
            for i, layer in enumerate(self.layers)
        ]

    @property
    def tables(self) -> dict[str, Table]:
        """`geometry_profiles`, one row per layer."""
        return {"geometry_profiles": self.rows}


@dataclass(frozen=True, repr=False)
class Geometry(Result):
    """Dimensions of the units of a model over one split.

    Attributes
    ----------
    model, data, split : str
        What was measured.
    units : tuple of UnitGeometry
        In unit order.
    output : UnitGeometry or None
        The model's output; None where units were chosen.
    profiles : tuple of LayerProfile
        Of every figure in `PROFILED`: those of heads, then those of MLPs.
    variance_threshold, fraction, subsamples, seed
        The arguments of `measure_geometry`.
    n_images : int
        Images, before duplicates were dropped.
    source : str
        The images that L, EVR and participation ratio count principal components of.
    own_spectra : bool
        Whether those are exactly the images that were measured; every half-sample then has components of its own.
    """

    model: str
    data: str
    split: str
    units: tuple[UnitGeometry, ...]
    output: UnitGeometry | None
    profiles: tuple[LayerProfile, ...]
    variance_threshold: float
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
            labels = [one.label for one in self._all()]
            raise BadInputError(
                f"unit {label!r} was not measured; measured: {plural(len(labels), 'unit')} ({listed(labels)})"
            )
        return found

    def profile(self, quantity: str, kind: str = "head") -> LayerProfile | None:
        """The profile of one figure; None where no unit of that kind was measured."""
        return next((one for one in self.profiles if (one.quantity, one.kind) == (quantity, kind)), None)

    def _summary(self) -> str:
        sizes = f"{plural(len(self.units), 'unit')}, {plural(self.n_images, 'image')}"
        return f"{sizes}: {self.model!r} on {self.data!r}, {self.split}"

    @property
    def tables(self) -> dict[str, Table]:
        """`geometry_units`, one row per unit; `geometry_profiles`, one row per layer of each profile."""
        return {
            "geometry_units": [one.row for one in self._all()],
            "geometry_profiles": [row for profile in self.profiles for row in profile.rows],
        }

    @property
    def figures(self) -> dict[str, Figure]:
        """`geometry_profiles` and `geometry_heads`; none of what was not measured."""
        from residualign.figures.geometry import geometry_figures

        title = f"{Path(self.model).name} on {Path(self.data).name}, {plural(self.n_images, 'image')}"
        return geometry_figures(self.tables, title, self.variance_threshold)

    def _all(self) -> tuple[UnitGeometry, ...]:
        return self.units if self.output is None else (*self.units, self.output)
