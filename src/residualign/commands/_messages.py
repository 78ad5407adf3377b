"""Sentences about images and words that several commands say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = ["left_out_sentence", "unknown_words_sentence"]


def unknown_words_sentence(model: VisionModel, class_names: Sequence[str]) -> str | None:
    """What to say where class names hold words outside the tokenizer's vocabulary; None where all are known."""
    unknown = model.unknown_words(list(class_names))
    if not unknown:
        return None
    shown = ", ".join(repr(name) for name in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    return (
        f"the text tower of {model.name!r} does not know {len(unknown)} of {len(class_names)} class names ({shown}); "
        "consider --classifier means"
    )


def left_out_sentence(keys: Sequence[str]) -> str:
    """What to say of images that were skipped because they cannot be read.

    >>> left_out_sentence(["cat/1.png"])
    "1 image could not be read and was left out: 'cat/1.png'"
    """
    if len(keys) == 1:
        return f"1 image could not be read and was left out: {keys[0]!r}"
    return f"{len(keys)} images could not be read and were left out, {keys[0]!r} first"
