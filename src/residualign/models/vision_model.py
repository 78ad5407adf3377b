"""A loaded model: tower, preprocessing and, where it has one, the text half."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from residualign._result import one_line
from residualign.data.images import read_image, to_rgb
from residualign.errors import BadInputError
from residualign.models.protocols import ImagePreprocess, TextEncoder
from residualign.models.tower import Tower, fingerprint
from residualign.units import Units

__all__ = ["Images", "VisionModel"]

_LONGEST_NAME = 80

Images = Tensor | Sequence[Image.Image | str | os.PathLike[str]]


class VisionModel:
    """What `load_model` returns: a frozen encoder whose output can be taken apart.

    name: what the user typed. source: the directory or hub id behind it. revision: the commit of a model from the
    hub in transformers format, else None. module: the library's own. residual_error: largest |sum of units - output|
    over largest |output| on the probe batch at load.
    """

    def __init__(
        self,
        name: str,
        source: str,
        module: nn.Module,
        tower: Tower,
        preprocess: ImagePreprocess,
        text: TextEncoder | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.revision: str | None = None
        self.module = module
        self.tower = tower
        self.preprocess = preprocess
        self.text = text
        self.residual_error = float("nan")

    @property
    def units(self) -> Units:
        """The tower's residual units in their fixed order."""
        return self.tower.units

    @property
    def dim(self) -> int:
        """Size of the output space."""
        return self.tower.dim

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return self.tower.width

    @property
    def n_heads(self) -> int:
        """Attention heads of one layer."""
        return self.tower.n_heads

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.tower.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are held in."""
        return self.tower.dtype

    @property
    def has_text(self) -> bool:
        """Whether class vectors can come from words."""
        return self.text is not None

    @property
    def logit_scale(self) -> float | None:
        """The trained logit scale, already exponentiated; None without a text tower."""
        return None if self.text is None else self.text.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid loss adds to its logits; None for the others."""
        return None if self.text is None else self.text.logit_bias

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tower's weights under family-neutral names, as the checkpoint has them."""
        return fingerprint(self.tower)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and convert the model in place. The fingerprint stays that of the weights as they were loaded."""
        _ = self.fingerprint
        self.module.to(device=device, dtype=dtype)

    def describe(self) -> dict[str, Any]:
        """What a store and an adapter record of the model, JSON-able."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "n_layers": self.units.n_layers,
            "n_heads": self.n_heads,
            "width": self.width,
            "dim": self.dim,
            "preprocessing": self.preprocess.describe(),
        }

    def pixels(self, images: Images) -> Float[Tensor, "image 3 height width"]:
        """Images (PIL, paths, or already pixels) as the tower takes them, on its device and in its dtype."""
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3:
                raise BadInputError(f"images as a tensor are (image, 3, height, width); got {tuple(images.shape)}")
            return images.to(device=self.device, dtype=self.dtype)
        if isinstance(images, Image.Image | str | os.PathLike):
            raise BadInputError(
                "images is a list of PIL images or paths, or a tensor; got a single one (wrap it in a list)"
            )
        if not len(images):
            raise BadInputError("images is empty; expected at least one image")
        opened = (to_rgb(image) if isinstance(image, Image.Image) else read_image(image) for image in images)
        return torch.stack([self.preprocess(image) for image in opened]).to(device=self.device, dtype=self.dtype)

    def encode_pixels(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image dim"]:
        """The plain forward pass of one batch, without gradients; not normalised."""
        with torch.no_grad():
            return self.tower.forward(pixels)

    def encode_image(self, images: Images, batch_size: int = 32) -> Float[Tensor, "image dim"]:
        """Image embeddings, not normalised, `batch_size` images at a time."""
        starts = range(0, max(len(images), 1), batch_size)
        return torch.cat([self.encode_pixels(self.pixels(images[start : start + batch_size])) for start in starts])

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Text embeddings, not normalised; `BadInputError` for a model without a text tower."""
        if self.text is None:
            raise BadInputError(
                f"model {self.name!r} has no text tower; class vectors come from images (classifier 'means')"
            )
        return self.text.encode(texts)

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """The texts the tokenizer does not know; none for a model without a text tower."""
        return [] if self.text is None else self.text.unknown(texts)

    def __repr__(self) -> str:
        # the end of a long path tells more than its beginning
        name = self.name if len(self.name) <= _LONGEST_NAME else f"...{self.name[-_LONGEST_NAME:]}"
        dtype = str(self.dtype).removeprefix("torch.")
        return one_line(f"VisionModel({name!r}, {self.units}, dim={self.dim}, {dtype}, text={self.has_text})")
