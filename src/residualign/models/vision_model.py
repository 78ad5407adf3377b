"""A loaded model: vision tower, preprocessing and, where it has one, text tower."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from residualign._result import one_line
from residualign.data.given import Images, SplitImages, given_images, open_picture
from residualign.errors import BadInputError, refuse_bare_text
from residualign.models.finite import is_finite, not_finite, refuse_texts
from residualign.models.proof import pixel_sample
from residualign.models.recorded import PIXELS
from residualign.models.text import TextEncoder
from residualign.models.tower import Tower, fingerprint
from residualign.units import Units

__all__ = ["ImagePreprocess", "Images", "VisionModel", "image_names"]

_LONGEST_NAME = 80


def image_names(images: Tensor | Sequence[Any], start: int, stop: int) -> list[str]:
    """What images[start:stop] are called in a sentence: a path, a key of a split, or a position in the list."""
    if isinstance(images, SplitImages):
        return list(images.split.keys[start:stop])
    paths = {} if isinstance(images, Tensor) else dict(enumerate(images[start:stop], start))
    names = []
    for row in range(start, min(stop, len(images))):
        path = paths.get(row)
        names.append(os.fspath(path) if isinstance(path, str | os.PathLike) else f"images[{row}]")
    return names


@runtime_checkable
class ImagePreprocess(Protocol):
    """One PIL image in, (3, height, width) float32 pixels out."""

    def __call__(self, image: Image.Image) -> Tensor:
        """The pixels of one image, on the CPU."""
        ...

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, as JSON values, with the backend."""
        ...


