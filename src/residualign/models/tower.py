"""The interface between model families and everything else: where a tower's parts are, and how it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residualign._result import one_line
from residualign.errors import BadInputError
from residualign.models.finite import refuse_embeddings
from residualign.models.pooling import (
    CLASS_TOKEN,
    AttentionPooling,
    MeanPooling,
    Pooling,
    Projection,
    TokenPooling,
    pooling_constants,
)
from residualign.units import Units

__all__ = ["Block", "Tower", "fingerprint", "layer_scale", "mean_of_patches", "refuse_non_finite"]


@dataclass(frozen=True)
class Block:
    """One pre-norm transformer block, which adds to the residual stream twice.

    out_proj: the attention's output projection; its *input* holds the heads' values side by side, (image, token,
    head x head_dim). mlp: the module whose output is added to the stream. attention_scale, mlp_scale: (width,), the
    layer scale after each, or None.
    """

    out_proj: nn.Linear
    mlp: nn.Module
    attention_scale: Tensor | None = None
    mlp_scale: Tensor | None = None


def layer_scale(module: nn.Module) -> Tensor | None:
    """The factors (width,) of a layer scale of open_clip or timm; None for an identity in its place."""
    return None if isinstance(module, nn.Identity) else module.get_parameter("gamma")


@dataclass(frozen=True, repr=False)
class Tower:
    """A vision tower as its family describes it. The rest of the package knows towers, not families.

    forward: (image, 3, height, width) pixels -> (image, dim) embedding, not normalized; `run` also checks it. Like
    `tokens` and what a pooling asks, a function of a module bound to it by `partial`, not one that closes over it: a
    copy of the tower then runs the copy's weights, and can be pickled.
    image_size: height of preprocessed images, in pixels.
    entry: the module whose first argument is the residual stream before the first block.
    final_norm: the norm of the residual stream, before the pooling or after it.
    tensors: every weight of the tower under a family-neutral name, so that a checkpoint has one fingerprint whichever
    library loads it. constants: what else decides the output, such as activation and epsilon.
    pooling: how tokens become one vector.
    exchange: opens a context in which hooks on the output projections fire, for attention that calls its projection as
    a function.
    tokens: (image, 3, height, width) pixels -> (image, token, width), all tokens after the final norm, the first
    `n_prefix` of which are not patches; None where the family does not give them.
    pixels_shape: (channels, height, width) of preprocessed images; None for three channels and a square.
    kept: a cache of values computed from the weights; not part of the tower.
    """

    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    blocks: tuple[Block, ...]
    entry: nn.Module
    n_heads: int
    final_norm: nn.LayerNorm
    projection: Projection | None
    image_size: int
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, str]
    pooling: Pooling = CLASS_TOKEN
    exchange: Callable[[], AbstractContextManager[None]] = nullcontext
    tokens: Callable[[Tensor], Tensor] | None = None
    n_prefix: int = 1
    pixels_shape: tuple[int, int, int] | None = None
    kept: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return int(self.final_norm.normalized_shape[0])

    @property
    def dim(self) -> int:
        """Size of the output space."""
        if self.projection is not None:
            return self.projection.out_features
        return self.pooling.out.out_features if isinstance(self.pooling, AttentionPooling) else self.width

    @property
    def units(self) -> Units:
        """The residual units in their fixed order."""
        pool_mlp = isinstance(self.pooling, AttentionPooling) and self.pooling.mlp is not None
        return Units(len(self.blocks), self.n_heads, pool_mlp)

    @property
    def head_dim(self) -> int:
        """Size of one head's value."""
        return self.blocks[0].out_proj.in_features // self.n_heads

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.final_norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.final_norm.weight.dtype

    def embed(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image dim"]:
        """The forward pass; `BadInputError` for pixels of a size that the tower does not take."""
        try:
            return self.forward(pixels)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            own = (self.pixels_shape or (3, self.image_size, self.image_size))[1:]
            given = tuple(pixels.shape[-2:])
            if given == own:
                raise
            raise BadInputError(
                f"this model takes pixels of {own[0]} x {own[1]}; got {given[0]} x {given[1]} "
                "(give pictures instead of a tensor, they are brought to that size)"
            ) from error

    def run(
        self, pixels: Float[Tensor, "image 3 height width"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "image dim"]:
        """The forward pass; `BadInputError` naming the images (`names`) whose embedding is NaN or infinite."""
        output = self.embed(pixels)
        refuse_embeddings(output, pixels, names)
        return output

    def probe(self, n_images: int, seed: int = 0) -> Float[Tensor, "image 3 height width"]:
        """Seeded Gaussian noise with the shape, dtype and device of preprocessed images."""
        generator = torch.Generator().manual_seed(seed)
        shape = self.pixels_shape or (3, self.image_size, self.image_size)
        pixels = torch.randn(n_images, *shape, generator=generator, dtype=torch.float64)
        return pixels.to(device=self.device, dtype=self.dtype)

    def __repr__(self) -> str:
        pooling, dtype = type(self.pooling).__name__, str(self.dtype).removeprefix("torch.")
        sizes = f"width={self.width}, dim={self.dim}, image_size={self.image_size}"
        return one_line(f"Tower({self.units}, {sizes}, pooling={pooling}, {dtype})")


def fingerprint(tower: Tower) -> str:
    """SHA-256 over the tower's constants and tensors, in name order, each as float32.

    float16, bfloat16 and float32 convert to float32 exactly, so a checkpoint has the same fingerprint in every dtype
    that holds it without loss. O(parameters).
    """
    digest = hashlib.sha256()
    for name, text in sorted(tower.constants.items()):
        digest.update(f"{name}={text}\n".encode())
    for name, tensor in sorted(tower.tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def refuse_non_finite(tower: Tower, name: str) -> None:
    """Raise `BadInputError` naming the first weight that holds NaN or infinity."""
    for tensor_name, tensor in tower.tensors.items():
        if not torch.isfinite(tensor).all():
            raise BadInputError(
                f"model {name!r}: weight {tensor_name!r} has NaN or infinite values; the file is damaged"
            )


def mean_of_patches(tower: Tower, name: str) -> Tower:
    """The same tower with the mean of its normed patch tokens as embedding, without class token and registers.

    Its fingerprint differs, as an adapter of one pooling does not fit the other. `BadInputError` for a tower that does
    not pool a class token, or projects it into a space shared with text.
    """
    tokens, first = tower.tokens, tower.n_prefix
    if tokens is None or not isinstance(tower.pooling, TokenPooling) or tower.projection is not None:
        raise BadInputError(
            f"model {name!r} cannot take '#mean', which is for ViT and DINO towers: those that pool a class "
            "token and have no projection"
        )

    pooling = MeanPooling(first=first, norm_first=True)
    constants = {**tower.constants, **pooling_constants(pooling)}
    return replace(tower, forward=partial(_mean, tokens, first), pooling=pooling, constants=constants, tokens=None)


def _mean(tokens: Callable[[Tensor], Tensor], first: int, pixels: Tensor) -> Tensor:
    return tokens(pixels)[:, first:].mean(dim=1)
