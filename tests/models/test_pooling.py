"""Towers that pool means or by attention: the sum, every unit against a forward pass by hand, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import random_models
from tests.reference import eva_twin, pooling_twin
from tests.reference.pooling_twin import Pool
from torch import Tensor

import residualign as ra
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import Trace, trace_coordinates
from residualign.models.pooling import AttentionPooling, MeanPooling
from residualign.models.vision_model import VisionModel

N = 3
Saver = Callable[[Path], Path]


def open_clip(**options: object) -> Saver:
    return lambda path: random_models.save_open_clip(path, **options)  # type: ignore[arg-type]


def timm(**options: object) -> Saver:
    return lambda path: random_models.save_timm(path, **options)  # type: ignore[arg-type]


COCA = {"dim": 22, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 3}
SAVERS: dict[str, tuple[str, Saver]] = {
    "siglip": ("", random_models.save_siglip),
    "siglip-vision": ("", lambda path: random_models.save_siglip(path, text=False)),
    "vit#mean": ("", random_models.save_vit),
    "dinov2#mean": ("", lambda path: random_models.save_dinov2(path, registers=2)),
    "dinov3#mean": ("", random_models.save_dinov3),
    "timm-mean": ("timm:local-dir:", timm(global_pool="avg", init_values=0.1, reg_tokens=2)),
    "timm-mean-no-class-token": ("timm:local-dir:", timm(global_pool="avg", class_token=False)),
    "timm-mean-norm-first": ("timm:local-dir:", timm(global_pool="avg", fc_norm=False)),
    "timm-token#mean": ("timm:local-dir:", timm(init_values=0.1)),
    "timm-map": ("timm:local-dir:", timm(global_pool="map", class_token=False)),
    "timm-map-class-token": ("timm:local-dir:", timm(global_pool="map", init_values=0.1)),
    "eva-mean": ("timm:local-dir:", lambda path: random_models.save_timm_eva(path, global_pool="avg")),
    "eva-mean-norm-first": (
        "timm:local-dir:",
        lambda path: random_models.save_timm_eva(path, global_pool="avg", use_fc_norm=False, init_values=0.1),
    ),
    "eva-map": ("timm:local-dir:", lambda path: random_models.save_timm_eva(path, global_pool="map")),
    "eva-token#mean": ("timm:local-dir:", lambda path: random_models.save_timm_eva(path, num_reg_tokens=2)),
    "open_clip-siglip": (
        "open_clip:local-dir:",
        lambda path: random_models.save_open_clip_timm(path, trunk="tiny_siglip", pool="map", timm_proj="none"),
    ),
    "open_clip-timm-mean-linear": (
        "open_clip:local-dir:",
        lambda path: random_models.save_open_clip_timm(
            path, trunk="tiny_vit", pool="avg", timm_proj="linear", timm_proj_bias=True
        ),
    ),
    "open_clip-timm-map-linear": (
        "open_clip:local-dir:",
        lambda path: random_models.save_open_clip_timm(
            path, trunk="tiny_siglip", pool="map", timm_proj="linear", timm_proj_bias=True
        ),
    ),
    "open_clip-mean": ("open_clip:local-dir:", open_clip(pool_type="avg")),
    "open_clip-mean-norm-last": ("open_clip:local-dir:", open_clip(pool_type="avg", final_ln_after_pool=True)),
    "open_clip-attentional": ("open_clip:local-dir:", open_clip(**COCA)),
    "open_clip-attentional-same-width": (
        "open_clip:local-dir:",
        open_clip(dim=35, attentional_pool=True, attn_pooler_heads=7, attn_pooler_queries=2, ls_init_value=0.1),
    ),
    "coca": ("open_clip:local-dir:", open_clip(coca=True, **COCA)),
}
BY_ATTENTION = ["siglip", "timm-map", "open_clip-attentional"]


@pytest.fixture(scope="module", params=SAVERS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    prefix, saver = SAVERS[request.param]
    saved = saver(tmp_path_factory.mktemp("models") / request.param.split("#")[0])
    return f"{prefix}{saved}" + ("#mean" if "#mean" in request.param else "")


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)]
)
def test_units_sum_to_the_plain_forward(name: str, dtype: str, tolerance: float, rule: str) -> None:
    model = ra.load_model(name, dtype=dtype)
    assert model.residual_error < tolerance
    pixels = model.tower.probe(N, seed=3)
    c = ra.decompose(model, pixels, rule=rule)
    assert c.values.shape == (N, len(model.units), model.dim)
    assert c.values.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    plain = model.encode_pixels(pixels).to(c.values.dtype)
    assert (c.values.sum(dim=1) - plain).abs().max() / plain.abs().max() < tolerance
    torch.testing.assert_close(c.sum(), c.values.sum(dim=1), rtol=1e-4, atol=1e-5)


# rotary positions are in residual_twin, for the class token
@pytest.mark.parametrize("name", [name for name in SAVERS if "dinov3" not in name], indirect=True)
@pytest.mark.parametrize("rule", ["shared", "own"])
def test_every_unit_equals_the_plain_twin(name: str, rule: str) -> None:
    model = ra.load_model(name, dtype="float64")
    pixels = model.tower.probe(N, seed=5)
    with torch.no_grad():
        expected = [_by_hand(model, image[None], rule) for image in pixels]
    c = ra.decompose(model, pixels, rule=rule)
    assert {unit.label for unit in c.units} == set(expected[0])
    for unit in c.units:
        torch.testing.assert_close(c[unit], torch.stack([one[unit.label] for one in expected]), rtol=1e-9, atol=1e-11)


def test_one_image_alone_is_what_it_is_in_a_batch(name: str) -> None:
    model = ra.load_model(name, dtype="float64")
    pixels = model.tower.probe(N)
    batch, alone = ra.decompose(model, pixels), ra.decompose(model, pixels[1:2])
    torch.testing.assert_close(alone.values, batch.values[1:2], rtol=1e-9, atol=1e-11)


def test_plain_forward_is_as_it_was_and_hooks_are_gone(name: str) -> None:
    model = ra.load_model(name)
    pixels = model.tower.probe(N)
    before = model.encode_pixels(pixels)
    torch.testing.assert_close(trace_coordinates(model.tower, pixels).output, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(before, model.encode_pixels(pixels))
    with pytest.raises(ZeroDivisionError), Trace(model.tower):
        raise ZeroDivisionError
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()) == 0


def test_every_weight_of_the_tower_is_in_the_fingerprint(name: str) -> None:
    model = ra.load_model(name)
    n_in_tower = sum(parameter.numel() for parameter in model.tower.module.parameters())
    unused = 1 if "dino" in name else 0  # the mask token
    held = sum(tensor.numel() for tensor in model.tower.tensors.values())
    assert held == n_in_tower - unused * model.width


def test_the_mean_of_patches_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    saved = random_models.save_dinov2(tmp_path / "dino", registers=3)
    token, mean = ra.load_model(saved), ra.load_model(f"{saved}#mean")
    assert token.fingerprint != mean.fingerprint
    assert mean.tower.pooling == MeanPooling(first=4, norm_first=True)
    pixels = token.tower.probe(N)
    with torch.no_grad():
        hidden = token.module(pixel_values=pixels).last_hidden_state
    assert torch.equal(mean.encode_pixels(pixels), hidden[:, 4:].mean(dim=1))


def test_siglip_in_open_clip_has_its_logit_bias(tmp_path: Path) -> None:
    saved = random_models.save_open_clip_timm(tmp_path / "model", trunk="tiny_siglip", pool="map", timm_proj="none")
    model = ra.load_model(f"open_clip:local-dir:{saved}")
    assert model.logit_bias == pytest.approx(float(model.module.logit_bias))
    tokens = model.text._tokenizer(["a cat", "two dogs"])
    with torch.no_grad():
        assert torch.equal(model.encode_text(["a cat", "two dogs"]), model.module.encode_text(tokens))


@pytest.mark.parametrize("saver", [random_models.save_clip, random_models.save_siglip])
def test_a_tower_with_a_pooling_of_its_own_keeps_it(tmp_path: Path, saver: Saver) -> None:
    with pytest.raises(ra.BadInputError, match=r"cannot take '#mean', which is for ViT and DINO"):
        ra.load_model(f"{saver(tmp_path / 'model')}#mean")


def test_a_readout_is_made_anew_when_weights_change(tmp_path: Path) -> None:
    model = ra.load_model(random_models.save_siglip(tmp_path / "model"), dtype="float64")
    pixels = model.tower.probe(N)
    first = trace_coordinates(model.tower, pixels)
    readout = model.tower.kept["readout"]
    trace_coordinates(model.tower, pixels)
    assert model.tower.kept["readout"] is readout
    model.to(torch.device("cpu"), torch.float32)
    assert trace_coordinates(model.tower, pixels.float()).heads.dtype == torch.float32
    torch.testing.assert_close(trace_coordinates(model.tower, pixels.float()).heads, first.heads.float())


@pytest.mark.parametrize("case", BY_ATTENTION)
def test_attention_pooled_units_hold_their_share_of_constants(tmp_path: Path, case: str) -> None:
    """With the shared rule heads of a layer of zeros hold equal parts, and the pooling's MLP no part."""
    prefix, saver = SAVERS[case]
    model = ra.load_model(f"{prefix}{saver(tmp_path / 'model')}", dtype="float64")
    assert isinstance(model.tower.pooling, AttentionPooling)
    assert ("pool.mlp" in model.units) == (case != "open_clip-attentional")
    with torch.no_grad():
        model.tower.blocks[1].out_proj.weight.zero_()
        model.tower.blocks[1].out_proj.bias.zero_()
    c = ra.decompose(model, model.tower.probe(N))
    for head in range(1, model.n_heads):
        torch.testing.assert_close(c[f"L1.H{head}"], c["L1.H0"])
    assert c["L1.H0"].abs().max() > 1e-3


