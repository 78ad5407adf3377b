"""How the final LayerNorm is made linear, and how its constants are shared out among the units.

With the mean mu and standard deviation sigma of an image's own final residual stream x (biased variance, eps inside
the root), LayerNorm is linear in x:

    embedding = (x P' - mu 1 P') / sigma + beta P + b,   P' = diag(gamma) P,   x = sum of units

The terms that do not belong to a unit are shared out by one of two rules, both exact.

- `"shared"` (the paper's): -mu 1 P' / sigma, beta P and b are split equally over the 2L+1 groups (embedding, L
  attention layers, L MLPs), a layer's share equally over its heads. An attention output bias is split equally over its
  heads and passes through layer scale and 1 / sigma like them.
- `"own"`: every unit loses its own mean over the width (they add up to mu); beta P and b are shared as above.

Where tokens are averaged, the same holds for averages: of z, over one sigma, if the norm comes after the mean; of the
z / sigma, 1 / sigma and mu / sigma of every token, if it comes first. Attention pooling is in `attention_readout`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import IdentityMaps, UnitMaps
from residualign.errors import BadInputError
from residualign.models.pooling import AttentionPooling, TokenPooling
from residualign.models.tower import Block, Tower

__all__ = ["MeanRule", "embedding_vector", "output_projection", "unit_maps", "working_dtype"]

MeanRule = Literal["shared", "own"]


def unit_maps(tower: Tower, rule: MeanRule = "shared", dtype: torch.dtype | None = None) -> UnitMaps:
    """The rows B_u and constants c_u of every unit, computed in float64.

    dtype: of the result; the tower's own by default, float32 for half types. Costs one forward pass of one image and
    O(layer x width x width x dim); memory O(units x head_dim x dim + layer x width x dim). Source: arXiv 2310.05916,
    appendix on the LayerNorm; the rule for constants is that of arXiv 2411.00246's published code.
    """
    if rule not in ("shared", "own"):
        raise BadInputError(f"rule is 'shared' or 'own'; got {rule!r}")
    if isinstance(tower.pooling, AttentionPooling):
        # the coordinates are the contributions, and the trace applies the rule
        return IdentityMaps.of(
            tower.units, tower.dim, tower.head_dim, dtype or working_dtype(tower.dtype), tower.device
        )
    n_layers, n_heads, width = len(tower.blocks), tower.n_heads, tower.width
    n_groups = 2 * n_layers + 1
    readout = _readout(tower)
    ones_readout = readout.sum(dim=0)
    mean_row = -ones_readout / n_groups if rule == "shared" else torch.zeros_like(ones_readout)
    to_output = readout if rule == "shared" else readout - ones_readout / width
    constant = _constant(tower) / n_groups

    heads = torch.empty(n_layers, n_heads, tower.head_dim + 2, tower.dim, dtype=torch.float64, device=tower.device)
    mlps = torch.empty(n_layers, width + 1, tower.dim, dtype=torch.float64, device=tower.device)
    for layer, block in enumerate(tower.blocks):
        weight, bias = output_projection(block, width)
        heads[layer, :, :-2] = (weight @ to_output).view(n_heads, tower.head_dim, tower.dim)
        heads[layer, :, -2] = bias @ to_output / n_heads
        heads[layer, :, -1] = mean_row / n_heads
        # an MLP's layer scale is already in its coordinates, which are read off the stream
        mlps[layer, :-1] = to_output
        mlps[layer, -1] = mean_row
    if isinstance(tower.pooling, TokenPooling):
        embedding = torch.stack([embedding_vector(tower, tower.pooling).double() @ to_output, mean_row])
    else:
        embedding = torch.cat([to_output, mean_row[None]])
    maps = UnitMaps(heads, mlps, embedding, head_bias=constant / n_heads, group_bias=constant)
    return maps.to(dtype=dtype or working_dtype(tower.dtype))


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What contributions are held in: the tower's own dtype, float32 for half types."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def embedding_vector(tower: Tower, pooling: TokenPooling) -> Float[Tensor, " width"]:
    """The residual stream at the pooled token before the first block: at a class token the same for every image.

    `BadInputError` where it differs between two images.
    """
    seen: list[Tensor] = []
    handle = tower.entry.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, pooling.index].clone()))
    try:
        with torch.no_grad():
            tower.forward(tower.probe(2))
    finally:
        handle.remove()
    first: Tensor = seen[0][0]
    second: Tensor = seen[0][1]
    if not torch.equal(first, second):
        raise BadInputError(
            "the pooled token's embedding differs between images; expected a class token, which does not"
        )
    return first


def _readout(tower: Tower) -> Float[Tensor, "width dim"]:
    """diag(gamma) P in float64."""
    gamma = tower.final_norm.weight.detach().double()
    if tower.projection is None:
        return torch.diag(gamma)
    readout: Tensor = gamma[:, None] * tower.projection.weight.detach().double().T
    return readout


def _constant(tower: Tower) -> Float[Tensor, " dim"]:
    """The sum beta P + b in float64."""
    beta: Tensor | None = tower.final_norm.bias
    constant = torch.zeros(tower.width, dtype=torch.float64, device=tower.device) if beta is None else beta.double()
    if tower.projection is not None:
        constant = constant @ tower.projection.weight.double().T
        bias: Tensor | None = tower.projection.bias
        if bias is not None:
            constant = constant + bias.double()
    return constant.detach()


def output_projection(block: Block, width: int) -> tuple[Float[Tensor, "value width"], Float[Tensor, " width"]]:
    """W_O and its bias after layer scale, in float64."""
    weight = block.out_proj.weight.detach().double().T
    own: Tensor | None = block.out_proj.bias
    bias = torch.zeros(width, dtype=torch.float64, device=weight.device) if own is None else own.detach().double()
    if block.attention_scale is not None:
        scale = block.attention_scale.detach().double()
        weight, bias = weight * scale, bias * scale
    return weight, bias
