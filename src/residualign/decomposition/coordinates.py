"""Compact coordinates of residual units, and the fixed maps that turn them into contributions.

A unit's contribution to the embedding of image n is `y_n @ weight + bias`: `y_n` are a few numbers of the image,
`weight` and `bias` belong to the tower alone. Everything linear (PCA, scaling, folding) is done on `y`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.units import Unit, Units

__all__ = ["Coordinates", "UnitMaps"]


@dataclass(frozen=True)
class Coordinates:
    """What one pass over a batch leaves behind: enough to rebuild every unit's contribution exactly.

    heads: (image, layer, head, head_dim), a head's value at the pooled token before the output projection, over sigma.
    mlps: (image, layer, width), an MLP's output (after layer scale) at the pooled token, over sigma.
    inverse_std: (image,), 1 / sigma of the final LayerNorm. mean_over_std: (image,), mu / sigma of the same.
    output: (image, dim), the model's own embedding, not normalised.

    Source: DESIGN of arXiv 2411.00246 section 3 (units), Gandelsman et al. 2310.05916 appendix A (LayerNorm).
    """

    heads: Float[Tensor, "image layer head head_dim"]
    mlps: Float[Tensor, "image layer width"]
    inverse_std: Float[Tensor, " image"]
    mean_over_std: Float[Tensor, " image"]
    output: Float[Tensor, "image dim"]

    def __len__(self) -> int:
        return self.output.shape[0]

    @property
    def units(self) -> Units:
        """The units of the tower these come from."""
        return Units(n_layers=self.heads.shape[1], n_heads=self.heads.shape[2])

    def __getitem__(self, index: slice | Tensor) -> Coordinates:
        """The same coordinates of some of the images (a slice, or an index or mask tensor)."""
        return Coordinates(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Coordinates:
        """The same coordinates on another device or in another dtype."""
        return Coordinates(**{f.name: getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self)})

    @staticmethod
    def cat(batches: Iterable[Coordinates]) -> Coordinates:
        """Batches one after another as one; needs at least one batch."""
        batches = list(batches)
        return Coordinates(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(Coordinates)})

    def head_coordinates(self) -> Float[Tensor, "image layer head coordinate"]:
        """`[z / sigma ; 1 / sigma ; mu / sigma]` of every head, head_dim + 2 numbers each."""
        n, n_layers, n_heads, _ = self.heads.shape
        scalars = torch.stack([self.inverse_std, self.mean_over_std], dim=-1)
        return torch.cat([self.heads, scalars[:, None, None].expand(n, n_layers, n_heads, 2)], dim=-1)

    def mlp_coordinates(self) -> Float[Tensor, "image layer coordinate"]:
        """`[z / sigma ; mu / sigma]` of every MLP, width + 1 numbers each."""
        n, n_layers, _ = self.mlps.shape
        return torch.cat([self.mlps, self.mean_over_std[:, None, None].expand(n, n_layers, 1)], dim=-1)

    def embedding_coordinates(self) -> Float[Tensor, "image 2"]:
        """`[1 / sigma ; mu / sigma]`: at a class token the embedding itself is one constant vector."""
        return torch.stack([self.inverse_std, self.mean_over_std], dim=-1)

    def of(self, unit: Unit) -> Float[Tensor, "image coordinate"]:
        """The coordinates y of one unit."""
        if unit.kind == "embedding":
            return self.embedding_coordinates()
        assert unit.layer is not None
        if unit.kind == "mlp":
            return torch.cat([self.mlps[:, unit.layer], self.mean_over_std[:, None]], dim=-1)
        assert unit.head is not None
        return torch.cat([self.heads[:, unit.layer, unit.head], self.embedding_coordinates()], dim=-1)


@dataclass(frozen=True)
class UnitMaps:
    """The fixed rows B_u and constants c_u with which `contribution = y @ B_u + c_u`.

    heads: (layer, head, head_dim + 2, dim). mlps: (layer, width + 1, dim). embedding: (2, dim).
    head_bias: (dim,), the constant of every single head; group_bias: (dim,), of every MLP and of the embedding
    (H heads of a layer share one group's part: `head_bias == group_bias / H`).
    """

    heads: Float[Tensor, "layer head coordinate dim"]
    mlps: Float[Tensor, "layer mlp_coordinate dim"]
    embedding: Float[Tensor, "2 dim"]
    head_bias: Float[Tensor, " dim"]
    group_bias: Float[Tensor, " dim"]

    @property
    def units(self) -> Units:
        """The units these maps belong to."""
        return Units(n_layers=self.heads.shape[0], n_heads=self.heads.shape[1])

    @property
    def dim(self) -> int:
        """Size of the output space."""
        return self.embedding.shape[-1]

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
        """The same maps on another device or in another dtype."""
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
