"""Maps of a tower that pools by attention: coordinates are contributions, so every map is the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, Layout, UnitMaps
from residualign.units import Unit, Units

__all__ = ["IdentityMaps"]


@dataclass(frozen=True, repr=False)
class IdentityMaps(UnitMaps):
    """One identity matrix as the map of every unit, without copies, and constants of zero.

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
