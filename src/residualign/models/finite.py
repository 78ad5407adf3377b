"""What comes out of a model is finite, or it is refused: the one check behind every forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from residualign._messages import listed
from residualign.errors import BadInputError

__all__ = ["is_finite", "not_finite", "refuse_embeddings", "refuse_texts"]


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite. One reading of the tensor."""
    # NaN and infinity survive a sum, which costs a fifth of `isfinite`; a sum that merely overflows is looked at again
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def refuse_embeddings(output: Tensor, pixels: Tensor, names: Sequence[str] | None = None) -> None:
    """`BadInputError` with the sentence of `not_finite`, if there is one."""
    sentence = not_finite(output, pixels, names)
    if sentence is not None:
        raise BadInputError(sentence)


def not_finite(output: Tensor, pixels: Tensor, names: Sequence[str] | None = None) -> str | None:
    """Which images have an embedding that is NaN or infinite, and why; None where all are finite.

    output: (image, dim), or coordinates with images along the first axis. names: of the images of this batch, by
    default `images[0]`, `images[1]`, ...
    """
    if is_finite(output):
        return None
    bad = (~torch.isfinite(output.reshape(len(output), -1)).all(dim=1)).nonzero().flatten().tolist()
    called = [f"images[{row}]" if names is None else names[row] for row in bad]
    dtype = str(pixels.dtype).removeprefix("torch.")
    if not is_finite(pixels[bad[0]]):
        reason = f"so are the pixels given, in {dtype}"
    elif pixels.dtype == torch.float16:
        reason = 'the activations of this model overflow float16; load it with dtype="float32" or dtype="bfloat16"'
    else:
        reason = f"the activations of this model overflow {dtype}"
    which = "the embedding of 1 image is" if len(bad) == 1 else f"the embeddings of {len(bad)} images are"
    return f"{which} NaN or infinite ({listed(called)}): {reason}"


def refuse_texts(vectors: Tensor, texts: Sequence[str]) -> None:
    """`BadInputError` naming the texts whose embeddings are NaN or infinite."""
    if is_finite(vectors):
        return
    bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten().tolist()
    half = vectors.dtype == torch.float16
    hint = '; load the model with dtype="float32" or dtype="bfloat16"' if half else ""
    raise BadInputError(
        f"the embeddings of {len(bad)} of {len(texts)} texts are NaN or infinite "
        f"({listed([texts[row] for row in bad])}){hint}"
    )
