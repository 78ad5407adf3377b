"""Contributions of residual units to image embeddings: from a model and images in one call; sum, select, ablate."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from residualign._messages import listed
from residualign._result import Result, Table
from residualign.data.given import given_images
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.maps import MeanRule, unit_maps
from residualign.decomposition.statistics import UnitStatistics, UnitSums, relative_error
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.models.vision_model import Images, VisionModel, image_names
from residualign.units import Unit

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["Contributions", "decompose"]


def decompose(model: VisionModel, images: Images, *, batch_size: int = 32, rule: MeanRule = "shared") -> Contributions:
    """Write each image's embedding as an exact sum of residual units: the embedding, every MLP, every head.

    Parameters
    ----------
    model : VisionModel
        The encoder, from `load_model`.
    images : list of PIL images, paths or (height, width, 3) uint8 arrays, or Tensor (image, 3, height, width)
        Also a generator of pictures, a single one, or a `Split`. A tensor holds pixels that were already preprocessed
        by `model.preprocess`.
    batch_size : int
        Number of images per forward pass.
    rule : {"shared", "own"}
        Where the mean that the final LayerNorm subtracts goes: shared out equally over the units, as in the paper, or
        each unit loses its own mean. Both are exact; see `residualign.decomposition.maps`.

    Returns
    -------
    Contributions
        Of every unit to every image's embedding.

    Raises
    ------
    BadInputError
        For images that cannot be read, a tensor of a different shape or size or of integers, and where an embedding
        is NaN or infinite.

    Notes
    -----
    One plain forward pass. Memory of (2 x layer + 1) x width numbers per image; models that norm all tokens before
    they pool them hold those of all tokens of a batch, until its pass ends.

    References
    ----------
    arXiv 2411.00246, section 3; arXiv 2310.05916, section 3.1.

    Examples
    --------
    >>> import residualign as ra, torch
    >>> model = ra.load_model("mini")
    >>> c = ra.decompose(model, torch.zeros(2, 3, 32, 32))
    >>> c.values.shape == (2, len(c.units), model.dim), bool(c.residual_error < 1e-4)
    (True, True)
    """
    images = given_images(images)
    batches = []
    for start in range(0, max(len(images), 1), batch_size):
        stop = start + batch_size
        names = image_names(images, start, stop)
        batches.append(trace_coordinates(model.tower, model.pixels(images[start:stop]), rule, names))
    return Contributions.of(Coordinates.cat(batches), unit_maps(model.tower, rule))


@dataclass(frozen=True, repr=False)
class Contributions(Result):
    """Direct contributions of residual units to the embeddings of some images, as `decompose` returns them.

    They are kept as compact coordinates: nothing of size (image, unit, dim) exists before `values` is read.

    Attributes
    ----------
    coordinates : Coordinates
        What the forward pass left behind: a few numbers per image and unit.
    maps : UnitMaps
        The fixed maps of the model that turn coordinates into contributions.
    units : tuple of Unit
        The units, in the order of the unit axis of `values`.
    replacements : mapping of str to Tensor
        By label, the constant contribution (dim,) of each unit whose mean was put in its place by `ablate`. Units
        that were set to zero are not here: they are gone from `units`.

    Examples
    --------
    >>> import residualign as ra, torch
    >>> c = ra.decompose(ra.load_model("mini"), torch.zeros(2, 3, 32, 32))
    >>> c
    Contributions(n_images=2, 43 of 43 units, dim=128, float32)
    >>> c[3, 2].shape, torch.equal(c[3, 2], c["L3.H2"])
    (torch.Size([2, 128]), True)
    >>> c.heads
    Contributions(n_images=2, 36 of 43 units, dim=128, float32)
    """

    coordinates: Coordinates
    maps: UnitMaps
    units: tuple[Unit, ...]
    replacements: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, coordinates: Coordinates, maps: UnitMaps) -> Contributions:
        """Every unit's contribution, from coordinates and the tower's maps."""
        return cls(coordinates, maps, tuple(maps.units))

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, unit: Unit | str | tuple[SupportsIndex, ...]) -> Float[Tensor, "image dim"]:
        """The contribution of one unit.

        Parameters
        ----------
        unit : Unit, str or (int, int)
            A unit, its label (`"embedding"`, `"L3.mlp"`, `"L3.H2"`), or layer and head of an attention head, both
            counted from 0: `c[3, 2]` is `c["L3.H2"]`.

        Returns
        -------
        Tensor of shape (image, dim)
            Not normalized.

        Raises
        ------
        BadInputError
            For a unit that the model does not have, or that was left out by `select` or `ablate`.
        """
        found = self.maps.units.get(_head(unit) if isinstance(unit, tuple) else unit)
        if found not in self.units:
            labels = [unit.label for unit in self.units]
            raise BadInputError(
                f"unit {found.label!r} is not among the {len(labels)} selected units ({listed(labels) or 'none'})"
            )
        if found.label in self.replacements:
            return self.replacements[found.label].expand(len(self), -1)
        return self.maps.contribution(self.coordinates, found)

    @property
    def heads(self) -> Contributions:
        """The attention heads alone, in layer order; like `select`, without copying anything."""
        return replace(self, units=tuple(unit for unit in self.units if unit.kind == "head"))

    @property
    def mlps(self) -> Contributions:
        """The MLPs alone, that of an attention pooling (`"pool.mlp"`) included; like `select`, without copying."""
        return replace(self, units=tuple(unit for unit in self.units if unit.kind == "mlp"))

    @property
    def output(self) -> Float[Tensor, "image dim"]:
        """The model's own embedding, not normalized; selecting and ablating do not change it."""
        return self.coordinates.output

    @property
    def values(self) -> Float[Tensor, "image unit dim"]:
        """All contributions as one tensor, computed anew at each access: image x unit x dim numbers."""
        if not self.units:
            return self.output.new_zeros(len(self), 0, self.maps.dim)
        return torch.stack([self[unit] for unit in self.units], dim=1)

    def sum(self) -> Float[Tensor, "image dim"]:
        """Sum the contributions of `units`.

        Returns
        -------
        Tensor of shape (image, dim)
            The model's embedding if no unit was left out or replaced. Not normalized.

        Notes
        -----
        One unit at a time, O(image x dim) of memory; a few large products where no unit was left out or replaced.
        """
        if self.units == tuple(self.maps.units) and not self.replacements:
            return self.maps.sum(self.coordinates)
        total = torch.zeros_like(self.output)
        for unit in self.units:
            total += self[unit]
        return total

    @property
    def residual_error(self) -> float:
        """Largest |sum of all units - model output| over largest |model output| of these images."""
        output = self.output
        return relative_error(float((self.maps.sum(self.coordinates) - output).abs().max()), float(output.abs().max()))

    def select(self, units: Iterable[Unit | str]) -> Contributions:
        """Keep only some of the units.

        Parameters
        ----------
        units : iterable of Unit or str
            Units or labels, in any order; the result is in unit order.

        Returns
        -------
        Contributions
            Shares the memory of this one.

        Raises
        ------
        BadInputError
            For a unit that the model does not have.
        """
        wanted = self._resolve(units)
        return replace(self, units=tuple(unit for unit in self.units if unit in wanted))

    def ablate(
        self,
        units: Iterable[Unit | str],
        mode: Literal["zero", "mean"] | str = "zero",
        means: Mapping[str, Tensor] | None = None,
    ) -> Contributions:
        """Leave units out, or put their mean in their place.

        Parameters
        ----------
        units : iterable of Unit or str
            Units or labels to ablate.
        mode : {"zero", "mean"}
            `"zero"` takes a unit away together with its share of the constants; `"mean"` replaces its contribution by
            a mean.
        means : mapping of str to Tensor of shape (dim,), optional
            The mean of each unit by label, for `mode="mean"`; by default the mean over these images.

        Returns
        -------
        Contributions
            Shares the memory of this one.

        Raises
        ------
        BadInputError
            For a unit that the model does not have, and for any other mode.

        References
        ----------
        Mean ablation as in arXiv 2310.05916, section 3.
        """
        gone = self._resolve(units)
        if mode == "zero":
            return replace(self, units=tuple(unit for unit in self.units if unit not in gone))
        if mode != "mean":
            raise BadInputError(f"mode is 'zero' or 'mean'; got {mode!r}")
        replaced = dict(self.replacements)
        for unit in gone:
            replaced[unit.label] = self[unit].mean(dim=0) if means is None else means[unit.label].to(self.output)
        return replace(self, replacements=replaced)

    @property
    def statistics(self) -> UnitStatistics:
        """Length and share of the embedding's variance of every unit, computed anew at each access."""
        total = UnitSums(len(self.units), self.maps.dim)
        error = float((self.maps.sum(self.coordinates) - self.output).abs().max())
        total.add(self.output, (self[unit] for unit in self.units), error)
        return total.statistics(self.units)

    @property
    def tables(self) -> dict[str, Table]:
        """`units`, one row per unit: root mean square length, variance, and share of the embedding's variance."""
        return self.statistics.tables

    @property
    def figures(self) -> dict[str, Figure]:
        """`variance_share`: the share of the embedding's variance that every head carries."""
        return self.statistics.figures

    def to_json(self) -> dict[str, Any]:
        """The statistics of every unit as JSON types; the contributions themselves are tensors."""
        return self.statistics.to_json()

    def _summary(self) -> str:
        n_means = sum(unit.label in self.replacements for unit in self.units)
        means = f", {n_means} replaced by their means" if n_means else ""
        n_units = f"{len(self.units)} of {len(self.maps.units)} units{means}"
        dtype = str(self.output.dtype).removeprefix("torch.")
        return f"n_images={len(self)}, {n_units}, dim={self.maps.dim}, {dtype}"

    def _resolve(self, units: Iterable[Unit | str]) -> set[Unit]:
        if isinstance(units, str | Unit):
            raise BadInputError(f"units is a list of units or labels; got the single {units!r}")
        return {self.maps.units.get(unit) for unit in units}


def _head(index: tuple[SupportsIndex, ...]) -> Unit:
    """The head at (layer, head)."""
    try:
        layer, head = map(operator.index, index)
    except (TypeError, ValueError):
        raise BadInputError(
            f"a unit is given by its label, such as 'L3.H2', or by (layer, head); got {index!r}"
        ) from None
    return Unit("head", layer, head)