def test_maps_of_attention_pooling_take_no_memory(tmp_path: Path) -> None:
    model = ra.load_model(random_models.save_siglip(tmp_path / "model"))
    maps = unit_maps(model.tower)
    assert maps.layout == "contributions"
    assert maps.heads.untyped_storage().nbytes() == 4 * model.dim**2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attentional_pool": "parallel", "attn_pooler_heads": 2, "dim": 22}, "attentional pooling of type 'parallel'"),
        ({"attentional_pool": True, "attn_pooler_heads": 2, "dim": 22, "pool_type": "avg"}, "pooling 'avg'"),
    ],
)
def test_open_clip_poolings_that_are_refused(tmp_path: Path, options: dict[str, object], says: str) -> None:
    saved = open_clip(**options)(tmp_path / "model")
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(f"open_clip:local-dir:{saved}")


def _by_hand(model: VisionModel, image: Tensor, rule: str) -> dict[str, Tensor]:
    """The twin's answer for one image (1, 3, height, width)."""
    module, n_heads = model.tower.module, model.n_heads
    kind = type(module).__name__
    if kind == "TimmModel":
        # open_clip's shell around a tower of timm's: a projection at most
        last = [part for part in module.head.children() if isinstance(part, torch.nn.Linear)]
        pooled = _timm_by_hand(model, module.trunk, image, rule)
        if not last:
            return pooled
        shares = {label: pooling_twin.share_of(label, len(model.tower.blocks), n_heads) for label in pooled}
        return {label: term @ last[0].weight.T + last[0].bias * shares[label] for label, term in pooled.items()}
    if hasattr(module, "patch_embed"):
        return _timm_by_hand(model, module, image, rule)
    stream = _entry(model, image)
    if kind == "SiglipVisionModel":
        layers = pooling_twin.siglip_layers(module)
        packed = module.head.attention
        q, k, v = zip(packed.in_proj_weight.chunk(3), packed.in_proj_bias.chunk(3), strict=True)
        query = (q[0] @ module.head.probe.flatten() + q[1]) / (model.width / packed.num_heads) ** 0.5
        pool = Pool(query, packed.num_heads, k, v, packed.out_proj, norm_mlp=module.head.layernorm, mlp=module.head.mlp)
        terms, x = pooling_twin.follow(stream, layers, n_heads)
        return pooling_twin.attention_pooled(terms, x, module.post_layernorm, pool, n_heads, rule)
    if kind == "VisionTransformer":
        layers = pooling_twin.open_clip_layers(module)
        for layer, block in zip(layers, module.transformer.resblocks, strict=True):
            layer.scale_attention = getattr(block.ls_1, "gamma", None)
            layer.scale_mlp = getattr(block.ls_2, "gamma", None)
        terms, x = pooling_twin.follow(stream, layers, n_heads)
        if module.attn_pool is None:
            pooled = pooling_twin.mean_pooled(
                terms, x, module.ln_post, 1, not module.final_ln_after_pool, n_heads, rule
            )
            return {label: term @ module.proj for label, term in pooled.items()}
        a = module.attn_pool.attn
        weights = (a.q_proj_weight, a.k_proj_weight, a.v_proj_weight)
        if a.in_proj_weight is not None:
            weights = a.in_proj_weight.chunk(3)
        q, k, v = zip(weights, a.in_proj_bias.chunk(3), strict=True)
        query = (q[0] @ module.attn_pool.ln_q(module.attn_pool.query)[0] + q[1]) / a.head_dim**0.5
        pool = Pool(query, a.num_heads, k, v, a.out_proj, norm_after=module.ln_post, projection=module.proj)
        return pooling_twin.attention_pooled(terms, x, module.attn_pool.ln_k, pool, n_heads, rule)
    layers = []
    if kind == "ViTModel":
        for layer in module.layers:
            a = layer.attention
            qkv = [(part.weight, part.bias) for part in (a.q_proj, a.k_proj, a.v_proj)]
            layers.append(pooling_twin.Layer(layer.layernorm_before, qkv, a.o_proj, layer.layernorm_after, layer.mlp))
        terms, x = pooling_twin.follow(stream, layers, n_heads)
        return pooling_twin.mean_pooled(terms, x, module.layernorm, 1, True, n_heads, rule)
    assert kind == "Dinov2WithRegistersModel"
    for layer in module.encoder.layer:
        a = layer.attention
        qkv = [(part.weight, part.bias) for part in (a.q_proj, a.k_proj, a.v_proj)]
        scales = (layer.layer_scale1.lambda1, layer.layer_scale2.lambda1)
        layers.append(pooling_twin.Layer(layer.norm1, qkv, a.o_proj, layer.norm2, layer.mlp, *scales))
    terms, x = pooling_twin.follow(stream, layers, n_heads)
    return pooling_twin.mean_pooled(terms, x, module.layernorm, 3, True, n_heads, rule)


