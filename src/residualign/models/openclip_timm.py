"""timm's towers as the image half of an open_clip model: SigLIP, EVA-CLIP, EVA-02-CLIP, MobileCLIP's ViTs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models import timm_families
from residualign.models.tower import Tower

__all__ = ["tower"]


def tower(model: Any, name: str) -> Tower:
    """Where the parts of `model.visual`, an open_clip `TimmModel`, are; `BadInputError` names one built otherwise."""
    visual = model.visual
    inner = timm_families.tower(visual.trunk, name)
    projection = _projection(visual, name)

    def forward(pixels: Tensor) -> Tensor:
        output: Tensor = visual(pixels)
        return output

    tensors = dict(inner.tensors)
    if projection is not None:
        tensors |= {f"projection.{part}": value for part, value in projection.named_parameters()}
    return replace(inner, module=visual, forward=forward, projection=projection, tensors=tensors, tokens=None)


def _projection(visual: Any, name: str) -> nn.Linear | None:
    """The trunk's class head, or open_clip's own layer behind a trunk without; None where the trunk's output is all."""
    steps = {part: module for part, module in visual.head.named_children() if not isinstance(module, nn.Dropout)}
    trunk_head = visual.trunk.head
    if not isinstance(trunk_head, nn.Identity):
        steps["the trunk's class head"] = trunk_head
    for part, module in steps.items():
        if not isinstance(module, nn.Linear):
            raise BadInputError(f"model {name!r} has {part!r} as its projection, which is not one linear map")
    if len(steps) > 1:
        raise BadInputError(f"model {name!r} has {len(steps)} projections one after another; supported is one")
    return next(iter(steps.values()), None)
