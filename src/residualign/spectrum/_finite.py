"""Finding the unit in which a batch stops being made of numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates
from residualign.units import Unit

__all__ = ["first_not_finite"]


def first_not_finite(coordinates: Coordinates) -> str | None:
    """Where a batch first holds NaN or infinity: a unit label, a statistic or the output; None where all is finite.

    Cost: one reading of the batch.
    """
    tensors = coordinates.tensors()
    for name in ("inverse_std", "mean_over_std"):
        if name in tensors and not _finite(tensors[name]):
            return f"the final LayerNorm ({name})"
    for name, label in (("embedding", "embedding"), ("pool_mlp", Unit("mlp").label)):
        if name in tensors and not _finite(tensors[name]):
            return label
    if not _finite(coordinates.mlps):
        layer = int((~torch.isfinite(coordinates.mlps).all(dim=2).all(dim=0)).nonzero()[0, 0])
        return Unit("mlp", layer).label
    if not _finite(coordinates.heads):
        layer, head = (~torch.isfinite(coordinates.heads).all(dim=3).all(dim=0)).nonzero()[0].tolist()
        return Unit("head", layer, head).label
    return None if _finite(coordinates.output) else "the model's output"


def _finite(tensor: Tensor) -> bool:
    # NaN and infinity survive a sum, which costs a fifth of `isfinite`; a sum that merely overflows is looked at again.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
