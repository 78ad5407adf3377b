"""Tiny random models of every family, by the name they are loaded under."""

from __future__ import annotations

from tests import random_models as make


def _coca(path):
    sizes = {"dim": 22, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 3}
    return make.save_open_clip(path, coca=True, **sizes)


FAMILIES = {
    "clip": ("", make.save_clip),
    "chinese-clip": ("", make.save_chinese_clip),
    "altclip": ("", make.save_altclip),
    "blip": ("", make.save_blip),
    "vit": ("", make.save_vit),
    "vit#mean": ("", make.save_vit),
    "dinov2 with registers": ("", lambda path: make.save_dinov2(path, registers=3)),
    "dinov2 with registers#mean": ("", lambda path: make.save_dinov2(path, registers=3)),
    "dinov3": ("", make.save_dinov3),
    "siglip": ("", make.save_siglip),
    "open_clip": ("open_clip:local-dir:", make.save_open_clip),
    "open_clip with layer scale": ("open_clip:local-dir:", lambda path: make.save_open_clip(path, ls_init_value=0.1)),
    "open_clip's own attention": (
        "open_clip:local-dir:",
        lambda path: make.save_open_clip(
            path, block_type="custom", qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_fc=True
        ),
    ),
    "open_clip, norm then mean": ("open_clip:local-dir:", lambda path: make.save_open_clip(path, pool_type="avg")),
    "open_clip, mean then norm": (
        "open_clip:local-dir:",
        lambda path: make.save_open_clip(path, pool_type="avg", final_ln_after_pool=True),
    ),
    "coca": ("open_clip:local-dir:", _coca),
    "eva-clip": ("open_clip:local-dir:", make.save_open_clip_timm),
    "timm": ("timm:local-dir:", make.save_timm),
    "timm, mean then norm": ("timm:local-dir:", lambda path: make.save_timm(path, global_pool="avg")),
    "timm siglip": (
        "timm:local-dir:",
        lambda path: make.save_timm(path, architecture="vit_base_patch16_siglip_224"),
    ),
    "timm eva, sub-norm": ("timm:local-dir:", lambda path: make.save_timm_eva(path, scale_attn_inner=True)),
    "timm eva, sub-norm, mean": (
        "timm:local-dir:",
        lambda path: make.save_timm_eva(path, scale_attn_inner=True, global_pool="avg"),
    ),
}
"""Prefix of the name, and what saves one."""


def saved(name, folder):
    """Saves a family's model below a folder; returns the name to load it under."""
    prefix, save = FAMILIES[name]
    path = folder / "model"
    save(path)
    return f"{prefix}{path}" + ("#mean" if "#mean" in name else "")
