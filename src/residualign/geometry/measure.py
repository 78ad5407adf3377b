"""The geometry of every unit over the images of one split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from residualign._messages import listed, percent
from residualign._progress import Tick
from residualign.data.split import ImageData
from residualign.decomposition.coordinates import UnitMaps
from residualign.errors import BadInputError, refuse_bare_text
from residualign.extraction import Reading, images_of_split, spectra_of_split, split_of, stored
from residualign.geometry.resampling import deviation_interval, draw_halves, layer_profile
from residualign.geometry.result import PROFILED, Geometry, LayerProfile, UnitGeometry
from residualign.geometry.two_nn import two_nn
from residualign.models.vision_model import VisionModel
from residualign.spectrum import Spectra, Spectrum, truncate
from residualign.spectrum.pca import RELATIVE_CUTOFF
from residualign.store import Store, StoreSplit
from residualign.units import Unit

__all__ = [
    "Isometry",
    "LinearDimension",
    "Settings",
    "linear_dimension",
    "linear_dimension_of_points",
    "measure_geometry",
    "unit_points",
]

_GROUP_BYTES = 64 * 2**20
"""Points of several units are collected in one pass over the store; more than this only where one unit needs it."""

_BATCH = 512


def measure_geometry(
    source: Store | StoreSplit | VisionModel,
    data: ImageData | None = None,
    *,
    split: str | None = None,
    spectra: Spectra | None = None,
    units: Iterable[Unit | str] | None = None,
    variance_threshold: float = 0.99,
    fraction: float = 0.9,
    subsamples: int = 100,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> Geometry:
    """Measure how many dimensions the contributions of every unit fill.

    Parameters
    ----------
    source : Store, StoreSplit or VisionModel
        A store, some images of one (`store.split("train").take(...)`), or a model, followed by `data`.
    data : ImageData, optional
        The images, where `source` is a model. They pass through the model once; to analyze them again without another
        pass, `extract` first.
    split : {"train", "val", "test"}, optional
        The images to measure, by default "train".
    spectra : Spectra, optional
        The principal components that L, the explained variance ratio and the participation ratio count. By default
        those of the images measured. With components of other images, L is one number for all half-samples.
    units : iterable of Unit or str, optional
        The units to measure. By default all of them and the model's output.
    variance_threshold : float
        Share of the variance that L components explain, in (0, 1].
    fraction : float
        Share of the points, smallest distance ratios first, that TwoNN is fitted to, in (0, 1].
    subsamples : int
        Number of half-samples for confidence intervals: an even number, 0 for no intervals. Every unit sees the same.
    seed : int
        Random seed of the half-samples.
    **reading
        `batch_size`, `workers`, `skip_bad` and `progress`, as in `extract`. With a store only `progress` is used,
        called with (units done, units in all).

    Returns
    -------
    Geometry
        One row of measures per unit, and their profile over depth.

    Raises
    ------
    BadInputError
        For a split without images, spectra of a different tower, an unknown unit, and numbers out of range.

    Warns
    -----
    UserWarning
        Where N is not to be relied on: images that nearly coincide, or ratios that do not follow the fitted line.

    Notes
    -----
    Neighbors are exact: time grows with about the 1.4th power of the images up to 50,000, memory linearly (one group
    of units at a time). Each half-sample costs one eigendecomposition per unit. docs/geometry.md has measurements.

    References
    ----------
    ResiDual, arXiv 2411.00246, section 4. TwoNN: Facco et al. 2017, Scientific Reports 7:12140.

    Examples
    --------
    >>> import residualign as ra
    >>> model, data = ra.load_model("mini"), ra.load_data("digits")
    >>> geometry = ra.measure_geometry(model, data, split="val", units=["L3.H2"], subsamples=0, workers=0)
    >>> geometry.unit("L3.H2").linear_dimension > geometry.unit("L3.H2").two_nn
    True
    """
    settings = Settings(variance_threshold, fraction, subsamples, seed)
    with stored(source, data, **reading) as store:
        return _measure_split(split_of(store, split), spectra, units, settings, reading.get("progress"))


@dataclass(frozen=True)
class Settings:
    """The numbers that decide what is measured; `BadInputError` for those out of range."""

    variance_threshold: float
    fraction: float
    subsamples: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.variance_threshold <= 1:
            raise BadInputError(f"variance_threshold is a share of variance in (0, 1], got {self.variance_threshold}")
        if not 0 < self.fraction <= 1:
            raise BadInputError(f"fraction is a share of the points in (0, 1], got {self.fraction}")
        if self.subsamples < 0 or self.subsamples % 2:
            raise BadInputError(
                f"subsamples come in pairs of halves: expected an even number, or 0 for none, got {self.subsamples}"
            )


def _measure_split(
    split: StoreSplit,
    spectra: Spectra | None,
    units: Iterable[Unit | str] | None,
    settings: Settings,
    progress: Tick | None,
) -> Geometry:
    refuse_bare_text("units", units)
    store = split.store
    wanted = tuple(store.units) if units is None else tuple(store.units.get(unit) for unit in units)
    own_spectra = spectra is None or spectra.images == images_of_split(split)
    if spectra is None:
        spectra = spectra_of_split(split, every_component=True)
    if spectra.units != store.units or spectra.dim != store.maps.dim:
        raise BadInputError(
            f"the spectra belong to {spectra.units} in {spectra.dim} dimensions, "
            f"the store has {store.units} in {store.maps.dim}"
        )
    halves = draw_halves(len(split), settings.subsamples, settings.seed)
    total = len(wanted) + (units is None)
    measured: list[_Measured] = []
    for unit, spectrum, points in _everything(split, spectra, wanted, units is None):
        measured.append(_measure(unit, spectrum, points, settings, halves, own_spectra))
        if progress is not None:
            progress(len(measured), total)
    of_units = measured[: len(wanted)]
    _warn_of_doubt([one.unit for one in measured])
    return Geometry(
        model=str(store.model["name"]),
        data=str(store.data["name"]),
        split=split.name,
        units=tuple(one.unit for one in of_units),
        output=measured[-1].unit if units is None else None,
        profiles=tuple(_profiles(of_units)),
        variance_threshold=settings.variance_threshold,
        fraction=settings.fraction,
        subsamples=settings.subsamples,
        seed=settings.seed,
        n_images=len(split),
        source=spectra.source,
        own_spectra=own_spectra,
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
    settings: Settings,
    halves: Sequence[Int[Tensor, " member"]],
    own_spectra: bool,
) -> _Measured:
    linear = linear_dimension(spectrum, settings.variance_threshold)
    if own_spectra and linear.components == 0:
        # what is left of a unit that never varies is rounding
        points = torch.zeros_like(points)
    intrinsic = two_nn(points, fraction=settings.fraction, halves=halves)
    if own_spectra:
        of_halves = [linear_dimension_of_points(points[half], settings.variance_threshold) for half in halves]
    else:
        of_halves = [linear] * len(halves)
    table = torch.tensor(
        [_figures(one, n) for one, n in zip(of_halves, intrinsic.halves.tolist(), strict=True)], dtype=torch.float64
    ).view(-1, len(PROFILED))
    ratio = linear.components / intrinsic.dimension
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
        near_duplicates=intrinsic.near_duplicates,
        doubtful=intrinsic.doubtful,
    )
    return _Measured(measured, table)


def _warn_of_doubt(units: Sequence[UnitGeometry]) -> None:
    """One `UserWarning` for all units whose intrinsic dimension is doubtful."""
    doubtful = [one for one in units if one.doubtful]
    if not doubtful:
        return
    near = max(one.near_duplicates for one in doubtful)
    bent = min(one.two_nn_straightness for one in doubtful)
    reason = (
        f"up to {percent(near)} of the points nearly coincide with another; leave near duplicates among the images out"
        if near > 0
        else f"distance ratios do not follow the line that is fitted (straightness down to {bent:.2f}, expected near 1)"
    )
    warnings.warn(
        f"the intrinsic dimension N of {len(doubtful)} of {len(units)} units is not to be relied on "
        f"({listed([one.label for one in doubtful])}): {reason}",
        stacklevel=4,
    )


def _figures(linear: LinearDimension, dimension: float) -> tuple[float, ...]:
    """In the order of `PROFILED`."""
    ratio = linear.components / dimension
    return float(linear.components), dimension, ratio, linear.evr_first, linear.participation_ratio


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


@dataclass(frozen=True)
class LinearDimension:
    """components: the fewest leading ones that explain `variance_threshold` of the variance; 0 where nothing varies.

    evr_first: the share of the first component, in (0, 1]. participation_ratio: (sum of eigenvalues)^2 over the sum of
    their squares, from 1 (one direction) to the number of directions (all alike). Both nan where nothing varies.
    """

    components: int
    evr_first: float
    participation_ratio: float


def linear_dimension(spectrum: Spectrum, variance_threshold: float = 0.99) -> LinearDimension:
    """The linear dimension L of a unit from its spectrum.

    variance_threshold: a share of variance in (0, 1]; `BadInputError` outside. Where a spectrum was cut (a head of a
    tower that pools by attention keeps head_dim components unless told otherwise) and does not reach the threshold, L
    is the number it has, and the participation ratio leaves the squares of what was cut out of its denominator. Source:
    arXiv 2411.00246 section 4 (L and the explained variance ratio); the participation ratio as in its published code.
    """
    kept = truncate(spectrum, variance_threshold).n_components
    if kept == 0:
        return LinearDimension(0, float("nan"), float("nan"))
    variance = spectrum.explained_variance.double()
    participation = spectrum.total_variance**2 / float(variance.square().sum())
    return LinearDimension(kept, float(variance[0]) / spectrum.total_variance, participation)


def linear_dimension_of_points(
    points: Float[Tensor, "image size"], variance_threshold: float = 0.99
) -> LinearDimension:
    """The same for points without a spectrum, by the rules of one: O(image size^2 + size^3)."""
    centered = points.double() - points.double().mean(dim=0)
    n, size = centered.shape
    # the smaller of the two products: both have the same eigenvalues but for zeros
    product = centered @ centered.T if n < size else centered.T @ centered
    variance = torch.linalg.eigvalsh(product).flip(0).clamp(min=0) / max(n - 1, 1)
    largest = float(variance[0]) if len(variance) else 0.0
    kept = variance[variance > RELATIVE_CUTOFF * largest] if largest > 0 else variance[:0]
    nothing = torch.zeros(len(kept), 0, dtype=torch.float64)
    spectrum = Spectrum(points.new_zeros(0).double(), nothing, kept, float(variance.sum()), n)
    return linear_dimension(spectrum, variance_threshold)


@dataclass(frozen=True, eq=False)
class Isometry:
    """Maps a unit's coordinates y to points whose distances are those of the contributions y B + c in R^dim.

    origin: (coordinate,), a y that is subtracted first: where y never varies, or hardly, the points keep their digits.
    projection: (coordinate, size), the L of B = L Q with orthonormal rows Q; size is the smaller of coordinate (a
    head's head_dim + 2) and dim. None where B is the identity.
    """

    origin: Float[Tensor, " coordinate"]
    projection: Float[Tensor, "coordinate size"] | None

    @classmethod
    def of(cls, maps: UnitMaps, unit: Unit, origin: Float[Tensor, " coordinate"]) -> Isometry:
        """The isometry of one unit. Costs one QR of its map, O(coordinate^2 dim)."""
        if maps.layout == "contributions":
            return cls(origin.double(), None)
        weight = maps.weight(unit).double()
        projection = torch.linalg.qr(weight.mT).R.mT if weight.shape[0] < weight.shape[1] else weight
        return cls(origin.double(), projection)

    @property
    def size(self) -> int:
        """Numbers of a point."""
        return len(self.origin) if self.projection is None else self.projection.shape[1]

    def __call__(self, y: Float[Tensor, "image coordinate"]) -> Float[Tensor, "image size"]:
        """The points of some images, float64."""
        moved = y.double() - self.origin
        return moved if self.projection is None else moved @ self.projection


def unit_points(split: StoreSplit, units: Sequence[Unit]) -> Iterator[tuple[Unit, Float[Tensor, "image size"]]]:
    """(unit, points) of every unit asked for, in order, float64: distances between points are those in R^dim.

    Reads the split once for as many units as fit into 192 MiB together, one at least.
    """
    if not units or not len(split):
        return
    maps, n = split.store.maps, len(split)
    first = next(split.batches(1))
    group: list[tuple[Unit, Isometry]] = []
    held = 0
    for unit in units:
        isometry = Isometry.of(maps, unit, first.of(unit)[0])
        size = 8 * n * isometry.size
        if group and held + size > _GROUP_BYTES:
            yield from _read(split, group)
            group, held = [], 0
        group.append((unit, isometry))
        held += size
    yield from _read(split, group)


def output_points(split: StoreSplit) -> Float[Tensor, "image dim"]:
    """The model's own embeddings, not normalized, about the first of them, in float64."""
    embeddings = split.embeddings().double()
    return embeddings - embeddings[0]


def _read(split: StoreSplit, group: list[tuple[Unit, Isometry]]) -> Iterator[tuple[Unit, Tensor]]:
    collected = [torch.empty(len(split), isometry.size, dtype=torch.float64) for _, isometry in group]
    start = 0
    for batch in split.batches(_BATCH):
        for points, (unit, isometry) in zip(collected, group, strict=True):
            points[start : start + len(batch)] = isometry(batch.of(unit))
        start += len(batch)
    for unit, _ in group:
        # each is freed once it has been looked at
        yield unit, collected.pop(0)
