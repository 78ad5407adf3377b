"""What all of timm's transformers have in common as a `Tower`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from residualign.models.pooling import pooling_constants
from residualign.models.timm_parts import activation_name
from residualign.models.timm_pooling import final_norm, normed_tokens, pooling_of
from residualign.models.tower import Block, Tower

__all__ = ["timm_tower"]


def timm_tower(
    model: Any, blocks: Sequence[Block], tensors: Mapping[str, Tensor], constants: Mapping[str, str] | None = None
) -> Tower:
    """The tower of a timm model whose blocks and weights its family has described; constants: what it has besides."""
    norm, pooling = final_norm(model), pooling_of(model)

    def forward(pixels: Tensor) -> Tensor:
        output: Tensor = model(pixels)
        return output

    return Tower(
        module=model,
        forward=forward,
        blocks=tuple(blocks),
        entry=model.blocks[0],
        n_heads=model.blocks[0].attn.num_heads,
        final_norm=norm,
        projection=None,
        image_size=int(model.patch_embed.img_size[0]),
        tensors=tensors,
        constants={
            "activation": activation_name(model.blocks[0].mlp.act),
            "eps": repr(norm.eps),
            **(constants or {}),
            **pooling_constants(pooling),
        },
        pooling=pooling,
        tokens=partial(normed_tokens, model, norm),
        n_prefix=model.num_prefix_tokens,
    )