@dataclass(eq=False, repr=False)
class VisionModel:
    """A frozen encoder whose output can be decomposed, as `load_model` returns it.

    Attributes
    ----------
    name : str
        The name it was loaded by.
    source : str
        The directory or hub id behind the name.
    module : nn.Module
        The library's own model.
    tower : Tower
        Where the parts of the vision tower are.
    preprocess : ImagePreprocess
        Called with a PIL image, gives its pixels (3, height, width).
    text : TextEncoder or None
        Tokenizer and text tower.
    revision : str or None
        The commit, of a model from the hub in transformers format.
    residual_error : float
        Largest |sum of units - output| over largest |output|, on the batch of noise that was tried at load.
    """

    name: str
    source: str
    module: nn.Module
    tower: Tower
    preprocess: ImagePreprocess
    text: TextEncoder | None = None
    revision: str | None = None
    residual_error: float = float("nan")

    @property
    def units(self) -> Units:
        """The residual units, in their fixed order."""
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
        """Floating-point type of the weights."""
        return self.tower.dtype

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower, so that class vectors can come from class names."""
        return self.text is not None

    @property
    def logit_scale(self) -> float | None:
        """The trained factor that turns cosines into logits, already exponentiated; None without a text tower."""
        return None if self.text is None else self.text.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid loss (SigLIP) adds to its logits; None for other models."""
        return None if self.text is None else self.text.logit_bias

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tower's weights as the checkpoint has them; the same whichever library loads it."""
        return fingerprint(self.tower)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and convert the model, in place.

        Parameters
        ----------
        device : torch.device
            Where the model is to run.
        dtype : torch.dtype
            Floating-point type of the weights. The fingerprint stays that of the weights as they were loaded.
        """
        _ = self.fingerprint
        self.module.to(device=device, dtype=dtype)

    def describe(self) -> dict[str, Any]:
        """What stores and adapters record of the model.

        Returns
        -------
        dict
            JSON types: name, fingerprint, dtype, sizes, and the settings of the preprocessing with some
            pixels that it makes of a fixed picture.
        """
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "n_layers": self.units.n_layers,
            "n_heads": self.n_heads,
            "width": self.width,
            "dim": self.dim,
            "preprocessing": {**self.preprocess.describe(), PIXELS: self._pixel_sample},
        }

    @cached_property
    def _pixel_sample(self) -> list[float]:
        return pixel_sample(self.preprocess)

    def pixels(self, images: Images) -> Float[Tensor, "image 3 height width"]:
        """Preprocess images into what the tower takes.

        Parameters
        ----------
        images : list of PIL images, paths or (height, width, 3) uint8 arrays, or Tensor (image, 3, height, width)
            Also a generator of pictures, a single one, or a `Split`. A tensor holds pixels already.

        Returns
        -------
        Tensor of shape (image, 3, height, width)
            On the model's device and in its dtype.

        Raises
        ------
        BadInputError
            For an empty list, an image that cannot be read, a tensor of a different shape or of integers, and for
            anything that is not images.
        """
        images = given_images(images)
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3:
                raise BadInputError(
                    f"images as a tensor have the shape (image, 3, height, width); got {tuple(images.shape)}"
                )
            if not images.is_floating_point():
                kind = str(images.dtype).removeprefix("torch.")
                raise BadInputError(
                    "images as a tensor hold preprocessed pixels, in a floating-point type; "
                    f"got {kind}: give pictures as (height, width, 3) arrays, which are preprocessed"
                )
            return images.to(device=self.device, dtype=self.dtype)
        if not len(images):
            raise BadInputError("images is empty; expected at least one image")
        pixels = torch.stack([self.preprocess(open_picture(image)) for image in images])
        return pixels.to(device=self.device, dtype=self.dtype)

    def encode_pixels(
        self, pixels: Float[Tensor, "image 3 height width"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "image dim"]:
        """Run the plain forward pass of one batch, without gradients.

        Parameters
        ----------
        pixels : Tensor of shape (image, 3, height, width)
            As `pixels` returns them.
        names : list of str, optional
            What the images are called in an error message.

        Returns
        -------
        Tensor of shape (image, dim)
            Embeddings, not normalized.

        Raises
        ------
        BadInputError
            If an embedding is NaN or infinite.
        """
        with torch.no_grad():
            return self.tower.run(pixels, names)

    def encode_image(self, images: Images, batch_size: int = 32) -> Float[Tensor, "image dim"]:
        """Embed images.

        Parameters
        ----------
        images : list of PIL images, paths or (height, width, 3) uint8 arrays, or Tensor (image, 3, height, width)
            Also a generator of pictures, a single one, or a `Split`. A tensor holds preprocessed pixels.
        batch_size : int
            Number of images per forward pass.

        Returns
        -------
        Tensor of shape (image, dim)
            Embeddings, not normalized.

        Raises
        ------
        BadInputError
            For images that cannot be used, as `pixels` says; for pixels of a size that the model does not take, or
            that are NaN or infinite.

        Warns
        -----
        UserWarning
            If embeddings of finite pixels are NaN or infinite, naming their images. Whatever takes embeddings further
            refuses them.
        """
        images = given_images(images)
        parts = []
        for start in range(0, max(len(images), 1), batch_size):
            stop = start + batch_size
            pixels = self.pixels(images[start:stop])
            with torch.no_grad():
                parts.append(self.tower.embed(pixels))
            sentence = not_finite(parts[-1], pixels, image_names(images, start, stop))
            if sentence is not None:
                if not is_finite(pixels):
                    raise BadInputError(sentence)
                warnings.warn(sentence, stacklevel=2)
        return torch.cat(parts)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Embed texts.

        Parameters
        ----------
        texts : list of str
            Texts longer than the text tower's context are cut.

        Returns
        -------
        Tensor of shape (text, dim)
            Embeddings, not normalized.

        Raises
        ------
        BadInputError
            For a model without a text tower, and where an embedding is NaN or infinite.
        """
        if self.text is None:
            raise BadInputError(
                f"model {self.name!r} has no text tower; take class vectors from images (classifier 'means')"
            )
        refuse_bare_text("texts", texts)
        vectors = self.text.encode(texts)
        refuse_texts(vectors, texts)
        return vectors

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """List the texts with words that the tokenizer does not know.

        Parameters
        ----------
        texts : list of str
            For example class names.

        Returns
        -------
        list of str
            Those of `texts` with a token outside the vocabulary; none for a model without a text tower.
        """
        refuse_bare_text("texts", texts)
        return [] if self.text is None else self.text.unknown(texts)

    def __repr__(self) -> str:
        # the end of a long path tells more than its beginning
        name = self.name if len(self.name) <= _LONGEST_NAME else f"...{self.name[-_LONGEST_NAME:]}"
        dtype = str(self.dtype).removeprefix("torch.")
        return one_line(f"VisionModel({name!r}, {self.units}, dim={self.dim}, {dtype}, text={self.has_text})")