def _entry(model: VisionModel, image: Tensor) -> Tensor:
    """(token, width) before the first block."""
    stream: list[Tensor] = []
    handle = model.tower.entry.register_forward_pre_hook(lambda _, args: stream.append(args[0][0].clone()))
    model.tower.forward(image)
    handle.remove()
    return stream[0]


def _timm_by_hand(model: VisionModel, trunk: Any, image: Tensor, rule: str) -> dict[str, Tensor]:
    n_heads, first = model.n_heads, trunk.num_prefix_tokens
    if type(trunk).__name__ == "Eva":
        terms, x = eva_twin.follow(trunk, image[0])
    else:
        terms, x = pooling_twin.follow(_entry(model, image), pooling_twin.timm_layers(trunk), n_heads)
    if trunk.attn_pool is None:
        norm_first = isinstance(trunk.norm, torch.nn.LayerNorm)
        norm = trunk.norm if norm_first else trunk.fc_norm
        return pooling_twin.mean_pooled(terms, x, norm, first, norm_first, n_heads, rule)
    p = trunk.attn_pool
    k, v = zip(p.kv.weight.chunk(2), p.kv.bias.chunk(2), strict=True)
    query = p.q(p.latent.flatten()) / p.head_dim**0.5
    pool = Pool(query, p.num_heads, k, v, p.proj, norm_mlp=p.norm, mlp=p.mlp)
    if type(trunk).__name__ != "Eva":
        # the query of a `VisionTransformer` does not see its class token, that of an `Eva` does
        terms, x = {label: term[first:] for label, term in terms.items()}, x[first:]
    return pooling_twin.attention_pooled(terms, x, trunk.norm, pool, n_heads, rule)
