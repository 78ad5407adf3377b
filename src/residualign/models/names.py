"""What a model's name means: a directory, a registered short name, a hub id, or a name in another library."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from residualign.errors import BadInputError
from residualign.models.registry import find_registered, unknown_name

__all__ = ["ModelSource", "resolve", "without_pooling"]

LIBRARIES: tuple[Literal["open_clip", "timm"], ...] = ("open_clip", "timm")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    name: as a loader is told it; of a registered model its source. kind: who loads it. place: the directory or hub id,
    or what follows the library's prefix. revision: of a hub model, as it was typed.
    """

    name: str
    kind: Literal["directory", "hub", "open_clip", "timm"]
    place: str
    revision: str | None = None


def resolve(name: str) -> ModelSource:
    """What `load_model` takes, told apart; nothing is read and nothing downloaded.

    `BadInputError` for a path that is no model directory, and for a name without an organisation that is not
    registered, with the names that are.
    """
    if name == "mini":
        # whatever lies in the current directory: the demo and a saved adapter must find the same model everywhere
        return ModelSource(name, "directory", str(files("residualign") / "models" / "mini"))
    registered = find_registered(name)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            hidden = "" if registered is None else f"; it hides the registered model {name!r}"
            raise BadInputError(
                f"model directory {name!r} has no config.json; expected a model in transformers format{hidden}"
            )
        return ModelSource(name, "directory", name)
    if registered is not None:
        return resolve(registered.source)
    for library in LIBRARIES:
        if name.startswith(f"{library}:"):
            return ModelSource(name, library, name.removeprefix(f"{library}:"))
    if Path(name).exists():
        raise BadInputError(f"model {name!r} is a file; expected a directory in transformers format")
    return _on_the_hub(name)


def without_pooling(name: str) -> tuple[str, bool]:
    """The name without `#mean`, and whether it had that; an existing path keeps its own name."""
    plain, mark, pooling = name.rpartition("#")
    if not mark or Path(name).exists():
        return name, False
    if pooling != "mean":
        raise BadInputError(f"model {name!r}: after '#' comes the pooling, which is 'mean'; got {pooling!r}")
    return plain, True


def _on_the_hub(name: str) -> ModelSource:
    hub_id, _, revision = name.removeprefix("hf:").partition("@")
    if name.startswith((".", "/", "~")) or hub_id.count("/") > 1 or not hub_id.strip("/"):
        raise BadInputError(f"model {name!r}: no such directory")
    if "/" not in hub_id and not name.startswith("hf:"):
        raise BadInputError(unknown_name(name))
    return ModelSource(name, "hub", hub_id, revision or None)
