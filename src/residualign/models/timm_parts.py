"""Parts that timm's transformers share, under family-neutral names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["activation_name", "patch_tensors"]


def activation_name(module: nn.Module) -> str:
    """transformers' name where it has one, so that a checkpoint has one fingerprint in both libraries."""
    kind = type(module).__name__
    if getattr(module, "approximate", "none") == "tanh":
        kind = "GELUTanh"
    names = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
    return names.get(kind, kind)


def patch_tensors(patch_embed: Any) -> dict[str, Tensor]:
    """What turns pixels into patches: one convolution, or a stem of several, whose batch norms hold statistics too."""
    names = {"proj": "embedding.patch", "norm": "embedding.patch_norm"}
    tensors: dict[str, Tensor] = {}
    for part, module in patch_embed.named_children():
        values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        at = names.get(part, f"embedding.patch_{part}")
        tensors |= {f"{at}.{name}": value for name, value in values.items() if value.is_floating_point()}
    return tensors
