"""Names of models: a directory, a registered short name, a hub id, or a name in open_clip or timm.

`mini` ships with the package. Files that come with a model (spectra of a reference set, a dictionary) are found here
too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml

from residualign._messages import did_you_mean
from residualign.errors import BadInputError

__all__ = [
    "DICTIONARY_NAME",
    "ModelSource",
    "RegisteredModel",
    "bundled_file",
    "registered_models",
    "resolve",
    "unknown_name",
    "without_pooling",
]

_LIBRARIES: tuple[Literal["open_clip", "timm"], ...] = ("open_clip", "timm")

DICTIONARY_NAME = "dictionary.txt"
"""File in a model directory with descriptions its text tower was trained on, if it has one; `mini` has."""

_PACKAGE = Path(str(files("residualign.models")))


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    name: as typed; for a registered model, its source. kind: what loads it. place: the directory or hub id, or what
    follows the library's prefix. revision: of a hub model, as typed.
    """

    name: str
    kind: Literal["directory", "hub", "open_clip", "timm"]
    place: str
    revision: str | None = None


def resolve(name: str) -> ModelSource:
    """Tell which kind of name this is, without reading or downloading anything.

    `BadInputError` for a path that is not a model directory, and for a name without an organization that is not
    registered; it lists the names that are.
    """
    if name == "mini":
        # whatever the current directory holds: the demo and a saved adapter must find the same model everywhere
        return ModelSource(name, "directory", str(_PACKAGE / "mini"))
    registered = registered_models().get(name)
    if Path(name).is_dir():
        if (Path(name) / "open_clip_config.json").is_file() and not (Path(name) / "config.json").is_file():
            raise BadInputError(f"model directory {name!r} is in open_clip's format: give open_clip:local-dir:{name}")
        if not (Path(name) / "config.json").is_file():
            hidden = "" if registered is None else f"; it hides the registered model {name!r}"
            raise BadInputError(
                f"model directory {name!r} has no config.json; expected a model in transformers format{hidden}"
            )
        return ModelSource(name, "directory", name)
    if registered is not None:
        return resolve(registered.source)
    for library in _LIBRARIES:
        if name.startswith(f"{library}:"):
            return ModelSource(name, library, name.removeprefix(f"{library}:"))
    if Path(name).exists():
        raise BadInputError(f"model {name!r} is a file; expected a directory in transformers format")
    return _on_the_hub(name)


def without_pooling(name: str) -> tuple[str, bool]:
    """The name without `#mean`, and whether it had it; an existing path keeps its name."""
    plain, mark, pooling = name.rpartition("#")
    if not mark or Path(name).exists():
        return name, False
    if pooling != "mean":
        raise BadInputError(
            f"model {name!r}: what follows '#' is the pooling, which can only be 'mean'; got {pooling!r}"
        )
    return plain, True


def _on_the_hub(name: str) -> ModelSource:
    hub_id, _, revision = name.removeprefix("hf:").partition("@")
    if name.startswith((".", "/", "~")) or hub_id.count("/") > 1 or not hub_id.strip("/"):
        raise BadInputError(f"model {name!r}: there is no such directory")
    if "/" not in hub_id and not name.startswith("hf:"):
        raise BadInputError(unknown_name(name))
    return ModelSource(name, "hub", hub_id, revision or None)


def bundled_file(model_name: str, file: str) -> Path | None:
    """The file of this name that comes with a model, if there is one."""
    path = (_PACKAGE / "mini" if model_name == "mini" else Path(model_name)) / file
    return path if path.is_file() else None


@dataclass(frozen=True)
class RegisteredModel:
    """What is known about a model without loading it.

    source: its name for `load_model`. pooling: what becomes the embedding. layers, heads (per layer), width, dim: sizes
    of the tower. image_size: side of preprocessed images, in pixels. parameters: of the image tower with its
    projection, without text tower and class head. text: whether it has a text tower. gated: whether its terms must be
    accepted on the hub first.
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
    paths = sorted((_PACKAGE / "registry").glob("*.yaml"))
    return {
        path.stem: RegisteredModel(name=path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths
    }


def unknown_name(name: str) -> str:
    """The error message for an unknown name: similar names, and all registered ones.

    >>> print(unknown_name("clip_b").partition(":")[0])
    no model 'clip_b' (did you mean clip-b, clip-l or openclip-b?)
    """
    names = tuple(registered_models())
    return (
        f"no model {name!r}{did_you_mean(name, names)}: expected a registered name ({', '.join(names)}), a directory "
        "in transformers format, a hub id (org/name), open_clip:NAME/tag or timm:NAME"
    )
