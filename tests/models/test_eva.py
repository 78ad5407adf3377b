"""timm's Eva: EVA, EVA-02 and DINOv3 with a pooled class token, exact, and DINOv3 the same as transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from tests import random_models
from tests.reference import eva_twin, residual_twin
from transformers import DINOv3ViTConfig, DINOv3ViTModel

import residualign as ra
from residualign.decomposition.trace import Trace, trace_coordinates
from residualign.models import timm_vit, vit
from residualign.models.tower import fingerprint
from residualign.models.vision_model import VisionModel

N = 3
DINOV3 = {
    "architecture": "vit_small_patch16_dinov3_qkvb",
    "global_pool": "token",
    "num_reg_tokens": 3,
    "embed_dim": random_models.N_HEADS * 8,
}
SAVERS: dict[str, Callable[[Path], Path]] = {
    "eva02": lambda path: random_models.save_timm_eva(path, ref_feat_shape=(3, 5)),
    "eva": lambda path: random_models.save_timm_eva(path, architecture="eva_giant_patch14_clip_224"),
    "gated-in-one-matrix": lambda path: random_models.save_timm_eva(path, scale_mlp=False, init_values=0.1),
    "one-matrix-layer-scale-registers": lambda path: random_models.save_timm_eva(
        path, qkv_fused=True, init_values=0.1, num_reg_tokens=3, no_embed_class=True, use_pre_transformer_norm=True
    ),
    "norm-after-pool": lambda path: random_models.save_timm_eva(
        path, use_fc_norm=True, use_post_transformer_norm=False
    ),
    "dinov3": lambda path: random_models.save_timm(path, **DINOV3),
    "dinov3-no-bias-swiglu": lambda path: random_models.save_timm(
        path, **{**DINOV3, "qkv_bias": False, "swiglu_mlp": True, "swiglu_align_to": 8}
    ),
}


@pytest.fixture(scope="module", params=SAVERS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"timm:local-dir:{SAVERS[request.param](tmp_path_factory.mktemp('models') / request.param)}"


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)]
)
def test_units_sum_to_the_plain_forward(name: str, dtype: str, tolerance: float, rule: str) -> None:
    model = ra.load_model(name, dtype=dtype)
    assert model.residual_error < tolerance
    for n in (1, N):
        pixels = model.tower.probe(n, seed=3)
        c = ra.decompose(model, pixels, rule=rule)
        assert c.values.shape == (n, 1 + 3 + 3 * 5, 40)
        assert torch.equal(model.encode_pixels(pixels).to(c.output.dtype), c.output)
        assert (c.values.sum(dim=1) - c.output).abs().max() / c.output.abs().max() < tolerance


@pytest.mark.parametrize("rule", ["shared", "own"])
def test_every_unit_equals_the_plain_twin(name: str, rule: str) -> None:
    model = ra.load_model(name, dtype="float64")
    pixels = model.tower.probe(N, seed=5)
    c = ra.decompose(model, pixels, rule=rule)
    with torch.no_grad():
        expected = eva_twin.contributions(model.module, pixels, rule)
    assert {unit.label for unit in c.units} == set(expected)
    for unit in c.units:
        torch.testing.assert_close(c[unit], expected[unit.label], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(39, 39), (52, 13), (13, 65)])
@pytest.mark.parametrize("changes", [{}, {"use_rot_pos_emb": False, "qkv_fused": True}, DINOV3])
def test_one_image_of_another_size_adds_up(tmp_path: Path, changes: dict[str, Any], size: tuple[int, int]) -> None:
    saved = random_models.save_timm_eva(tmp_path / "model", **{**changes, "dynamic_img_size": True})
    model = ra.load_model(f"timm:local-dir:{saved}", dtype="float64")
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    c = ra.decompose(model, pixels)
    assert (c.values.sum(dim=1) - model.encode_pixels(pixels)).abs().max() / c.output.abs().max() < 1e-10


@pytest.mark.parametrize("rule", ["shared", "own"])
def test_dinov3_is_that_of_the_same_weights_in_transformers(tmp_path: Path, rule: str) -> None:
    model = ra.load_model(f"timm:local-dir:{random_models.save_timm(tmp_path / 'model', **DINOV3)}", dtype="float64")
    other = _as_transformers(model.module)
    pixels = model.tower.probe(N, seed=5)
    c = ra.decompose(model, pixels, rule=rule)
    with torch.no_grad():
        expected = residual_twin.contributions(other, pixels, rule)
    for unit in c.units:
        # rotary frequencies in float32, rounded by each library in its own way
        torch.testing.assert_close(c[unit], expected[unit.label], rtol=1e-5, atol=1e-6)


def test_dinov3_has_one_fingerprint_in_both_libraries(tmp_path: Path) -> None:
    model = ra.load_model(f"timm:local-dir:{random_models.save_timm(tmp_path / 'model', **DINOV3)}")
    assert fingerprint(vit.dino_tower(_as_transformers(model.module), 26)) == model.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"rope_temperature": 50.0}, {"rope_rotate_half": False}, {"rope_type": "cat"}, {"rope_grid_indexing": "xy"}],
)
def test_settings_of_rotary_positions_are_in_the_fingerprint(tmp_path: Path, change: dict[str, Any]) -> None:
    first = ra.load_model(f"timm:local-dir:{random_models.save_timm(tmp_path / 'first', **DINOV3)}")
    second = ra.load_model(f"timm:local-dir:{random_models.save_timm(tmp_path / 'second', **{**DINOV3, **change})}")
    assert all(torch.equal(value, second.tower.tensors[key]) for key, value in first.tower.tensors.items())
    assert first.fingerprint != second.fingerprint


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


def test_one_matrix_or_three_have_one_fingerprint(tmp_path: Path) -> None:
    """Of queries, keys and values, and of a gated MLP's gate and input: no family's names."""
    model = timm.create_model("eva02_base_patch16_clip_224", num_classes=0, **_sizes(scale_mlp=False)).eval()
    other = timm.create_model(
        "eva02_base_patch16_clip_224",
        num_classes=0,
        **_sizes(scale_mlp=False, qkv_fused=True, swiglu_align_to=2),
    ).eval()
    random_models.perturb(model)
    weights = model.state_dict()
    for i in range(random_models.N_LAYERS):
        at = f"blocks.{i}.attn."
        parts = [weights.pop(f"{at}{part}_proj.weight") for part in "qkv"]
        weights[f"{at}qkv.weight"] = torch.cat(parts)
        weights[f"{at}q_bias"] = weights.pop(f"{at}q_proj.bias")
        weights[f"{at}v_bias"] = weights.pop(f"{at}v_proj.bias")
        for kind in ("weight", "bias"):
            gate, inward = weights.pop(f"blocks.{i}.mlp.fc1.{kind}").chunk(2)
            weights[f"blocks.{i}.mlp.fc1_g.{kind}"], weights[f"blocks.{i}.mlp.fc1_x.{kind}"] = gate, inward
    other.load_state_dict(weights)
    pixels = torch.randn(2, 3, 26, 26)
    torch.testing.assert_close(model(pixels), other(pixels), rtol=1e-4, atol=1e-5)
    assert fingerprint(timm_vit.tower(model, "x")) == fingerprint(timm_vit.tower(other, "y"))


def test_the_model_is_as_it_was_after_an_error(name: str) -> None:
    model = ra.load_model(name)
    pixels = model.tower.probe(N)
    before = model.encode_pixels(pixels)
    with pytest.raises(ZeroDivisionError), Trace(model.tower):  # noqa: PT012
        hooks = _n_hooks(model)
        raise ZeroDivisionError
    assert hooks == 2 * 3 + 1
    assert _n_hooks(model) == 0
    trace_coordinates(model.tower, pixels)
    assert torch.equal(before, model.encode_pixels(pixels))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"global_pool": "max"}, "pooling 'max'"),
        ({"global_pool": "avgmax"}, "pooling 'avgmax'"),
        ({"use_post_norm": True}, r"norms after its attention and MLP \(post-norm blocks\)"),
        ({"use_fc_norm": True, "use_post_transformer_norm": True}, "no final LayerNorm, or two"),
        ({"use_fc_norm": False, "use_post_transformer_norm": False}, "no final LayerNorm, or two"),
    ],
)
def test_other_towers_are_refused_by_the_part(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    saved = random_models.save_timm_eva(tmp_path / "model", **changes)
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(f"timm:local-dir:{saved}")


@pytest.mark.parametrize("architecture", ["beit_base_patch16_224", "vit_relpos_small_patch16_224", "resnet10t"])
def test_other_architectures_are_refused_by_their_name(architecture: str) -> None:
    model = timm.create_model(architecture, num_classes=0)
    with pytest.raises(ra.BadInputError, match=f"timm {type(model).__name__}; supported are VisionTransformer and Eva"):
        timm_vit.tower(model, "x")


def _sizes(**changes: Any) -> dict[str, Any]:
    sizes = {"img_size": 26, "patch_size": 13, "embed_dim": 40, "depth": 3, "num_heads": 5, "mlp_ratio": 2.0}
    return {**sizes, **changes}


def _as_transformers(model: Any) -> DINOv3ViTModel:
    config = DINOv3ViTConfig(
        hidden_size=40, num_hidden_layers=3, num_attention_heads=5, intermediate_size=80, image_size=26, patch_size=13,
        hidden_act="gelu", layer_norm_eps=model.norm.eps, num_register_tokens=3, rope_theta=model.rope.temperature,
    )  # fmt: skip
    other = DINOv3ViTModel(config).to(model.norm.weight.dtype).eval()
    with torch.no_grad():
        other.embeddings.cls_token.copy_(model.cls_token)
        other.embeddings.register_tokens.copy_(model.reg_token)
        pairs = [(other.embeddings.patch_embeddings, model.patch_embed.proj), (other.norm, model.norm)]
        for layer, block in zip(other.model.layer, model.blocks, strict=True):
            attention = layer.attention
            for k, part in enumerate((attention.q_proj, attention.k_proj, attention.v_proj)):
                part.weight.copy_(block.attn.qkv.weight[k * 40 : (k + 1) * 40])
            attention.q_proj.bias.copy_(block.attn.q_bias)
            attention.v_proj.bias.copy_(block.attn.v_bias)
            layer.layer_scale1.lambda1.copy_(block.gamma_1)
            layer.layer_scale2.lambda1.copy_(block.gamma_2)
            pairs += [
                (attention.o_proj, block.attn.proj),
                (layer.norm1, block.norm1),
                (layer.norm2, block.norm2),
                (layer.mlp.up_proj, block.mlp.fc1),
                (layer.mlp.down_proj, block.mlp.fc2),
            ]
        for ours, theirs in pairs:
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)
    return other


def _n_hooks(model: VisionModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())
