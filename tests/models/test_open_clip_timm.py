"""open_clip models whose image half is a tower of timm's: EVA-CLIP, EVA-02-CLIP and plain ViTs with each projection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tests import random_models
from tests.reference import eva_twin

import residualign as ra
from residualign.decomposition.trace import Trace, trace_coordinates
from residualign.models.vision_model import VisionModel

N = 3
SAVERS: dict[str, Callable[[Path], Path]] = {
    "eva02": random_models.save_open_clip_timm,
    "eva": lambda path: random_models.save_open_clip_timm(path, trunk="tiny_eva"),
    "vit": lambda path: random_models.save_open_clip_timm(path, trunk="tiny_vit"),
    "linear": lambda path: random_models.save_open_clip_timm(path, timm_proj="linear"),
    "linear-bias": lambda path: random_models.save_open_clip_timm(path, timm_proj="linear", timm_proj_bias=True),
    "vit-none": lambda path: random_models.save_open_clip_timm(path, trunk="tiny_vit", timm_proj="none"),
}


@pytest.fixture(scope="module", params=SAVERS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"open_clip:local-dir:{SAVERS[request.param](tmp_path_factory.mktemp('models') / request.param)}"


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
        assert c.values.shape == (n, 1 + 3 + 3 * 5, model.dim)
        assert torch.equal(model.encode_pixels(pixels).to(c.output.dtype), c.output)
        assert (c.values.sum(dim=1) - c.output).abs().max() / c.output.abs().max() < tolerance


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize("name", ["eva02", "eva", "linear", "linear-bias"], indirect=True)
def test_every_unit_equals_the_plain_twin(name: str, rule: str) -> None:
    model = ra.load_model(name, dtype="float64")
    visual = model.module.visual
    projection = visual.head.proj if len(visual.head) else visual.trunk.head
    pixels = model.tower.probe(N, seed=5)
    c = ra.decompose(model, pixels, rule=rule)
    with torch.no_grad():
        expected = eva_twin.contributions(visual.trunk, pixels, rule, projection)
    for unit in c.units:
        torch.testing.assert_close(c[unit], expected[unit.label], rtol=1e-10, atol=1e-12)


def test_image_text_and_scale_are_the_librarys_own(name: str) -> None:
    model = ra.load_model(name)
    library = open_clip.create_model(name.removeprefix("open_clip:")).eval()
    pixels = model.tower.probe(N)
    texts = ["a photo of a cat", "7"]
    with torch.no_grad():
        assert torch.equal(model.encode_pixels(pixels), library.encode_image(pixels))
        expected = library.encode_text(open_clip.get_tokenizer(name.removeprefix("open_clip:"))(texts))
    torch.testing.assert_close(model.encode_text(texts), expected, rtol=1e-5, atol=1e-6)
    assert model.logit_scale == pytest.approx(float(library.logit_scale.detach().exp()), rel=1e-6)


def test_the_weights_are_those_of_the_file(name: str) -> None:
    model = ra.load_model(name)
    held = load_file(Path(name.removeprefix("open_clip:local-dir:")) / "open_clip_model.safetensors")
    loaded = dict(model.module.named_parameters())
    assert held.keys() == loaded.keys()
    for key, parameter in loaded.items():
        assert torch.equal(parameter, held[key])


def test_every_weight_of_the_tower_is_in_the_fingerprint(name: str) -> None:
    model = ra.load_model(name)
    n_in_tower = sum(parameter.numel() for parameter in model.module.visual.parameters())
    assert sum(tensor.numel() for tensor in model.tower.tensors.values()) == n_in_tower


@pytest.mark.parametrize("name", ["eva02", "linear-bias"], indirect=True)
def test_the_projection_is_in_the_fingerprint_and_the_trunk_alone_is_another_model(name: str) -> None:
    from residualign.models import timm_vit
    from residualign.models.tower import fingerprint

    model = ra.load_model(name)
    trunk = timm_vit.tower(model.module.visual.trunk, "x")
    names = set(model.tower.tensors) - set(trunk.tensors)
    assert names == {"projection.weight", "projection.bias"}
    assert fingerprint(trunk) != model.fingerprint


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


@pytest.mark.parametrize("size", [(39, 39), (52, 13)])
@pytest.mark.parametrize("trunk", ["tiny_eva02_dynamic", "tiny_vit_dynamic"])
def test_one_image_of_another_size_adds_up(tmp_path: Path, trunk: str, size: tuple[int, int]) -> None:
    saved = random_models.save_open_clip_timm(tmp_path / "model", trunk=trunk)
    model = ra.load_model(f"open_clip:local-dir:{saved}", dtype="float64")
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    c = ra.decompose(model, pixels)
    assert (c.values.sum(dim=1) - model.encode_pixels(pixels)).abs().max() / c.output.abs().max() < 1e-10


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timm_proj": "mlp"}, "'mlp' as its projection, which is not one linear map"),
        ({"trunk": "tiny_post_norm"}, "post-norm blocks"),
        ({"pool": "max"}, "pooling 'max'"),
        ({"trunk": "tiny_resnet", "pool": "avg"}, "timm ResNet; supported are VisionTransformer and Eva"),
    ],
)
def test_other_towers_are_refused_by_the_part(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    saved = random_models.save_open_clip_timm(tmp_path / "model", **settings)
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(f"open_clip:local-dir:{saved}")


def test_a_stem_of_convolutions_is_in_the_fingerprint_with_its_statistics() -> None:
    """MobileCLIP's ViT: several convolutions make the patches."""
    import timm

    from residualign.models import timm_vit
    from residualign.models.tower import fingerprint

    model = timm.create_model("vit_base_mci_224", num_classes=0, depth=1, img_size=32).eval()
    tower = timm_vit.tower(model, "x")
    floats = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert sum(tensor.numel() for tensor in tower.tensors.values()) == sum(value.numel() for value in floats)
    before = fingerprint(tower)
    statistics = [value for key, value in model.state_dict().items() if key.endswith("running_mean")]
    statistics[0][0] += 0.125
    assert fingerprint(tower) != before


def _n_hooks(model: VisionModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())
