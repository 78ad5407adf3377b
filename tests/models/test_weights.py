"""Neutral names of weights: what stores and adapters know a checkpoint by, so they are written out here once more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests import random_models
from tests.models.test_eva import DINOV3
from torch import nn

import residualign as ra
from residualign.models.weights import neutral_tensors

BLOCK = {
    f"block.*.{part}" for part in ("norm_attention", "query", "key", "value", "out", "norm_mlp", "mlp.in", "mlp.out")
}
SCALES = {"block.*.scale_attention", "block.*.scale_mlp"}
VIT = BLOCK | {"embedding.class", "embedding.patch", "embedding.position", "norm_final"}
POOL = {"pool.probe", *(f"pool.{part}" for part in ("query", "key", "value", "out", "norm", "mlp.in", "mlp.out"))}

open_clip, timm = "open_clip:local-dir:", "timm:local-dir:"
# architecture: its names, and the libraries that have it
ARCHITECTURES: dict[str, tuple[set[str], list[tuple[str, Callable[[Path], Path]]]]] = {
    "ViT": (VIT, [("", random_models.save_vit), (timm, random_models.save_timm)]),
    "CLIP": (
        VIT | {"norm_pre", "projection"},
        [("", random_models.save_clip), ("", random_models.save_chinese_clip), ("", random_models.save_altclip),
         (open_clip, random_models.save_open_clip)],
    ),
    "BLIP": (VIT | {"projection"}, [("", random_models.save_blip)]),
    "DINOv2 with registers": (
        VIT | SCALES | {"embedding.registers"},
        [("", lambda path: random_models.save_dinov2(path, registers=2)),
         (timm, lambda path: random_models.save_timm(path, init_values=0.1, reg_tokens=2))],
    ),
    "DINOv3": (
        VIT - {"embedding.position"} | SCALES | {"embedding.registers"},
        [("", lambda path: random_models.save_dinov3(path, use_gated_mlp=False)),
         (timm, lambda path: random_models.save_timm(path, **DINOV3))],
    ),
    "SigLIP": (
        VIT - {"embedding.class"} | POOL,
        [("", random_models.save_siglip),
         (timm, lambda path: random_models.save_timm(path, global_pool="map", class_token=False)),
         (open_clip, lambda path: random_models.save_open_clip_timm(
             path, trunk="tiny_siglip", pool="map", timm_proj="none"))],
    ),
    "EVA-02": (
        VIT | {"block.*.attention.norm", "block.*.mlp.gate", "block.*.mlp.norm"},
        [(timm, random_models.save_timm_eva)],
    ),
    "CoCa": (
        VIT | {"norm_pre", "projection", "pool.query", "pool.attn.in_proj_weight", "pool.attn.in_proj_bias",
               "pool.attn.out_proj", "pool.ln_k", "pool.ln_q"},
        [(open_clip, lambda path: random_models.save_open_clip(
            path, dim=35, attentional_pool=True, attn_pooler_heads=7))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_has_the_same_names_in_every_library(architecture: str, tmp_path: Path) -> None:
    expected, libraries = ARCHITECTURES[architecture]
    for i, (prefix, save) in enumerate(libraries):
        tensors = ra.load_model(f"{prefix}{save(tmp_path / str(i))}").tower.tensors
        stems = {
            re.sub(r"^block\.\d+", "block.*", name).removesuffix(".weight").removesuffix(".bias") for name in tensors
        }
        assert stems == expected, prefix


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(2, 6)
        self.mlp = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
        self.absent = None


def test_how_a_table_is_read() -> None:
    block = _Block()
    names = {"[query,key,value]": "qkv", "mlp": "mlp", "mlp.in": "nowhere|mlp.0", "none": "absent.weight", "x": "x?"}
    found = neutral_tensors(nn.Module(), {}, [block], names)
    parts = ("query", "key", "value", "mlp.in", "mlp.1", "mlp.2")
    assert set(found) == {f"block.0.{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert torch.equal(found["block.0.key.weight"], block.qkv.weight[2:4])
    assert found["block.0.mlp.in.weight"] is block.mlp[0].weight


def test_a_weight_that_is_not_where_the_table_says_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"_Block has no mlp\.fc1 or fc1"):
        neutral_tensors(_Block(), {"mlp.in": "mlp.fc1|fc1"})
