"""Which file describes which of timm's architectures, alone or as the image half of an open_clip model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from residualign.errors import BadInputError
from residualign.models import eva, timm_vit
from residualign.models.tower import Tower

__all__ = ["tower"]

_TOWERS: dict[str, Callable[[Any, str], Tower]] = {"VisionTransformer": timm_vit.tower, "Eva": eva.tower}


def tower(model: Any, name: str) -> Tower:
    """Where the parts of a timm model are; `BadInputError` for an architecture that is not among those known."""
    kind = type(model).__name__
    if kind not in _TOWERS:
        raise BadInputError(f"model {name!r} is a timm {kind}; supported are {' and '.join(_TOWERS)}")
    return _TOWERS[kind](model, name)
