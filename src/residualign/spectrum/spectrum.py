"""The principal components of one unit, and of all units of a tower, on disk as one file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from residualign._files import publish, read_tensors, saying_what_is_kept
from residualign._result import Result, Row, Table
from residualign.errors import BadInputError
from residualign.units import Unit, Units

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["Spectra", "Spectrum", "leading", "truncate"]

_FORMAT, _VERSION = "residualign spectra", 1

# Shares are sums of rounded quotients; ten equal components must reach 0.9 with nine.
_SHARE_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """Principal components of one unit's contributions, largest variance first.

    A unit that never varies, or is known from one image, has zero components and zero total variance.

    Attributes
    ----------
    mean : (dim,) tensor
        The contribution's mean over the images.
    components : (component, dim) tensor
        Orthonormal rows. The entry of largest magnitude of each is positive (of entries tied to one part in a million,
        the first).
    explained_variance : (component,) tensor
        Positive, in squared units of the embedding, divided by `n_samples - 1`.
    total_variance : float
        The unit's whole variance, components that were dropped or cut included.
    n_samples : int
        Images.
    """

    mean: Float[Tensor, " dim"]
    components: Float[Tensor, "component dim"]
    explained_variance: Float[Tensor, " component"]
    total_variance: float
    n_samples: int

    @property
    def n_components(self) -> int:
        """Number of components."""
        return self.components.shape[0]

    @property
    def explained_variance_ratio(self) -> Float[Tensor, " component"]:
        """Each component's share of the unit's whole variance, in (0, 1]."""
        return self.explained_variance / self.total_variance if self.n_components else self.explained_variance

    @property
    def cumulative_explained_variance_ratio(self) -> Float[Tensor, " component"]:
        """Running total of `explained_variance_ratio`, in float64."""
        return self.explained_variance_ratio.to(torch.float64).cumsum(0)

    def __repr__(self) -> str:
        sizes = f"{self.n_components:,} components, dim={self.mean.shape[0]:,}, n_samples={self.n_samples:,}"
        return f"Spectrum({sizes}, total_variance={self.total_variance:.3g})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Spectrum:
        """The same spectrum on a different device or in a different dtype."""
        mean, components, variance = (
            tensor.to(device=device, dtype=dtype) for tensor in (self.mean, self.components, self.explained_variance)
        )
        return Spectrum(mean, components, variance, self.total_variance, self.n_samples)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spectrum):
            return NotImplemented
        same_numbers = (self.total_variance, self.n_samples) == (other.total_variance, other.n_samples)
        return same_numbers and all(
            getattr(self, name).dtype == getattr(other, name).dtype
            and torch.equal(getattr(self, name), getattr(other, name))
            for name in ("mean", "components", "explained_variance")
        )

    __hash__ = None  # type: ignore[assignment]


def truncate(spectrum: Spectrum, variance_threshold: float) -> Spectrum:
    """Keep the fewest leading components that explain a share of the variance.

    Parameters
    ----------
    spectrum : Spectrum
        Shares its memory with the result.
    variance_threshold : float
        A share in (0, 1]. At 1, and wherever the components do not reach it, all of them stay.

    Raises
    ------
    BadInputError
        If the threshold is outside (0, 1].

    References
    ----------
    ResiDual: arXiv 2411.00246, section 5, with >= where the published code has > (they differ only on a tie).
    """
    if not 0 < variance_threshold <= 1:
        raise BadInputError(f"variance_threshold is a share in (0, 1], got {variance_threshold}")
    if variance_threshold == 1:
        return spectrum
    below = spectrum.cumulative_explained_variance_ratio < variance_threshold - _SHARE_ROUNDING
    return leading(spectrum, int(below.sum()) + 1)


def leading(spectrum: Spectrum, count: int | None) -> Spectrum:
    """At most the first `count` components; None keeps all. The total variance stays that of the whole unit."""
    if count is None or count >= spectrum.n_components:
        return spectrum
    return Spectrum(
        spectrum.mean,
        spectrum.components[:count],
        spectrum.explained_variance[:count],
        spectrum.total_variance,
        spectrum.n_samples,
    )


def _row(label: str, spectrum: Spectrum) -> Row:
    shares = spectrum.explained_variance_ratio.tolist()
    return {
        "label": label,
        "components": spectrum.n_components,
        "variance": spectrum.total_variance,
        "components_90": truncate(spectrum, 0.9).n_components,
        "evr_first": shares[0] if shares else None,
    }


def _mean_shares(heads: Sequence[Sequence[float]]) -> list[float]:
    """Shares of one, two, ... components: the mean of some heads; a head that has no more stays where it is."""
    longest = max(map(len, heads))
    filled = [[*shares, *[shares[-1] if shares else 0.0] * (longest - len(shares))] for shares in heads]
    return [sum(column) / len(heads) for column in zip(*filled, strict=True)]


class _UnknownUnitError(BadInputError, KeyError):
    """Bad input for people, a missing key for `Mapping`."""

    __str__ = BaseException.__str__


@dataclass(frozen=True, eq=False, repr=False)
class Spectra(Result, Mapping[str, Spectrum]):
    """The spectrum of every unit of a tower, by label and in unit order, and of the model's output.

    A mapping: `spectra["L3.H7"]`. Tensors are float64 as computed.

    Attributes
    ----------
    units : Units
        The units, in order.
    spectrums : tuple of Spectrum
        In the order of `units`.
    output : Spectrum
        Of the whole embedding.
    source : str
        Names the images.
    model_fingerprint : str
        Identifies the tower.
    images : str
        Identifies images and tower exactly (see `residualign.extraction.images_digest`); empty where they are not
        known. Plays no part in comparisons.
    """

    units: Units
    spectrums: tuple[Spectrum, ...]
    output: Spectrum
    source: str
    model_fingerprint: str = ""
    images: str = ""

    def __post_init__(self) -> None:
        assert len(self.spectrums) == len(self.units)

    @property
    def n_samples(self) -> int:
        """Images behind every spectrum."""
        return self.output.n_samples

    @property
    def dim(self) -> int:
        """Size of the output space."""
        return self.output.mean.shape[0]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all tensors rounded to float32: the same for a copy kept in float32 and in float64."""
        return self.to("cpu", torch.float32)._checksum()

    def _checksum(self) -> str:
        digest = hashlib.sha256()
        for label, spectrum in (*self.items(), ("output", self.output)):
            digest.update(f"{label} {spectrum.n_components} {self.dim} {spectrum.n_samples}\n".encode())
            total = torch.tensor(spectrum.total_variance, dtype=spectrum.mean.dtype)
            for tensor in (spectrum.mean, spectrum.components, spectrum.explained_variance, total):
                array = tensor.contiguous().numpy()
                digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
        return digest.hexdigest()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Spectra:
        """The same spectra on a different device or in a different dtype."""
        spectrums = tuple(spectrum.to(device, dtype) for spectrum in self.spectrums)
        output = self.output.to(device, dtype)
        return Spectra(self.units, spectrums, output, self.source, self.model_fingerprint, self.images)

    def __getitem__(self, key: str | Unit) -> Spectrum:
        try:
            return self.spectrums[self.units.index(key)]
        except BadInputError as error:
            raise _UnknownUnitError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.units.labels)

    def __len__(self) -> int:
        return len(self.spectrums)

    def __contains__(self, key: object) -> bool:
        return key in self.units

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spectra):
            return NotImplemented
        names = ("units", "source", "model_fingerprint", "spectrums", "output")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def _summary(self) -> str:
        return f"{self.units}, n_samples={self.n_samples}, source={self.source!r}"

    @property
    def tables(self) -> dict[str, Table]:
        """`units`: one row per unit, and one of the output: number of components, variance, and how it is spread."""
        return {"units": [_row(label, spectrum) for label, spectrum in (*self.items(), ("output", self.output))]}

    @property
    def figures(self) -> dict[str, Figure]:
        """`cumulative_variance`: the share of a head's variance that its first components explain, by layer."""
        from residualign.figures.units import cumulative_variance

        layers: dict[int, list[list[float]]] = {}
        for unit in self.units.of_kind("head"):
            if unit.layer is not None:
                layers.setdefault(unit.layer, []).append(self[unit].cumulative_explained_variance_ratio.tolist())
        rows = [{"layer": layer, "shares": _mean_shares(heads)} for layer, heads in layers.items()]
        return {"cumulative_variance": cumulative_variance(rows, f"Heads on {self.source}")}

    def to_json(self) -> dict[str, Any]:
        """The table of units as JSON types; components and means are tensors, which `save` writes."""
        names = ("source", "n_samples", "dim", "model_fingerprint")
        return {**{name: getattr(self, name) for name in names}, "units": list(self.tables["units"])}

    def save(self, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Write one safetensors file, whole or not at all; equal spectra of the same images give equal bytes.

        Parameters
        ----------
        path : str or path
            The file.
        dtype : torch.float32 or torch.float64, optional
            Floating-point type to round to; None keeps the numbers as they are.

        Raises
        ------
        BadInputError
            For any other dtype.
        RunError
            If the file cannot be written.
        """
        if dtype not in (None, torch.float32, torch.float64):
            raise BadInputError(f"spectra are saved as float32 or float64, not {dtype}")
        copy = self.to("cpu", dtype)
        everything = (*copy.items(), ("output", copy.output))
        tensors = {
            "mean": torch.stack([spectrum.mean for _, spectrum in everything]),
            "total_variance": torch.tensor([s.total_variance for _, s in everything], dtype=torch.float64),
        }
        for label, spectrum in everything:
            tensors[f"{label}.components"] = spectrum.components.contiguous()
            tensors[f"{label}.explained_variance"] = spectrum.explained_variance.contiguous()
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "n_layers": self.units.n_layers,
            "n_heads": self.units.n_heads,
            "n_samples": self.n_samples,
            "source": self.source,
            "model_fingerprint": self.model_fingerprint,
            "fingerprint": self.fingerprint,
            "checksum": copy._checksum(),
        }
        if self.units.pool_mlp:
            header["pool_mlp"] = True
        if self.images:
            header["images"] = self.images
        with saying_what_is_kept(path, "nothing was written there"):
            # one key: safetensors writes several in an order that changes from process to process
            publish(path, save(tensors, {"residualign": json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Spectra:
        """Read what `save` wrote, bit for bit.

        Parameters
        ----------
        path : str or path
            The file.

        Raises
        ------
        BadInputError
            If the file is missing, truncated, changed, or not a spectra file.
        """
        header, tensors = read_tensors(path, _FORMAT, _VERSION)
        try:
            units = Units(header["n_layers"], header["n_heads"], header.get("pool_mlp", False))
            total = tensors["total_variance"].tolist()
            spectrums = tuple(
                Spectrum(
                    tensors["mean"][i].clone(),
                    tensors[f"{label}.components"],
                    tensors[f"{label}.explained_variance"],
                    total[i],
                    header["n_samples"],
                )
                for i, label in enumerate((*units.labels, "output"))
            )
            names = header["source"], header["model_fingerprint"], header.get("images", "")
            spectra = cls(units, spectrums[:-1], spectrums[-1], *names)
            expected = header["checksum"]
        except (KeyError, IndexError) as error:
            raise BadInputError(f"{os.fspath(path)} lacks {error} of a {_FORMAT} file") from None
        if spectra._checksum() != expected:
            raise BadInputError(f"{os.fspath(path)} is damaged: its numbers are not the ones that were written")
        return spectra
