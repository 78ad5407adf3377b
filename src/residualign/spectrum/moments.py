"""Streaming first and second moments of compact coordinates: all that principal components need."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from residualign._files import publish, read_tensors, saying_what_is_kept
from residualign.decomposition.coordinates import Coordinates, UnitMaps, refuse_not_finite
from residualign.errors import BadInputError
from residualign.spectrum.pca import pca
from residualign.spectrum.spectrum import Spectra, Spectrum, leading
from residualign.units import Units

__all__ = ["Moments"]

_FORMAT, _VERSION = "residualign moments", 1

# One fold reads and writes (width + 1)^2 doubles per layer, 57 MB for ViT-B, whatever the number of rows: rows wait in
# a buffer until the arithmetic outweighs that.
_FOLD_ROWS = 256

_KINDS = ("heads", "mlps", "embedding", "output")

_OF_POOLING = "pool_mlp"


@dataclass(frozen=True, eq=False)
class _Moment:
    """Mean and centered scatter (sum of outer products, not divided) of some units with equally many coordinates.

    `waiting` holds rows that are not yet folded in, and has one row more for the fold itself.
    """

    mean: Float[Tensor, "*unit coordinate"]
    scatter: Float[Tensor, "*unit coordinate coordinate"]
    waiting: Float[Tensor, "*unit row coordinate"]

    @classmethod
    def of(cls, mean: Tensor, scatter: Tensor) -> _Moment:
        """A moment with an empty buffer."""
        return cls(mean, scatter, mean.new_empty((*mean.shape[:-1], _FOLD_ROWS + 1, mean.shape[-1])))

    def put(self, start: int, rows: Float[Tensor, "image *unit coordinate"]) -> None:
        """Copy rows into the buffer, as float64."""
        self.waiting[..., start : start + rows.shape[0], :] = rows.movedim(0, -2)

    def fold(self, count: int, n: int) -> None:
        """Take in the first n rows of the buffer, `count` being already in.

        In place, and centered before squaring, so that large means lose nothing.
        """
        rows, step = self.waiting[..., :n, :], self.waiting[..., n, :]
        mean = rows.mean(dim=-2)
        rows -= mean.unsqueeze(-2)
        difference = mean - self.mean
        # The step between the two means is one more row, so that one product updates everything (Chan, Golub and
        # LeVeque 1983, eq. 1.5).
        step[...] = difference * (count * n / (count + n)) ** 0.5
        centered = self.waiting.view(-1, *self.waiting.shape[-2:])[:, : n + 1]
        self.scatter.view(-1, *self.scatter.shape[-2:]).baddbmm_(centered.mT, centered)
        self.mean.add_(difference, alpha=n / (count + n))

    def combine(self, count: int, other: _Moment, other_count: int) -> None:
        """Take in the moment of other images. In place."""
        if other_count == 0:
            return
        total = count + other_count
        difference = other.mean.to(self.mean) - self.mean
        outer = difference.unsqueeze(-1) * difference.unsqueeze(-2)
        self.scatter.add_(other.scatter.to(self.scatter)).add_(outer, alpha=count * other_count / total)
        self.mean.add_(difference, alpha=other_count / total)


class Moments:
    """Count, mean and centered second moment of every unit's coordinates and of the model's output, in float64.

    Additive: any split of the images into batches, any order and any merge of parts (files, machines) gives the same
    moments up to rounding.

    Notes
    -----
    Memory does not grow with the number of images: `n_heads (head_dim + 2)^2 + (width + 1)^2` doubles per layer (64 MB
    for ViT-B/32), and 256 rows that wait to be taken in together (39 MB). Where a tower pools by attention, coordinates
    are contributions and it is `(n_heads + 1) dim^2` per layer: 0.75 GB and 0.25 GB of waiting rows for SigLIP-B, 3.4
    and 0.9 GB for SigLIP-L.

    Examples
    --------
    >>> moments = Moments.empty(maps)                                                       # doctest: +SKIP
    >>> for coordinates in store.split("train").batches(256):                               # doctest: +SKIP
    ...     moments.update(coordinates)
    >>> spectra = moments.spectra(maps, source="my data", model_fingerprint=fingerprint)    # doctest: +SKIP
    """

    def __init__(self, count: int, moments: dict[str, _Moment]) -> None:
        self._count = count
        self._moments = moments
        self._n_waiting = 0

    @classmethod
    def empty(cls, maps: UnitMaps, device: torch.device | str | None = None) -> Moments:
        """Moments of no images.

        Parameters
        ----------
        maps : UnitMaps
            The tower's maps, which say which units there are.
        device : optional
            Where to accumulate; None takes that of the maps, or the CPU where that device has no float64.
        """
        if device is None:
            device = maps.heads.device if maps.heads.device.type != "mps" else "cpu"
        shapes: dict[str, tuple[int, ...]] = {**maps.coordinate_shapes, "output": (maps.dim,)}
        # Tensors born in inference mode could not be updated outside it.
        with torch.inference_mode(False):
            return cls(
                0,
                {
                    kind: _Moment.of(
                        torch.zeros(shape, dtype=torch.float64, device=device),
                        torch.zeros((*shape, shape[-1]), dtype=torch.float64, device=device),
                    )
                    for kind, shape in shapes.items()
                },
            )

    @property
    def count(self) -> int:
        """Images taken in so far."""
        return self._count + self._n_waiting

    @property
    def units(self) -> Units:
        """The units these are the moments of."""
        n_layers, n_heads, _ = self._moments["heads"].mean.shape
        return Units(n_layers, n_heads, _OF_POOLING in self._moments)

    @property
    def nbytes(self) -> int:
        """Bytes held, whatever the number of images."""
        return sum(m.mean.nbytes + m.scatter.nbytes + m.waiting.nbytes for m in self._moments.values())

    def update(self, coordinates: Coordinates) -> Moments:
        """Take in a batch, and return self.

        Parameters
        ----------
        coordinates : Coordinates
            Of any number of images, in any floating-point type. They are copied.

        Returns
        -------
        Moments
            These moments.

        Raises
        ------
        BadInputError
            If the shapes belong to other units, or a number is not finite (naming the unit); nothing of such a batch
            is taken in.

        Notes
        -----
        Costs O(image x coordinate^2) per unit.
        """
        self._check_shapes(coordinates)
        refuse_not_finite(coordinates)
        with torch.inference_mode(False), torch.no_grad():
            start = 0
            while start < len(coordinates):
                part = coordinates[start : start + _FOLD_ROWS - self._n_waiting]
                self._moments["heads"].put(self._n_waiting, part.head_coordinates())
                self._moments["mlps"].put(self._n_waiting, part.mlp_coordinates())
                self._moments["embedding"].put(self._n_waiting, part.embedding_coordinates())
                self._moments["output"].put(self._n_waiting, part.output)
                if part.pool_mlp is not None:
                    self._moments[_OF_POOLING].put(self._n_waiting, part.pool_mlp)
                self._n_waiting += len(part)
                start += len(part)
                if self._n_waiting == _FOLD_ROWS:
                    self.flush()
        return self

    def flush(self) -> None:
        """Take in the rows that wait; every method that needs it does so itself."""
        if self._n_waiting == 0:
            return
        with torch.inference_mode(False), torch.no_grad():
            for moment in self._moments.values():
                moment.fold(self._count, self._n_waiting)
        self._count += self._n_waiting
        self._n_waiting = 0

    def merge(self, other: Moments) -> Moments:
        """Take in the moments of other images, and return self. Commutative and associative up to rounding.

        Parameters
        ----------
        other : Moments
            Stays as it is.

        Returns
        -------
        Moments
            These moments.

        Raises
        ------
        BadInputError
            If `other` has different units or sizes.
        """
        self.flush()
        other.flush()
        for kind in {**self._moments, **other._moments}:
            own, theirs = (
                tuple(moments[kind].mean.shape) if kind in moments else None
                for moments in (self._moments, other._moments)
            )
            if own != theirs:
                raise BadInputError(f"cannot merge moments of {kind} of shape {theirs} into shape {own}: other models")
        with torch.inference_mode(False), torch.no_grad():
            for kind in self._moments:
                self._moments[kind].combine(self._count, other._moments[kind], other._count)
        self._count += other._count
        return self

    def spectra(
        self,
        maps: UnitMaps,
        source: str,
        model_fingerprint: str = "",
        max_head_components: int | None = None,
        images: str = "",
    ) -> Spectra:
        """Principal components of every unit's contribution and of the output, in float64.

        Parameters
        ----------
        maps : UnitMaps
            The tower's maps.
        source : str
            Which images these are, for whoever reads the file later.
        model_fingerprint : str
            Identifies the tower.
        max_head_components : int, optional
            Where a tower pools by attention, a head spans up to dim directions, and the leading ones are kept: that
            many, or head_dim. The shares of variance stay those of the whole.
        images : str
            Exactly which images these are: see `Spectra`.

        Returns
        -------
        Spectra
            Variances are divided by `count - 1`. A head has up to head_dim + 2 components, no unit more than
            `count - 1`.

        Raises
        ------
        BadInputError
            Without images, and for maps of other units.

        Notes
        -----
        Takes seconds for a ViT-B.
        """
        self.flush()
        if self._count == 0:
            raise BadInputError(f"no image was taken in from {source!r}, and a spectrum needs at least one")
        if maps.units != self.units or maps.coordinate_shapes["mlps"] != tuple(self._moments["mlps"].mean.shape):
            raise BadInputError(f"these maps belong to {maps.units}, the moments to {self.units}")
        with torch.inference_mode(False), torch.no_grad():
            maps = maps.to(self._moments["heads"].mean.device, torch.float64)
            embedding = self._pca("embedding", maps.embedding, maps.group_bias)
            mlps = [
                # layer by layer: all of them at once would only take memory, width^2 numbers each
                spectrum
                for layer in range(self.units.n_layers)
                for spectrum in self._pca("mlps", maps.mlps[layer], maps.group_bias, layer)
            ]
            if maps.units.pool_mlp:
                mlps += self._pca(_OF_POOLING, maps.embedding, maps.group_bias)
            keep = max_head_components or maps.max_head_components
            heads = [
                # layer by layer: as above
                leading(spectrum, keep)
                for layer in range(self.units.n_layers)
                for spectrum in self._pca("heads", maps.heads[layer], maps.head_bias, layer)
            ]
            identity = torch.eye(maps.dim, dtype=torch.float64, device=maps.embedding.device)
            (output,) = self._pca("output", identity, torch.zeros_like(maps.group_bias))
        return Spectra(self.units, (*embedding, *mlps, *heads), output, source, model_fingerprint, images)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; `RunError` if that fails."""
        self.flush()
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._tensors().items()}
        header = json.dumps({"format": _FORMAT, "version": _VERSION, "count": self._count}, sort_keys=True)
        with saying_what_is_kept(path, "nothing was written there"):
            publish(path, save(tensors, {"residualign": header}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read what `save` wrote, bit for bit; `BadInputError` for a file that is truncated or something else."""
        header, tensors = read_tensors(path, _FORMAT, _VERSION)
        try:
            kinds = (*_KINDS, _OF_POOLING) if f"{_OF_POOLING}.mean" in tensors else _KINDS
            moments = {kind: _Moment.of(tensors[f"{kind}.mean"], tensors[f"{kind}.scatter"]) for kind in kinds}
            return cls(int(header["count"]), moments)
        except KeyError as error:
            raise BadInputError(f"{os.fspath(path)} lacks {error} of a {_FORMAT} file") from None

    def _pca(self, kind: str, weight: Tensor, bias: Tensor, *index: int) -> list[Spectrum]:
        moment = self._moments[kind]
        return pca(self._count, moment.mean[index], moment.scatter[index], weight, bias)

    def _tensors(self) -> dict[str, Tensor]:
        kinds = self._moments.items()
        return {f"{kind}.{name}": getattr(moment, name) for kind, moment in kinds for name in ("mean", "scatter")}

    def _check_shapes(self, coordinates: Coordinates) -> None:
        n_scalars = 0 if coordinates.layout == "contributions" else 2
        (*of_heads, head_size), (*of_mlps, mlp_size) = (self._moments[k].mean.shape for k in ("heads", "mlps"))
        expected = {
            "heads": (*of_heads, head_size - n_scalars),
            "mlps": (*of_mlps, mlp_size - n_scalars // 2),
            "output": tuple(self._moments["output"].mean.shape),
        }
        for name, shape in expected.items():
            got = tuple(getattr(coordinates, name).shape[1:])
            if got != shape:
                raise BadInputError(f"these moments take {name} of shape {shape} per image, got {got}")
        units, size = self.units, self._moments["embedding"].mean.shape[0]
        embedding = 2 if coordinates.embedding is None else coordinates.embedding.shape[1] + n_scalars // 2
        if coordinates.units != units or embedding != size:
            raise BadInputError(f"these moments take an embedding of {size} coordinates and {units}, got others")
