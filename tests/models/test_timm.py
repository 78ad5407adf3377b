"""timm's ViTs: exact, and the same checkpoint as transformers' own where both have it."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from tests import random_models
from tests.reference import residual_twin
from transformers import ViTConfig, ViTModel

import residualign as ra
from residualign.decomposition.trace import Trace, trace_coordinates
from residualign.models import vit
from residualign.models.tower import fingerprint
from residualign.models.vision_model import VisionModel

N = 3
SAVERS: dict[str, Callable[[Path], Path]] = {
    "plain": random_models.save_timm,
    "layer-scale-registers": lambda path: random_models.save_timm(
        path, init_values=0.1, reg_tokens=3, no_embed_class=True
    ),
    "norms-and-gates": lambda path: random_models.save_timm(
        path,
        pre_norm=True,
        qk_norm=True,
        scale_attn_norm=True,
        scale_mlp_norm=True,
        proj_bias=False,
        embed_norm_layer="layernorm",
    ),
    "norm-after-pool": lambda path: random_models.save_timm(path, fc_norm=True),
}


@pytest.fixture(scope="module", params=SAVERS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"timm:local-dir:{SAVERS[request.param](tmp_path_factory.mktemp('models') / request.param)}"


@pytest.fixture(scope="module")
def plain_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"timm:local-dir:{random_models.save_timm(tmp_path_factory.mktemp('models') / 'plain')}"


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)]
)
def test_units_sum_to_the_plain_forward(name: str, dtype: str, tolerance: float, rule: str) -> None:
    model = ra.load_model(name, dtype=dtype)
    assert model.residual_error < tolerance
    pixels = model.tower.probe(N, seed=3)
    c = ra.decompose(model, pixels, rule=rule)
    assert c.values.shape == (N, 1 + 3 + 3 * 5, 35)
    plain = model.encode_pixels(pixels)
    assert torch.equal(plain.to(c.output.dtype), c.output)
    assert (c.values.sum(dim=1) - c.output).abs().max() / c.output.abs().max() < tolerance


@pytest.mark.parametrize("size", [(39, 39), (52, 13), (13, 65)])
def test_one_image_of_another_size_adds_up(tmp_path: Path, size: tuple[int, int]) -> None:
    saved = random_models.save_timm(tmp_path / "model", dynamic_img_size=True)
    model = ra.load_model(f"timm:local-dir:{saved}", dtype="float64")
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    c = ra.decompose(model, pixels)
    assert (c.values.sum(dim=1) - model.encode_pixels(pixels)).abs().max() / c.output.abs().max() < 1e-10


@pytest.mark.parametrize("rule", ["shared", "own"])
def test_every_unit_is_that_of_the_same_weights_in_transformers(plain_name: str, rule: str) -> None:
    model = ra.load_model(plain_name, dtype="float64")
    other = _as_transformers(model.module)
    pixels = model.tower.probe(N, seed=5)
    c = ra.decompose(model, pixels, rule=rule)
    with torch.no_grad():
        torch.testing.assert_close(other(pixels).last_hidden_state[:, 0], c.output, rtol=1e-10, atol=1e-12)
        expected = residual_twin.contributions(other, pixels, rule)
    for unit in c.units:
        torch.testing.assert_close(c[unit], expected[unit.label], rtol=1e-10, atol=1e-12)


def test_one_checkpoint_has_one_fingerprint_in_both_libraries(plain_name: str) -> None:
    model = ra.load_model(plain_name)
    assert fingerprint(vit.tower(_as_transformers(model.module))) == model.fingerprint


def test_the_weights_are_those_of_the_file(name: str) -> None:
    model = ra.load_model(name)
    held = load_file(Path(name.removeprefix("timm:local-dir:")) / "model.safetensors")
    loaded = dict(model.module.named_parameters())
    assert held.keys() - loaded.keys() == {"head.weight", "head.bias"}
    for key, parameter in loaded.items():
        assert torch.equal(parameter, held[key])


def test_every_weight_of_the_tower_is_in_the_fingerprint(name: str) -> None:
    model = ra.load_model(name)
    n_in_tower = sum(parameter.numel() for parameter in model.module.parameters())
    assert sum(tensor.numel() for tensor in model.tower.tensors.values()) == n_in_tower


def test_the_model_is_as_it_was_after_an_error(plain_name: str) -> None:
    model = ra.load_model(plain_name)
    pixels = model.tower.probe(N)
    before = model.encode_pixels(pixels)
    with pytest.raises(ZeroDivisionError), Trace(model.tower):  # noqa: PT012
        hooks = _n_hooks(model)
        raise ZeroDivisionError
    assert hooks == 2 * 3 + 1
    assert _n_hooks(model) == 0
    trace_coordinates(model.tower, pixels)
    assert torch.equal(before, model.encode_pixels(pixels))


def test_pixels_are_the_librarys_own(plain_name: str) -> None:
    model = ra.load_model(plain_name)
    settings = timm.data.resolve_model_data_config(model.module)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8))
    assert torch.equal(model.preprocess(image), timm.data.create_transform(**settings, is_training=False)(image))
    described = model.preprocess.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["mean"] == [0.4, 0.5, 0.6]
    assert described["crop_pct"] == 0.9
    assert not model.has_text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"global_pool": "max"}, "pooling 'max'"),
        ({"global_pool": "avgmax"}, "pooling 'avgmax'"),
        ({"final_norm": False}, "no final LayerNorm"),
    ],
)
def test_other_towers_are_refused_by_the_part(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    saved = random_models.save_timm(tmp_path / "model", **changes)
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(f"timm:local-dir:{saved}")


def test_post_norm_blocks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models.vision_transformer import ResPostBlock

    from residualign.models import timm_vit

    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, init_values=1.0, block_fn=ResPostBlock)
    with pytest.raises(ra.BadInputError, match="blocks of another kind"):
        timm_vit.tower(model, "x")
    with pytest.raises(ra.BadInputError, match=r"timm Linear; supported are VisionTransformer and Eva"):
        timm_vit.tower(torch.nn.Linear(1, 1), "x")


@pytest.mark.parametrize("name", ["timm:no_such_model", "timm:local-dir:/no/such/folder", "timm:"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(ra.BadInputError, match="could not be loaded by timm") as caught:
        ra.load_model(name)
    assert "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ra.BadInputError, match=r"residualign\[timm\]"):
        ra.load_model("timm:vit_tiny_patch16_224")


def _as_transformers(model: Any) -> ViTModel:
    config = ViTConfig(
        hidden_size=35, num_hidden_layers=3, num_attention_heads=5, intermediate_size=70, image_size=26, patch_size=13,
        hidden_act="gelu", layer_norm_eps=model.norm.eps,
    )  # fmt: skip
    other = ViTModel(config, add_pooling_layer=False).to(model.norm.weight.dtype).eval()
    with torch.no_grad():
        other.embeddings.cls_token.copy_(model.cls_token)
        other.embeddings.position_embeddings.copy_(model.pos_embed)
        pairs = [(other.embeddings.patch_embeddings.projection, model.patch_embed.proj), (other.layernorm, model.norm)]
        for layer, block in zip(other.layers, model.blocks, strict=True):
            for k, part in enumerate((layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)):
                part.weight.copy_(block.attn.qkv.weight[k * 35 : (k + 1) * 35])
                part.bias.copy_(block.attn.qkv.bias[k * 35 : (k + 1) * 35])
            pairs += [
                (layer.attention.o_proj, block.attn.proj),
                (layer.layernorm_before, block.norm1),
                (layer.layernorm_after, block.norm2),
                (layer.mlp.fc1, block.mlp.fc1),
                (layer.mlp.fc2, block.mlp.fc2),
            ]
        for ours, theirs in pairs:
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)
    return other


def _n_hooks(model: VisionModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())


@pytest.mark.parametrize("error", [MemoryError("no more"), OSError(errno.ENOSPC, "No space left on device")])
def test_what_the_machine_lacks_is_not_blamed_on_the_model(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def create_model(*args: object, **options: object) -> None:
        # libraries wrap what went wrong below them
        raise RuntimeError("download failed") from error

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(type(error)) as caught:
        ra.load_model("timm:vit_tiny_patch16_224")
    assert caught.value is error
