"""open_clip towers: exact, the same checkpoint as transformers' own, and the attention's forward put back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests import random_models
from tests.reference import residual_twin
from tests.reference.open_clip_twin import as_transformers
from torch import nn

import residualign as ra
from residualign.decomposition.trace import Trace, trace_coordinates
from residualign.models import openclip
from residualign.models.openclip import _wants_quick_gelu, explicit_attention
from residualign.models.tower import fingerprint
from residualign.models.vision_model import VisionModel

N = 3
SAVERS: dict[str, Callable[[Path], Path]] = {
    "plain": random_models.save_open_clip,
    "quick-gelu": lambda path: random_models.save_open_clip(path, quick_gelu=True),
    "layer-scale": lambda path: random_models.save_open_clip(path, ls_init_value=0.1),
    "norm-after-pool": lambda path: random_models.save_open_clip(path, final_ln_after_pool=True),
    "no-norm-before": lambda path: random_models.save_open_clip(path, no_ln_pre=True),
    "own-attention": lambda path: random_models.save_open_clip(
        path, block_type="custom", qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_fc=True
    ),
}


@pytest.fixture(scope="module", params=SAVERS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"open_clip:local-dir:{SAVERS[request.param](tmp_path_factory.mktemp('models') / request.param)}"


@pytest.fixture(scope="module")
def plain_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"open_clip:local-dir:{random_models.save_open_clip(tmp_path_factory.mktemp('models') / 'plain')}"


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)]
)
def test_units_sum_to_the_plain_forward(name: str, dtype: str, tolerance: float, rule: str) -> None:
    model = ra.load_model(name, dtype=dtype)
    assert model.residual_error < tolerance
    pixels = model.tower.probe(N, seed=3)
    c = ra.decompose(model, pixels, rule=rule)
    assert c.values.shape == (N, 1 + 3 + 3 * 5, 11)
    plain = model.encode_pixels(pixels).to(c.values.dtype)
    assert (c.values.sum(dim=1) - plain).abs().max() / plain.abs().max() < tolerance


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_every_unit_is_that_of_the_same_weights_in_transformers(tmp_path: Path, quick_gelu: bool, rule: str) -> None:
    saved = random_models.save_open_clip(tmp_path / "model", quick_gelu=quick_gelu)
    model = ra.load_model(f"open_clip:local-dir:{saved}", dtype="float64")
    other = as_transformers(model.module.visual, "quick_gelu" if quick_gelu else "gelu")
    pixels = model.tower.probe(N, seed=5)
    c = ra.decompose(model, pixels, rule=rule)
    with torch.no_grad():
        torch.testing.assert_close(other(pixel_values=pixels).image_embeds, c.output, rtol=1e-10, atol=1e-12)
        expected = residual_twin.contributions(other, pixels, rule)
    for unit in c.units:
        torch.testing.assert_close(c[unit], expected[unit.label], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_one_checkpoint_has_one_fingerprint_in_both_libraries(tmp_path: Path, quick_gelu: bool) -> None:
    from residualign.models import clip

    saved = random_models.save_open_clip(tmp_path / "model", quick_gelu=quick_gelu)
    model = ra.load_model(f"open_clip:local-dir:{saved}")
    activation = "quick_gelu" if quick_gelu else "gelu"
    assert fingerprint(clip.tower(as_transformers(model.module.visual, activation))) == model.fingerprint


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


def test_the_plain_forward_and_the_attention_are_as_they_were(name: str) -> None:
    model = ra.load_model(name)
    pixels = model.tower.probe(N)
    before = model.encode_pixels(pixels)
    traced = trace_coordinates(model.tower, pixels).output
    torch.testing.assert_close(traced, before, rtol=1e-5, atol=1e-6)
    assert torch.equal(before, model.encode_pixels(pixels))
    assert _exchanged(model) == 0
    with pytest.raises(ZeroDivisionError), Trace(model.tower):  # noqa: PT012
        inside = _exchanged(model)
        raise ZeroDivisionError
    assert inside == sum(isinstance(m, nn.MultiheadAttention) for m in model.module.visual.modules())
    assert _exchanged(model) == 0


def test_contexts_nest_and_put_back_what_was_there(plain_name: str) -> None:
    model = ra.load_model(plain_name, dtype="float64")
    pixels = model.tower.probe(N)
    attention = model.module.visual.transformer.resblocks[1].attn
    mine = attention.forward
    attention.forward = mine
    with torch.no_grad(), Trace(model.tower) as outer:
        with Trace(model.tower) as inner:
            output = model.tower.forward(pixels)
        assert attention.forward is not mine
        again = model.tower.forward(pixels)
    assert attention.forward is mine
    assert torch.equal(output, again)
    assert torch.equal(outer.coordinates(output).heads, inner.coordinates(output).heads)


def test_masks_and_other_keys_are_not_silently_dropped() -> None:
    attention = nn.MultiheadAttention(6, 2, batch_first=True).eval()
    x = torch.randn(2, 3, 6)
    with explicit_attention([attention]):
        torch.testing.assert_close(attention(x, x, x, need_weights=False)[0].shape, x.shape)
        for arguments in ((x, x.clone(), x), (x, x, x.clone())):
            with pytest.raises(RuntimeError, match="plain self-attention"):
                attention(*arguments, need_weights=False)
        for options in (
            {"need_weights": True},
            {"need_weights": False, "attn_mask": torch.zeros(3, 3)},
            {"need_weights": False, "key_padding_mask": torch.zeros(2, 3, dtype=torch.bool)},
        ):
            with pytest.raises(RuntimeError, match="plain self-attention"):
                attention(x, x, x, **options)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_explicit_attention_is_torchs(batch_first: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    attention = nn.MultiheadAttention(6, 2, batch_first=batch_first).double().eval()
    random_models.perturb(attention)
    x = torch.randn(5, 3, 6, generator=generator, dtype=torch.float64)
    expected = attention(x, x, x, need_weights=False)[0]
    with explicit_attention([attention]):
        found, weights = attention(x, x, x, need_weights=False)
    assert weights is None
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_text_and_pixels_are_the_librarys_own(plain_name: str) -> None:
    model = ra.load_model(plain_name)
    library, _, transform = open_clip.create_model_and_transforms(plain_name.removeprefix("open_clip:"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8))
    assert torch.equal(model.preprocess(image), transform(image))
    texts = ["a photo of a cat", "7", "a very long text indeed, " * 9]
    tokens = open_clip.get_tokenizer(plain_name.removeprefix("open_clip:"))(texts)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_text(texts), library.eval().encode_text(tokens), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.encode_text(texts)[1:2], model.encode_text(texts[1:2]), rtol=1e-5, atol=1e-6)
    assert model.logit_scale == pytest.approx(float(library.logit_scale.detach().exp()), rel=1e-6)
    described = model.preprocess.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["size"] == [26, 26]
    assert "pil" in described["backend"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pool_type": "none"}, "pooling 'none'"),
        ({"attentional_pool": "cascade", "attn_pooler_heads": 1}, "attentional pooling of type 'cascade'"),
        ({"block_type": "custom", "scale_attn": True}, "ln_attn"),
    ],
)
def test_other_towers_are_refused_by_the_part(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    saved = random_models.save_open_clip(tmp_path / "model", **changes)
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(f"open_clip:local-dir:{saved}")


def test_a_resnet_is_refused(tmp_path: Path) -> None:
    class Model:
        visual = nn.Linear(1, 1)

    with pytest.raises(ra.BadInputError, match="type Linear"):
        openclip.tower(Model(), "x")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("open_clip:ViT-B-999/openai", "no architecture 'ViT-B-999'"),
        ("open_clip:ViT-B-32/nonsense", "has the tags openai, "),
        ("open_clip:ViT-B-32", "has the tags openai, .*got ''"),
        ("open_clip:local-dir:/no/such/folder", "could not be loaded by open_clip"),
        ("open_clip:local-dir:", "could not be loaded by open_clip"),
        ("open_clip:ViT-B-32-quickgelu/laion2b_s34b_b79k", r"use open_clip:ViT-B-32/laion2b_s34b_b79k|has the tags"),
    ],
)
def test_names_that_lead_nowhere(name: str, says: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ra.BadInputError, match=says) as caught:
        ra.load_model(name)
    assert "\n" not in str(caught.value)
    assert not caplog.records


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ra.BadInputError, match=r"residualign\[open_clip\]"):
        ra.load_model("open_clip:ViT-B-32/openai")


def test_a_folder_without_weights_is_refused(plain_name: str, tmp_path: Path) -> None:
    source = Path(plain_name.removeprefix("open_clip:local-dir:"))
    (tmp_path / "open_clip_config.json").write_bytes((source / "open_clip_config.json").read_bytes())
    with pytest.raises(ra.BadInputError, match="could not be loaded by open_clip"):
        ra.load_model(f"open_clip:local-dir:{tmp_path}")


def test_a_tags_own_quick_gelu_is_taken_and_said() -> None:
    with pytest.warns(UserWarning, match="trained with QuickGELU"):
        assert _wants_quick_gelu(open_clip, "m", "ViT-B-32", "openai")
    assert _wants_quick_gelu(open_clip, "m", "ViT-B-32-quickgelu", "openai")
    assert not _wants_quick_gelu(open_clip, "m", "ViT-B-32", "laion2b_s34b_b79k")


@pytest.mark.filterwarnings("ignore:.*trained with QuickGELU")
@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_the_library_builds_what_the_tag_was_trained_with(
    monkeypatch: pytest.MonkeyPatch, tag: str, quick: bool
) -> None:
    asked = {}

    def create_model(*args: object, **options: object) -> None:
        asked.update(options, args=args)
        raise RuntimeError("no weights here")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(ra.BadInputError, match="no weights here"):
        ra.load_model(f"open_clip:ViT-B-32/{tag}")
    assert asked["args"] == ("ViT-B-32", tag)
    assert asked["force_quick_gelu"] is quick


def test_an_adapter_of_an_open_clip_model_is_saved_and_loaded(plain_name: str, tmp_path: Path) -> None:
    model = ra.load_model(plain_name)
    data = ra.load_data(random_models.save_two_colors(tmp_path / "images"))
    adapter = ra.fit(model, data, method="residual-heads", classifier="means", workers=2)
    adapter.save(tmp_path / "adapter")
    images = [data.test.image(i) for i in range(len(data.test))]
    assert torch.equal(ra.load_adapter(tmp_path / "adapter").predict_proba(images), adapter.predict_proba(images))


def _exchanged(model: VisionModel) -> int:
    return sum("forward" in module.__dict__ for module in model.module.visual.modules())
