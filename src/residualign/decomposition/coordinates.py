"""Coordinates of residual units, and the fixed maps that turn them into contributions.

A unit's contribution to the embedding of image n is `y_n @ weight + bias`: `y_n` is a short vector of the image, while
`weight` and `bias` belong to the tower alone. Everything linear (PCA, scaling, folding) is done on `y`. A tower that
pools by attention has no such short vector; there y is the contribution itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from residualign._result import one_line
from residualign.errors import BadInputError
from residualign.models.finite import is_finite
from residualign.units import Unit, Units

__all__ = ["Coordinates", "IdentityMaps", "Layout", "UnitMaps", "first_not_finite", "refuse_not_finite"]

Layout = Literal["token", "mean", "contributions"]
"""What coordinates are taken of: one pooled token, a mean over tokens, or the contributions themselves."""


@dataclass(frozen=True, repr=False)
class Coordinates:
    """What is kept of one forward pass over some images: enough to rebuild every unit's contribution exactly.

    For a tower that pools a token ("token") or the mean of tokens ("mean"):

    heads: (image, layer, head, head_dim), a head's value before the output projection, over sigma.
    mlps: (image, layer, width), an MLP's output (after layer scale), over sigma.
    inverse_std: (image,), 1 / sigma of the final LayerNorm. mean_over_std: (image,), mu / sigma of the same.
    embedding: (image, width), the stream before the first block, over sigma; None for a class token, where it is one
    constant vector.
    All are those of the pooled token, or means over the pooled tokens (of the quotients, where the norm comes first).

    For a tower that pools by attention ("contributions"): heads (image, layer, head, dim), mlps (image, layer, dim),
    embedding and pool_mlp (image, dim) are the contributions, constants included; the two statistics are None.

    output: (image, dim), the model's own embedding, not normalized.

    Source: arXiv 2411.00246 section 3 (units), Gandelsman et al. 2310.05916 appendix A (LayerNorm).
    """

    heads: Float[Tensor, "image layer head value"]
    mlps: Float[Tensor, "image layer mlp_value"]
    inverse_std: Float[Tensor, " image"] | None
    mean_over_std: Float[Tensor, " image"] | None
    output: Float[Tensor, "image dim"]
    embedding: Float[Tensor, "image mlp_value"] | None = None
    pool_mlp: Float[Tensor, "image dim"] | None = None

    def __len__(self) -> int:
        return self.output.shape[0]

    @property
    def layout(self) -> Layout:
        """What these coordinates are taken of."""
        if self.inverse_std is None:
            return "contributions"
        return "token" if self.embedding is None else "mean"

    @property
    def units(self) -> Units:
        """The units of the tower these come from."""
        return Units(self.heads.shape[1], self.heads.shape[2], self.pool_mlp is not None)

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are not None, by name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: tensor for name, tensor in named if tensor is not None}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor]) -> Coordinates:
        """The inverse of `tensors`."""
        statistics = {name: tensors.get(name) for name in ("inverse_std", "mean_over_std")}
        return cls(**{**tensors, **statistics})  # type: ignore[arg-type]

    def __getitem__(self, index: slice | Tensor) -> Coordinates:
        """The same coordinates of some of the images (a slice, or an index or mask tensor)."""
        return self.of_tensors({name: tensor[index] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Coordinates:
        """The same coordinates on a different device or in a different dtype."""
        return self.of_tensors({name: tensor.to(device=device, dtype=dtype) for name, tensor in self.tensors().items()})

    @staticmethod
    def cat(batches: Iterable[Coordinates]) -> Coordinates:
        """Concatenate batches of one tower; at least one."""
        parts = [batch.tensors() for batch in batches]
        return Coordinates.of_tensors({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def head_coordinates(self) -> Float[Tensor, "image layer head coordinate"]:
        """`[z / sigma ; 1 / sigma ; mu / sigma]` of every head, head_dim + 2 numbers each; or its contribution."""
        if self.layout == "contributions":
            return self.heads
        n, n_layers, n_heads, _ = self.heads.shape
        return torch.cat([self.heads, self.scalars()[:, None, None].expand(n, n_layers, n_heads, 2)], dim=-1)

    def mlp_coordinates(self) -> Float[Tensor, "image layer coordinate"]:
        """`[z / sigma ; mu / sigma]` of every MLP, width + 1 numbers each; or its contribution."""
        if self.mean_over_std is None:
            return self.mlps
        n, n_layers, _ = self.mlps.shape
        return torch.cat([self.mlps, self.mean_over_std[:, None, None].expand(n, n_layers, 1)], dim=-1)

    def embedding_coordinates(self) -> Float[Tensor, "image coordinate"]:
        """`[1 / sigma ; mu / sigma]` where the embedding is one constant vector, else as for an MLP."""
        if self.embedding is None:
            return self.scalars()
        if self.mean_over_std is None:
            return self.embedding
        return torch.cat([self.embedding, self.mean_over_std[:, None]], dim=-1)

    def scalars(self) -> Float[Tensor, "image 2"]:
        """`[1 / sigma ; mu / sigma]`, the same for every unit of an image."""
        assert self.inverse_std is not None
        assert self.mean_over_std is not None
        return torch.stack([self.inverse_std, self.mean_over_std], dim=-1)

    def of(self, unit: Unit) -> Float[Tensor, "image coordinate"]:
        """The coordinates y of one unit."""
        if unit.kind == "embedding":
            return self.embedding_coordinates()
        if unit.kind == "mlp":
            own = self.pool_mlp if unit.layer is None else self.mlps[:, unit.layer]
            assert own is not None
            return own if self.mean_over_std is None else torch.cat([own, self.mean_over_std[:, None]], dim=-1)
        head = self.heads[:, unit.layer, unit.head]
        return head if self.layout == "contributions" else torch.cat([head, self.scalars()], dim=-1)

    def __repr__(self) -> str:
        dim, dtype = self.output.shape[-1], str(self.output.dtype).removeprefix("torch.")
        return one_line(f"Coordinates(n_images={len(self)}, {self.units}, layout={self.layout!r}, dim={dim}, {dtype})")


@dataclass(frozen=True, repr=False)
class UnitMaps:
    """The fixed rows B_u and constants c_u with which `contribution = y @ B_u + c_u`.

    heads: (layer, head, head_dim + 2, dim). mlps: (layer, width + 1, dim). embedding: (2, dim) at a class token, else
    (width + 1, dim). head_bias: (dim,), the constant of each head. group_bias: (dim,), that of each MLP and of the
    embedding; the H heads of a layer share one such part: `head_bias == group_bias / H`.
    """

    heads: Float[Tensor, "layer head coordinate dim"]
    mlps: Float[Tensor, "layer mlp_coordinate dim"]
    embedding: Float[Tensor, "embedding_coordinate dim"]
    head_bias: Float[Tensor, " dim"]
    group_bias: Float[Tensor, " dim"]

    @property
    def layout(self) -> Layout:
        """What the coordinates of this tower are taken of."""
        return "token" if self.embedding.shape[0] == 2 else "mean"

    @property
    def units(self) -> Units:
        """The units these maps belong to."""
        return Units(n_layers=self.heads.shape[0], n_heads=self.heads.shape[1])

    @property
    def dim(self) -> int:
        """Size of the output space."""
        return self.embedding.shape[-1]

    @property
    def max_head_components(self) -> int | None:
        """How many components of a head a spectrum keeps by default; None for all of them."""
        return None

    @property
    def value_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one image's part of each tensor of the coordinates."""
        n_layers, n_heads, size, dim = self.heads.shape
        width = self.mlps.shape[1] - 1
        shapes: dict[str, tuple[int, ...]] = {
            "heads": (n_layers, n_heads, size - 2),
            "mlps": (n_layers, width),
            "inverse_std": (),
            "mean_over_std": (),
            "output": (dim,),
        }
        return shapes if self.layout == "token" else {**shapes, "embedding": (width,)}

    @property
    def coordinate_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one image's y, by kind of unit."""
        return {
            "heads": tuple(self.heads.shape[:3]),
            "mlps": tuple(self.mlps.shape[:2]),
            "embedding": (self.embedding.shape[0],),
        }

    def weight(self, unit: Unit) -> Float[Tensor, "coordinate dim"]:
        """B_u of one unit."""
        if unit.kind == "embedding":
            return self.embedding
        assert unit.layer is not None
        if unit.kind == "mlp":
            return self.mlps[unit.layer]
        assert unit.head is not None
        return self.heads[unit.layer, unit.head]

    def bias(self, unit: Unit) -> Float[Tensor, " dim"]:
        """c_u of one unit."""
        return self.head_bias if unit.kind == "head" else self.group_bias

    def items(self) -> Iterator[tuple[Unit, Tensor, Tensor]]:
        """(unit, weight, bias) in unit order."""
        for unit in self.units:
            yield unit, self.weight(unit), self.bias(unit)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> UnitMaps:
        """The same maps on a different device or in a different dtype."""
        return UnitMaps(**{f.name: getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self)})

    def contribution(self, coordinates: Coordinates, unit: Unit) -> Float[Tensor, "image dim"]:
        """One unit's contribution: O(image x coordinate x dim)."""
        return coordinates.of(unit) @ self.weight(unit) + self.bias(unit)

    def sum(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        """The sum of all units, which is the model's embedding, without the (image, unit, dim) tensor.

        O(image x all coordinates x dim), as one product per kind of unit.
        """
        heads = coordinates.head_coordinates()
        mlps = coordinates.mlp_coordinates()
        n_layers, n_heads = self.heads.shape[:2]
        total = heads.flatten(1) @ self.heads.flatten(0, 2)
        total = total + mlps.flatten(1) @ self.mlps.flatten(0, 1)
        total = total + coordinates.embedding_coordinates() @ self.embedding
        return total + n_layers * n_heads * self.head_bias + (n_layers + 1) * self.group_bias

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a store keeps, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __repr__(self) -> str:
        dtype = str(self.embedding.dtype).removeprefix("torch.")
        return one_line(f"{type(self).__name__}({self.units}, layout={self.layout!r}, dim={self.dim}, {dtype})")


@dataclass(frozen=True, repr=False)
class IdentityMaps(UnitMaps):
    """The maps of a tower that pools by attention: one identity matrix for every unit, and constants of zero.

    head_dim: of the tower. A head spans up to dim directions here, of which spectra keep head_dim by default.
    pool_mlp: whether the pooling has an MLP, which is one more unit.
    """

    head_dim: int = 0
    pool_mlp: bool = False

    @classmethod
    def of(cls, units: Units, dim: int, head_dim: int, dtype: torch.dtype, device: torch.device | str) -> IdentityMaps:
        """The maps of a tower with these units."""
        identity, zero = torch.eye(dim, dtype=dtype, device=device), torch.zeros(dim, dtype=dtype, device=device)
        heads = identity.expand(units.n_layers, units.n_heads, dim, dim)
        mlps = identity.expand(units.n_layers, dim, dim)
        return cls(heads, mlps, identity, zero, zero, head_dim, units.pool_mlp)

    @property
    def layout(self) -> Layout:
        return "contributions"

    @property
    def units(self) -> Units:
        return Units(self.heads.shape[0], self.heads.shape[1], self.pool_mlp)

    @property
    def max_head_components(self) -> int:
        return self.head_dim

    @property
    def value_shapes(self) -> dict[str, tuple[int, ...]]:
        return {**self.coordinate_shapes, "output": (self.dim,)}

    @property
    def coordinate_shapes(self) -> dict[str, tuple[int, ...]]:
        n_layers, n_heads, _, dim = self.heads.shape
        shapes: dict[str, tuple[int, ...]] = {
            "heads": (n_layers, n_heads, dim),
            "mlps": (n_layers, dim),
            "embedding": (dim,),
        }
        return {**shapes, "pool_mlp": (dim,)} if self.pool_mlp else shapes

    def weight(self, unit: Unit) -> Float[Tensor, "dim dim"]:
        return self.embedding

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> IdentityMaps:
        like = self.embedding.to(device=device, dtype=dtype)
        return IdentityMaps.of(self.units, self.dim, self.head_dim, like.dtype, like.device)

    def contribution(self, coordinates: Coordinates, unit: Unit) -> Float[Tensor, "image dim"]:
        return coordinates.of(unit)

    def sum(self, coordinates: Coordinates) -> Float[Tensor, "image dim"]:
        total = coordinates.heads.sum(dim=(1, 2)) + coordinates.mlps.sum(dim=1)
        total = total + coordinates.embedding_coordinates()
        return total if coordinates.pool_mlp is None else total + coordinates.pool_mlp

    def tensors(self) -> dict[str, Tensor]:
        """What a store keeps: an empty tensor, for its dtype."""
        return {"identity": self.embedding.new_zeros(0)}


def refuse_not_finite(coordinates: Coordinates) -> None:
    """`BadInputError` naming the unit where coordinates hold NaN or infinity."""
    where = first_not_finite(coordinates)
    if where is not None:
        raise BadInputError(f"the coordinates of {where} hold NaN or infinity; expected finite numbers")


def first_not_finite(coordinates: Coordinates) -> str | None:
    """Where a batch first holds NaN or infinity: a unit label, a statistic or the output; None where all is finite.

    Cost: one reading of the batch.
    """
    tensors = coordinates.tensors()
    for name in ("inverse_std", "mean_over_std"):
        if name in tensors and not is_finite(tensors[name]):
            return f"the final LayerNorm ({name})"
    for name, label in (("embedding", "embedding"), ("pool_mlp", Unit("mlp").label)):
        if name in tensors and not is_finite(tensors[name]):
            return label
    if not is_finite(coordinates.mlps):
        layer = int((~torch.isfinite(coordinates.mlps).all(dim=2).all(dim=0)).nonzero()[0, 0])
        return Unit("mlp", layer).label
    if not is_finite(coordinates.heads):
        layer, head = (~torch.isfinite(coordinates.heads).all(dim=3).all(dim=0)).nonzero()[0].tolist()
        return Unit("head", layer, head).label
    return None if is_finite(coordinates.output) else "the model's output"
