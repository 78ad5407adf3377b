"""Protocols of a model's parts, whichever library they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor, nn

__all__ = ["ImagePreprocess", "Projection", "TextEncoder", "layer_scale"]


@runtime_checkable
class ImagePreprocess(Protocol):
    """One PIL image in, (3, height, width) float32 pixels out."""

    def __call__(self, image: Image.Image) -> Tensor:
        """The pixels of one image, on the CPU."""
        ...

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, JSON-able, with the backend."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Strings in, (text, dim) embeddings out, not normalised."""

    @property
    def logit_scale(self) -> float:
        """The factor, already exponentiated, that turns cosines into logits."""
        ...

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid loss adds to its logits; None for other models."""
        ...

    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Text embeddings."""
        ...

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """The texts with a token outside the tokenizer's vocabulary."""
        ...


@runtime_checkable
class Projection(Protocol):
    """The linear map from the residual stream to the output space, with the attributes of `nn.Linear`."""

    @property
    def weight(self) -> Tensor:
        """(dim, width)."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """(dim,), or None."""
        ...

    @property
    def out_features(self) -> int:
        """dim."""
        ...


def layer_scale(module: nn.Module) -> Tensor | None:
    """The factors (width,) of a layer scale of open_clip or timm; None for an identity in its place."""
    return None if isinstance(module, nn.Identity) else module.get_parameter("gamma")
