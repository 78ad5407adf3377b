"""The sum check of every model family, on tiny random models with all biases, gammas and scales perturbed.

    python -m studies.family_checks

Prints a Markdown table of the largest |sum of units - output| relative to the largest |output|, over both rules for the
mean, per dtype of the tower. The tests compare the same models unit by unit with forward passes written by hand.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests import random_models as tiny

import residualign as ra

__all__ = ["FAMILIES", "main"]

Saver = Callable[[Path], Path]
_COCA = {"dim": 22, "coca": True, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 3}
_DINOV3 = {"architecture": "vit_small_patch16_dinov3_qkvb", "num_reg_tokens": 3, "embed_dim": 40}
OPEN_CLIP, TIMM = "open_clip:local-dir:", "timm:local-dir:"

FAMILIES: dict[str, tuple[str, Saver, str]] = {
    "CLIP, transformers": ("", tiny.save_clip, ""),
    "CLIP vision tower, unprojected, transformers": ("", lambda p: tiny.save_clip_vision(p, projection=False), ""),
    "Chinese-CLIP, transformers": ("", tiny.save_chinese_clip, ""),
    "AltCLIP, transformers": ("", tiny.save_altclip, ""),
    "SigLIP, transformers": ("", tiny.save_siglip, ""),
    "BLIP retrieval, transformers": ("", tiny.save_blip, ""),
    "ViT, transformers": ("", tiny.save_vit, ""),
    "ViT, mean of patches, transformers": ("", tiny.save_vit, "#mean"),
    "DINOv2, transformers": ("", tiny.save_dinov2, ""),
    "DINOv2 with registers, transformers": ("", lambda p: tiny.save_dinov2(p, registers=3), ""),
    "DINOv2 with registers, mean of patches": ("", lambda p: tiny.save_dinov2(p, registers=3), "#mean"),
    "DINOv3, transformers": ("", tiny.save_dinov3, ""),
    "CLIP, open_clip": (OPEN_CLIP, tiny.save_open_clip, ""),
    "CLIP with layer scale, open_clip": (OPEN_CLIP, lambda p: tiny.save_open_clip(p, ls_init_value=0.1), ""),
    "CLIP with open_clip's own attention": (
        OPEN_CLIP,
        lambda p: tiny.save_open_clip(p, block_type="custom", qk_norm=True, scale_heads=True, scale_attn_inner=True),
        "",
    ),
    "CLIP, average pooling, open_clip": (OPEN_CLIP, lambda p: tiny.save_open_clip(p, pool_type="avg"), ""),
    "CoCa, open_clip": (OPEN_CLIP, lambda p: tiny.save_open_clip(p, **_COCA), ""),
    "SigLIP, open_clip": (
        OPEN_CLIP,
        lambda p: tiny.save_open_clip_timm(p, trunk="tiny_siglip", pool="map", timm_proj="none"),
        "",
    ),
    "EVA-02-CLIP, open_clip": (OPEN_CLIP, tiny.save_open_clip_timm, ""),
    "ViT, timm": (TIMM, tiny.save_timm, ""),
    "ViT, mean then norm, timm": (TIMM, lambda p: tiny.save_timm(p, global_pool="avg"), ""),
    "ViT, norm then mean, timm": (TIMM, lambda p: tiny.save_timm(p, global_pool="avg", fc_norm=False), ""),
    "ViT, attention pooling (SigLIP), timm": (
        TIMM,
        lambda p: tiny.save_timm(p, global_pool="map", class_token=False),
        "",
    ),
    "EVA-02, timm": (TIMM, tiny.save_timm_eva, ""),
    "DINOv3, timm": (TIMM, lambda p: tiny.save_timm(p, **_DINOV3, global_pool="avg"), ""),
}


def main() -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    print("| family | units | coordinates | float64 | float32 | float16 | bfloat16 |")
    print("|---|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for i, (family, (prefix, saver, suffix)) in enumerate(FAMILIES.items()):
            name = f"{prefix}{saver(Path(folder) / str(i))}{suffix}"
            errors = []
            for dtype in ("float64", "float32", "float16", "bfloat16"):
                model = ra.load_model(name, dtype=dtype)
                pixels = model.tower.probe(5, seed=3)
                found = [ra.decompose(model, pixels, rule=rule) for rule in ("shared", "own")]
                errors.append(f"{max(c.residual_error for c in found):.1e}")
            print(
                f"| {family} | {len(model.units)} | {found[0].maps.layout} | " + " | ".join(errors) + " |", flush=True
            )


if __name__ == "__main__":
    main()
