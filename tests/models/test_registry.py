"""The registry says of every model what its library builds from its published sizes, on a device without storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from tests import random_models
from torch import nn
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

import residualign as ra
from residualign.models import clip, openclip, vit
from residualign.models.names import registered_models, resolve, unknown_name
from residualign.models.tower import Tower


@dataclass(frozen=True)
class Sizes:
    """What a built model tells; image_size None where the architecture takes any."""

    layers: int
    heads: int
    width: int
    dim: int
    parameters: int
    image_size: int | None


def _of_tower(tower: Tower, image_size: int | None) -> Sizes:
    n_parameters = sum(tensor.numel() for tensor in tower.tensors.values())
    return Sizes(len(tower.blocks), tower.n_heads, tower.width, tower.dim, n_parameters, image_size)


def _n_parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _open_clip(name: str) -> Sizes:
    architecture, _, tag = resolve(name).place.partition("/")
    assert tag in open_clip.list_pretrained_tags_by_model(architecture)
    tower = openclip.tower(open_clip.CLIP(**open_clip.get_model_config(architecture)), name)
    return _of_tower(tower, tower.image_size)


# what the published config.json of each says; what it does not say is the config class's default
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}


def _vit(name: str) -> Sizes:
    tower = vit.tower(ViTModel(ViTConfig(**LARGE, intermediate_size=4096), add_pooling_layer=False))
    return _of_tower(tower, tower.image_size)


def _dinov2(name: str) -> Sizes:
    # trained at 518 pixels, which its positions are for; preprocessing yields 224
    return _of_tower(vit.dino_tower(Dinov2Model(Dinov2Config(**LARGE, image_size=518, patch_size=14)), 224), None)


def _dinov3(name: str) -> Sizes:
    config = DINOv3ViTConfig(**LARGE, intermediate_size=4096, patch_size=16, num_register_tokens=4)
    return _of_tower(vit.dino_tower(DINOv3ViTModel(config), 224), None)


def _tinyclip(name: str) -> Sizes:
    sizes = {"hidden_size": 256, "num_hidden_layers": 10, "num_attention_heads": 4, "intermediate_size": 1024}
    config = CLIPVisionConfig(**sizes, patch_size=16, image_size=224, projection_dim=512)
    tower = clip.tower(CLIPVisionModelWithProjection(config))
    return _of_tower(tower, tower.image_size)


def _blip(name: str) -> Sizes:
    config = BlipConfig(
        vision_config={**LARGE, "intermediate_size": 4096},
        text_config={"encoder_hidden_size": 1024, "num_attention_heads": 12},
        image_text_hidden_size=256,
    )
    model = BlipForImageTextRetrieval(config)
    return _of_module(model.vision_model.config, model.vision_proj.out_features, model.vision_model, model.vision_proj)


def _siglip(name: str) -> Sizes:
    large = {**LARGE, "intermediate_size": 4096, "image_size": 256}
    model = SiglipVisionModel(SiglipVisionConfig(**(large if name == "siglip2-l" else {})))
    return _of_module(model.config, model.config.hidden_size, model)


def _of_module(config: Any, dim: int, *modules: nn.Module) -> Sizes:
    return Sizes(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.hidden_size,
        dim,
        _n_parameters(*modules),
        config.image_size,
    )


BUILDERS: dict[str, Callable[[str], Sizes]] = {
    "blip-l": _blip,
    "clip-b": _open_clip,
    "clip-l": _open_clip,
    "dinov2-l": _dinov2,
    "dinov3-l": _dinov3,
    "openclip-b": _open_clip,
    "openclip-l": _open_clip,
    "siglip2-b": _siglip,
    "siglip2-l": _siglip,
    "tinyclip": _tinyclip,
    "vit-l": _vit,
}

# the same towers by another library's own tables: (architecture, options, weights that ours does not have)
IN_TIMM: dict[str, tuple[str, dict[str, Any], int]] = {
    "clip-b": ("vit_base_patch16_clip_quickgelu_224", {"num_classes": 512}, 512),
    "clip-l": ("vit_large_patch14_clip_quickgelu_224", {"num_classes": 768}, 768),
    "dinov2-l": ("vit_large_patch14_dinov2", {"num_classes": 0}, 0),
    "dinov3-l": ("vit_large_patch16_dinov3_qkvb", {"num_classes": 0}, 0),
    "openclip-b": ("vit_base_patch16_clip_224", {"num_classes": 512}, 512),
    "openclip-l": ("vit_large_patch14_clip_224", {"num_classes": 768}, 768),
    "siglip2-b": ("vit_base_patch16_siglip_224", {"num_classes": 0}, 0),
    "siglip2-l": ("vit_large_patch16_siglip_256", {"num_classes": 0}, 0),
    "tinyclip": ("vit_xsmall_patch16_clip_224", {"num_classes": 512}, 512),
    "vit-l": ("vit_large_patch16_224", {"num_classes": 0}, 0),
}


def test_every_entry_but_mini_is_built_here() -> None:
    assert set(registered_models()) == {*BUILDERS, "mini"}


@pytest.mark.parametrize("name", BUILDERS)
def test_sizes_are_those_of_the_published_architecture(name: str) -> None:
    entry = registered_models()[name]
    with torch.device("meta"):
        built = BUILDERS[name](name)
    told = Sizes(
        entry.layers,
        entry.heads,
        entry.width,
        entry.dim,
        entry.parameters,
        None if built.image_size is None else entry.image_size,
    )
    assert told == built


@pytest.mark.parametrize("name", IN_TIMM)
def test_sizes_are_those_of_timms_own_tables(name: str) -> None:
    entry = registered_models()[name]
    architecture, options, more = IN_TIMM[name]
    with torch.device("meta"):
        model = timm.create_model(architecture, **options)
    assert _n_parameters(model) - more == entry.parameters
    assert (len(model.blocks), model.blocks[0].attn.num_heads) == (entry.layers, entry.heads)
    assert model.embed_dim == entry.width
    assert (entry.pooling == "attention") == (model.global_pool == "map")
    if name not in ("dinov2-l", "dinov3-l"):
        assert model.default_cfg["input_size"][-1] == entry.image_size


def test_mini_is_what_it_says() -> None:
    entry, model = registered_models()["mini"], ra.load_model("mini")
    assert _of_tower(model.tower, model.tower.image_size) == Sizes(
        entry.layers, entry.heads, entry.width, entry.dim, entry.parameters, entry.image_size
    )
    assert model.has_text == entry.text


@pytest.mark.parametrize("name", registered_models())
def test_every_source_is_a_name_that_load_model_takes(name: str) -> None:
    entry = registered_models()[name]
    expected = "directory" if name == "mini" else entry.source.partition(":")[0] if ":" in entry.source else "hub"
    assert resolve(entry.source).kind == resolve(name).kind == expected
    assert resolve(name).name == entry.source


def test_a_directory_wins_over_a_registered_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_models.save_vit(tmp_path / "vit-l")
    monkeypatch.chdir(tmp_path)
    model = ra.load_model("vit-l")
    assert (model.name, model.source, model.width) == ("vit-l", "vit-l", 35)
    assert resolve("hf:google/vit-large-patch16-224").kind == "hub"


def test_a_directory_that_hides_a_registered_name_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip-b").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ra.BadInputError, match=r"no config\.json.*it hides the registered model 'clip-b'"):
        ra.load_model("clip-b")


@pytest.mark.parametrize(
    ("name", "meant"), [("clip_l", "clip-l"), ("DINOv2-L", "dinov2-l"), ("siglip-b", "siglip2-b"), ("xyzzy", None)]
)
def test_an_unknown_name_is_told_the_known_ones(name: str, meant: str | None) -> None:
    with pytest.raises(ra.BadInputError) as caught:
        ra.load_model(name)
    said = str(caught.value)
    assert said == unknown_name(name)
    assert all(known in said for known in registered_models())
    assert "\n" not in said
    if meant is None:
        assert "did you mean" not in said
    else:
        assert meant in said.partition("did you mean ")[2].partition("?")[0]


@pytest.mark.parametrize(
    ("name", "kind", "place", "revision"),
    [
        ("org/name", "hub", "org/name", None),
        ("hf:org/name", "hub", "org/name", None),
        ("hf:org/name@v1.2", "hub", "org/name", "v1.2"),
        ("org/name@refs/pr/3", "hub", "org/name", "refs/pr/3"),
        ("hf:gpt2", "hub", "gpt2", None),
        ("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32/openai", None),
        ("timm:hf-hub:org/name@v1", "timm", "hf-hub:org/name@v1", None),
    ],
)
def test_names_are_told_apart(name: str, kind: str, place: str, revision: str | None) -> None:
    source = resolve(name)
    assert (source.name, source.kind, source.place, source.revision) == (name, kind, place, revision)
