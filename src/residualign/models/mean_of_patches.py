"""The mean of the patches in place of the class token: an option for towers that were trained without text."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from residualign.errors import BadInputError
from residualign.models.pooling import MeanPooling, TokenPooling, pooling_constants
from residualign.models.tower import Tower

__all__ = ["mean_of_patches"]


def mean_of_patches(tower: Tower, name: str) -> Tower:
    """The same tower with the mean of its normed patch tokens as embedding; class token and registers stay out.

    The fingerprint is another one: an adapter of one pooling does not fit the other. `BadInputError` for a tower that
    pools otherwise by itself or projects its class token into a space shared with text.
    """
    tokens, first = tower.tokens, tower.n_prefix
    if tokens is None or not isinstance(tower.pooling, TokenPooling) or tower.projection is not None:
        raise BadInputError(
            f"model {name!r} has a pooling of its own; '#mean' is for ViT and DINO towers that pool a class token"
        )

    def forward(pixels: Tensor) -> Tensor:
        return tokens(pixels)[:, first:].mean(dim=1)

    pooling = MeanPooling(first=first, norm_first=True)
    constants = {**tower.constants, **pooling_constants(pooling)}
    return replace(tower, forward=forward, pooling=pooling, constants=constants, tokens=None)
