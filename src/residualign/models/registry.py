"""Models known by a short name: one YAML file each in `registry/`, read here, so that a new one needs no code."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml

__all__ = ["RegisteredModel", "find_registered", "registered_models", "unknown_name"]

_SUFFIX = ".yaml"


@dataclass(frozen=True)
class RegisteredModel:
    """What is known of a model without loading it.

    source: its name as `load_model` takes it. pooling: what becomes the embedding. layers, heads (of one layer), width,
    dim: sizes of the tower. image_size: pixels along a side, as the preprocessing yields them. parameters: weights of
    the image tower with its projection, without text tower and class head. text: whether it has a text tower. gated:
    whether its terms must be accepted on the hub first.
    """

    name: str
    description: str
    source: str
    family: str
    pooling: Literal["class token", "attention"]
    layers: int
    heads: int
    width: int
    dim: int
    image_size: int
    parameters: int
    licence: str
    text: bool
    gated: bool

    @property
    def head_dim(self) -> int:
        """Size of one head's value."""
        return self.width // self.heads


@cache
def registered_models() -> dict[str, RegisteredModel]:
    """Every registered model by its short name, in alphabetical order.

    >>> registered_models()["clip-b"].source
    'open_clip:ViT-B-16-quickgelu/openai'
    """
    files = resources.files("residualign.models").joinpath("registry").iterdir()
    texts = {
        file.name.removesuffix(_SUFFIX): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(_SUFFIX)
    }
    return {name: RegisteredModel(name=name, **yaml.safe_load(text)) for name, text in sorted(texts.items())}


def find_registered(name: str) -> RegisteredModel | None:
    """The model registered under this short name, or None."""
    return registered_models().get(name)


def unknown_name(name: str) -> str:
    """The sentence for a name that nothing answers to: the names that look like it, and all there are.

    >>> print(unknown_name("clip_b").partition(":")[0])
    no model 'clip_b' (did you mean clip-b, clip-l or openclip-b?)
    """
    names = tuple(registered_models())
    *others, last = difflib.get_close_matches(name.lower(), names) or [""]
    alternatives = f"{', '.join(others)} or {last}" if others else last
    meant = f" (did you mean {alternatives}?)" if last else ""
    return (
        f"no model {name!r}{meant}: expected a registered name ({', '.join(names)}), a directory in transformers "
        "format, a hub id (org/name), open_clip:NAME/tag or timm:NAME"
    )
