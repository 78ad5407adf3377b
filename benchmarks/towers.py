"""Random towers and coordinates of realistic sizes; random weights take as long as trained ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.models.tower import Tower

__all__ = ["TOWERS", "clip_vision_model", "forward_flops", "random_coordinates", "random_maps", "tower", "vit_b32"]

TOWERS = ("vit-b32", "vit-b16", "vit-l14", "open_clip-b16", "timm-mean-b16", "siglip-b16", "coca-b32")
"""Random towers of these sizes; those named after CLIP's sizes are transformers'."""

# Variance of a head's k-th coordinate ~ k ** -_DECAY: a head then has 0.9 of its variance in about 29 components, as
# the average head of a real DeiT-tiny on ImageNet photographs.
_DECAY = 1.15


def clip_vision_model(
    *, width: int = 768, layers: int = 12, heads: int = 12, dim: int = 512, image_size: int = 224, patch: int = 32
) -> torch.nn.Module:
    """A random transformers CLIP vision tower with its projection; the defaults are ViT-B/32's."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=dim,
        image_size=image_size,
        patch_size=patch,
    )
    model: torch.nn.Module = CLIPVisionModelWithProjection(config)
    return model.eval().requires_grad_(False)


def vit_b32(layers: int = 12, image_size: int = 224, library: str = "transformers") -> Tower:
    """A random ViT-B/32 as the package sees it; library: transformers or open_clip."""
    if library == "open_clip":
        return _open_clip(layers, image_size, patch=32)
    from residualign.models import clip

    return clip.tower(clip_vision_model(layers=layers, image_size=image_size))


def _open_clip(layers: int, image_size: int, patch: int, **options: Any) -> Tower:
    import open_clip

    from residualign.models import openclip

    torch.manual_seed(0)
    vision = {
        "layers": layers,
        "width": 768,
        "head_width": 64,
        "patch_size": patch,
        "image_size": image_size,
        **options,
    }
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    model = open_clip.CLIP(512, vision | options, text)
    return openclip.tower(model.eval().requires_grad_(False), f"random ViT-B/{patch}")


def tower(name: str, layers: int | None = None, image_size: int = 224) -> Tower:
    """One of `TOWERS`, with the number of layers of its size unless `layers` is given."""
    family, _, size = name.rpartition("-")
    large = size.startswith("l")
    width, heads, depth = (1024, 16, 24) if large else (768, 12, 12)
    depth, patch = layers or depth, int(size[1:])
    if family == "vit":
        from residualign.models import clip

        dim = 768 if large else 512
        model = clip_vision_model(width=width, layers=depth, heads=heads, dim=dim, image_size=image_size, patch=patch)
        return clip.tower(model)
    if family == "open_clip":
        return _open_clip(depth, image_size, patch)
    if family == "coca":
        return _open_clip(depth, image_size, patch, attentional_pool=True, attn_pooler_heads=8)
    if family == "timm-mean":
        return _timm_mean(depth, image_size, patch)
    return _siglip(depth, image_size, patch)


def _siglip(layers: int, image_size: int, patch: int) -> Tower:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from residualign.models import siglip

    torch.manual_seed(0)
    config = SiglipVisionConfig(num_hidden_layers=layers, image_size=image_size, patch_size=patch)
    return siglip.tower(SiglipVisionModel(config).eval().requires_grad_(False), "random SigLIP")


def _timm_mean(layers: int, image_size: int, patch: int) -> Tower:
    import timm

    from residualign.models import timm_vit

    torch.manual_seed(0)
    model = timm.create_model(
        f"vit_base_patch{patch}_224", num_classes=0, depth=layers, img_size=image_size, global_pool="avg", fc_norm=False
    )
    return timm_vit.tower(model.eval().requires_grad_(False), "random ViT")


def forward_flops(tower: Tower, image_size: int, patch: int) -> float:
    """Floating-point operations of one image's forward pass: products only, 2 per multiply-add."""
    tokens = (image_size // patch) ** 2 + 1
    width, dim = tower.width, tower.dim
    block = 2 * tokens * (4 * width**2 + 8 * width**2) + 2 * 2 * tokens**2 * width
    patches = 2 * (tokens - 1) * 3 * patch**2 * width
    return float(len(tower.blocks) * block + patches + 2 * width * dim)


def random_maps(
    layers: int = 12, heads: int = 12, head_dim: int = 64, width: int = 768, dim: int = 512, seed: int = 0
) -> UnitMaps:
    """Gaussian maps of a tower of this size, in float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / dim**0.5

    group = normal(dim)
    return UnitMaps(
        heads=normal(layers, heads, head_dim + 2, dim),
        mlps=normal(layers, width + 1, dim),
        embedding=normal(2, dim),
        head_bias=group / heads,
        group_bias=group,
    )


def random_coordinates(maps: UnitMaps, n: int, seed: int = 1) -> Coordinates:
    """Gaussian coordinates of n images, in the dtype of the maps; `output` is what the units sum to.

    Every coordinate has variance, so every direction is a component; a head's variances decay as in real models.
    """
    generator = torch.Generator().manual_seed(seed)
    layers, heads, size, dim = maps.heads.shape
    spread = torch.arange(1, size - 1, dtype=torch.float32) ** (-_DECAY / 2)
    drawn = Coordinates(
        heads=spread * torch.randn(n, layers, heads, size - 2, generator=generator),
        mlps=torch.randn(n, layers, maps.mlps.shape[1] - 1, generator=generator),
        inverse_std=1 + 0.1 * torch.randn(n, generator=generator),
        mean_over_std=0.1 * torch.randn(n, generator=generator),
        output=torch.zeros(n, dim),
    ).to(dtype=maps.heads.dtype)
    return replace(drawn, output=maps.sum(drawn))
