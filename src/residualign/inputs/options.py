"""How inputs are given: the fields that the requests of commands share, here without their flags.

Nothing here imports torch, because requests do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["ClassifierName", "DTypeName", "InputOptions", "LoadingOptions", "PromptOptions", "WordOptions"]

DTypeName = Literal["float64", "float32", "float16", "bfloat16"]
ClassifierName = Literal["text", "means"]


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """Where the encoder runs, and how images reach it. quick: use a small sample of them."""

    device: str = "cpu"
    dtype: DTypeName = "float32"
    batch_size: int = 32
    workers: int = 2
    stream: bool = False
    skip_bad: bool = False
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class InputOptions(LoadingOptions):
    """MODEL and DATA, or a STORE; where to keep the store of a model and data; the new location of a store's model."""

    source: str
    data: str | None = None
    store: str | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """The words of class vectors: a file of class names; templates, or one file of them."""

    classes: Path | None = None
    template: tuple[str, ...] = ()

    @property
    def templates(self) -> str | tuple[str, ...] | None:
        """The templates as `load_data` and `read_prompts` take them: a single one may be a file."""
        return self.template[0] if len(self.template) == 1 else self.template or None


@dataclass(frozen=True, kw_only=True)
class WordOptions(PromptOptions):
    """What class vectors are made of: text or class means, and the words. None: text if the model has a text tower."""

    classifier: ClassifierName | None = None
