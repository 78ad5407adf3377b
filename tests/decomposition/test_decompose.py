"""Units sum to the model's output, equal the plain twin unit by unit, and leave the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import random_models
from tests.reference import residual_twin
from torch import Tensor

import residualign as ra
from residualign.decomposition.contributions import Contributions
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import Trace, trace_coordinates
from residualign.models.vision_model import VisionModel
from residualign.units import Unit

N = 3
SAVERS: dict[str, Callable[[Path], Path]] = {
    "clip": random_models.save_clip,
    "clip-vision": random_models.save_clip_vision,
    "clip-vision-unprojected": lambda path: random_models.save_clip_vision(path, projection=False),
    "chinese-clip": random_models.save_chinese_clip,
    "altclip": random_models.save_altclip,
    "blip": random_models.save_blip,
    "vit": random_models.save_vit,
    "vit-no-qkv-bias": lambda path: random_models.save_vit(path, qkv_bias=False),
    "dinov2": random_models.save_dinov2,
    "dinov2-registers": lambda path: random_models.save_dinov2(path, registers=3),
    "dinov2-swiglu": lambda path: random_models.save_dinov2(path, use_swiglu_ffn=True),
    "dinov3": random_models.save_dinov3,
    "dinov3-plain-mlp": lambda path: random_models.save_dinov3(path, use_gated_mlp=False, num_register_tokens=1),
}


DINOS = [name for name in SAVERS if "dino" in name]
OTHERS = [name for name in SAVERS if "dino" not in name]


@pytest.fixture(scope="module", params=SAVERS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SAVERS[request.param](tmp_path_factory.mktemp("models") / request.param)


@pytest.mark.parametrize("rule", ["shared", "own"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_units_sum_to_the_output(directory: Path, dtype: str, tolerance: float, rule: str) -> None:
    model = ra.load_model(directory, dtype=dtype)
    c = ra.decompose(model, model.tower.probe(N, seed=3), rule=rule)
    output = c.output
    assert c.values.shape == (N, len(model.units), model.dim)
    assert (c.values.sum(dim=1) - output).abs().max() / output.abs().max() < tolerance
    assert c.residual_error < tolerance
    torch.testing.assert_close(output, model.encode_pixels(model.tower.probe(N, seed=3)), rtol=0, atol=0)


# the twin reads CLIP through its projection
@pytest.mark.parametrize("directory", [name for name in SAVERS if "unprojected" not in name], indirect=True)
@pytest.mark.parametrize("rule", ["shared", "own"])
def test_every_unit_equals_the_plain_twin(directory: Path, rule: str) -> None:
    model = ra.load_model(directory, dtype="float64")
    pixels = model.tower.probe(N, seed=5)
    with torch.no_grad():
        hf_model = model.module if model.tower.projection is not None else model.tower.module
        expected = residual_twin.contributions(hf_model, pixels, rule)
    c = ra.decompose(model, pixels, rule=rule)
    assert {unit.label for unit in c.units} == set(expected)
    for unit in c.units:
        torch.testing.assert_close(c[unit], expected[unit.label], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("directory", [*DINOS, "blip"], indirect=True)
@pytest.mark.parametrize("size", [(39, 39), (52, 13)])
def test_one_image_of_another_size_adds_up(directory: Path, size: tuple[int, int]) -> None:
    """The families that interpolate their positions."""
    model = ra.load_model(directory, dtype="float64")
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    c = ra.decompose(model, pixels)
    assert c.values.shape == (1, len(model.units), model.dim)
    assert (c.values.sum(dim=1) - model.encode_pixels(pixels)).abs().max() / c.output.abs().max() < 1e-10


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-2), ("bfloat16", 1e-1)])
def test_half_towers_are_summed_in_float32(directory: Path, dtype: str, tolerance: float) -> None:
    model = ra.load_model(directory, dtype=dtype)
    c = ra.decompose(model, model.tower.probe(N))
    assert c.values.dtype == torch.float32
    assert c.residual_error < tolerance


@pytest.mark.parametrize("directory", OTHERS, indirect=True)
def test_layer_scale_is_followed(directory: Path) -> None:
    """Put by hand into towers that have none, in the forward and the seam; the plain twin follows DINO's own."""
    from dataclasses import replace

    tower = ra.load_model(directory, dtype="float64").tower
    generator = torch.Generator().manual_seed(7)
    scales = [torch.rand(2, tower.width, generator=generator, dtype=torch.float64) + 0.5 for _ in tower.blocks]
    blocks, handles = [], []
    for block, (attention_scale, mlp_scale) in zip(tower.blocks, scales, strict=True):
        blocks.append(replace(block, attention_scale=attention_scale, mlp_scale=mlp_scale))
        handles.append(block.out_proj.register_forward_hook(lambda _, __, out, s=attention_scale: out * s))
    scaled = replace(tower, blocks=tuple(blocks))
    pixels = tower.probe(N)
    with Trace(scaled) as trace, torch.no_grad():
        # after the trace's own hooks: the seam says that a block's MLP gives its output before layer scale
        for block, (_, mlp_scale) in zip(tower.blocks, scales, strict=True):
            handles.append(block.mlp.register_forward_hook(lambda _, __, out, s=mlp_scale: out * s))
        output = tower.forward(pixels)
        c = trace.coordinates(output)
    for handle in handles:
        handle.remove()
    assert (unit_maps(scaled).sum(c) - output).abs().max() / output.abs().max() < 1e-10


def test_plain_forward_is_unchanged_bit_for_bit(directory: Path) -> None:
    model = ra.load_model(directory)
    pixels = model.tower.probe(N)
    before = model.encode_pixels(pixels)
    inside = trace_coordinates(model.tower, pixels).output
    assert torch.equal(before, inside)
    assert torch.equal(before, model.encode_pixels(pixels))
    assert _n_hooks(model) == 0


def test_hooks_are_gone_when_the_body_raises(directory: Path) -> None:
    model = ra.load_model(directory)
    hooks_inside = 0
    with pytest.raises(ZeroDivisionError), Trace(model.tower):  # noqa: PT012
        hooks_inside = _n_hooks(model)
        raise ZeroDivisionError
    assert hooks_inside == 2 * len(model.tower.blocks) + 1
    assert _n_hooks(model) == 0


def test_contexts_nest(directory: Path) -> None:
    model = ra.load_model(directory, dtype="float64")
    first, second = model.tower.probe(N, seed=1), model.tower.probe(N, seed=2)
    with torch.no_grad(), Trace(model.tower) as outer:
        with Trace(model.tower) as inner:
            output = model.tower.forward(first)
        a, b = outer.coordinates(output), inner.coordinates(output)
        output = model.tower.forward(second)
        c = outer.coordinates(output)
    assert torch.equal(a.heads, b.heads)
    assert torch.equal(inner.coordinates(a.output).heads, b.heads)
    assert torch.equal(c.heads, trace_coordinates(model.tower, second).heads)


def test_a_trace_without_a_forward_says_so(directory: Path) -> None:
    model = ra.load_model(directory)
    with Trace(model.tower) as trace, pytest.raises(RuntimeError, match="no forward"):
        trace.coordinates(torch.zeros(1, model.dim))


def test_traced_rows_do_not_keep_activations_alive(directory: Path) -> None:
    model = ra.load_model(directory)
    with Trace(model.tower) as trace:
        model.encode_pixels(model.tower.probe(N))
    for kept in (trace._values, trace._mlps):
        # one block for all layers, and nothing beside their rows in it
        assert len({rows.untyped_storage().data_ptr() for rows in kept.values()}) == 1
        assert kept[0].untyped_storage().nbytes() == sum(rows.nbytes for rows in kept.values())
    assert trace._stream is not None
    assert trace._stream.untyped_storage().nbytes() == trace._stream.nbytes


def test_gradients_reach_nothing(directory: Path) -> None:
    model = ra.load_model(directory)
    c = trace_coordinates(model.tower, model.tower.probe(1))
    assert not c.heads.requires_grad
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def _n_hooks(model: VisionModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.tower.module.modules())


@pytest.fixture(scope="module")
def contributions(tmp_path_factory: pytest.TempPathFactory) -> Contributions:
    model = ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("m") / "clip"), dtype="float64")
    return ra.decompose(model, model.tower.probe(N))


def _close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_select_and_sum(contributions: Contributions) -> None:
    labels = ["L2.H4", "embedding", "L0.mlp"]
    selected = contributions.select(labels)
    assert [unit.label for unit in selected.units] == ["embedding", "L0.mlp", "L2.H4"]
    position = [contributions.units.index(unit) for unit in selected.units]
    _close(selected.values, contributions.values[:, position])
    _close(selected.sum(), contributions.values[:, position].sum(dim=1))
    _close(contributions.sum(), contributions.output)
    _close(selected.output, contributions.output)
    assert contributions.select([]).values.shape == (N, 0, 11)


def test_a_unit_is_found_by_label_unit_and_layer_and_head(contributions: Contributions) -> None:
    assert torch.equal(contributions[2, 4], contributions["L2.H4"])
    assert torch.equal(contributions[np.int64(2), 4], contributions[Unit("head", 2, 4)])
    assert not torch.equal(contributions[2, 4], contributions[1, 4])


def test_heads_and_mlps_are_selections(contributions: Contributions) -> None:
    heads, mlps = contributions.heads, contributions.mlps
    assert [unit.label for unit in heads.units] == [f"L{i}.H{j}" for i in range(3) for j in range(5)]
    assert [unit.label for unit in mlps.units] == ["L0.mlp", "L1.mlp", "L2.mlp"]
    _close(heads.sum() + mlps.sum() + contributions["embedding"], contributions.output)
    # of what is left, not of the model
    assert contributions.ablate(["L0.H0", "L1.mlp"]).heads.units == heads.units[1:]
    assert heads.coordinates is contributions.coordinates


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        ((3, 0), r"no unit 'L3\.H0' .* 3 layers with 5 heads each; .*'L0\.H0' to 'L2\.H4'"),
        ((0, -1), r"no unit 'L0\.H-1'"),
        ((0,), r"such as 'L3\.H2', or by \(layer, head\); got \(0,\)"),
        ("L0.mlp", r"'L0\.mlp' is not among the 2 selected units \('embedding', 'L2\.H4'\)"),
    ],
)
def test_units_that_are_not_there_are_refused_with_those_that_are(
    contributions: Contributions, unit: object, says: str
) -> None:
    with pytest.raises(ra.BadInputError, match=says):
        contributions.select(["L2.H4", "embedding"])[unit]


def test_reprs_are_one_short_line(contributions: Contributions, tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    model = ra.load_model(random_models.save_siglip(long / ("name" * 30)))
    other = ra.decompose(model, model.tower.probe(1))
    ablated = contributions.ablate(["L0.H0", "L1.H0"], mode="mean")
    shown = [model, model.tower, *((c, c.coordinates, c.maps) for c in (contributions, other)), ablated]
    for thing in (repr(x) for group in shown for x in (group if isinstance(group, tuple) else (group,))):
        assert len(thing) <= 200
        assert "\n" not in thing
    assert repr(model).startswith("VisionModel('...")
    assert repr(contributions) == "Contributions(n_images=3, 19 of 19 units, dim=11, float64)"
    assert repr(other.heads) == "Contributions(n_images=1, 15 of 20 units, dim=35, float32)"
    assert repr(ablated) == "Contributions(n_images=3, 19 of 19 units, 2 replaced by their means, dim=11, float64)"
    assert repr(other.maps).startswith("IdentityMaps(Units(n_layers=3, n_heads=5, pool_mlp=True), layout='cont")


def test_zero_ablation_takes_a_unit_with_its_constants(contributions: Contributions) -> None:
    gone = contributions.ablate(["L1.H2", "L1.mlp"])
    _close(gone.sum(), contributions.output - contributions["L1.H2"] - contributions["L1.mlp"])
    with pytest.raises(ra.BadInputError, match="not among"):
        gone["L1.H2"]


def test_mean_ablation_by_batch_and_by_given_means(contributions: Contributions) -> None:
    own = contributions.ablate(["L1.H2"], mode="mean")
    change = contributions["L1.H2"].mean(dim=0) - contributions["L1.H2"]
    _close(own.sum(), contributions.output + change)
    _close(own.values.sum(dim=1), own.sum())
    given = torch.arange(11, dtype=torch.float64)
    other = contributions.ablate(["L1.H2"], mode="mean", means={"L1.H2": given})
    _close(other["L1.H2"], given.expand(N, -1))
    _close(other.sum(), contributions.output - contributions["L1.H2"] + given)


@pytest.mark.parametrize("label", ["L9.H0", "L0.H5", "nonsense", "L0"])
def test_unknown_units_are_refused(contributions: Contributions, label: str) -> None:
    with pytest.raises(ra.BadInputError, match=label):
        contributions.select([label])
    with pytest.raises(ra.BadInputError, match="mode"):
        contributions.ablate(["L0.H0"], mode="median")
    with pytest.raises(ra.BadInputError, match="list"):
        contributions.select("L0.H0")


def test_decompose_takes_pil_paths_and_tensors(tmp_path: Path) -> None:
    from PIL import Image

    model = ra.load_model(random_models.save_clip(tmp_path / "clip"), dtype="float64")
    images = [Image.effect_noise((31, 37), 80).convert("RGB") for _ in range(N)]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    from_pil = ra.decompose(model, images, batch_size=2)
    from_paths = ra.decompose(model, [tmp_path / f"{i}.png" for i in range(N)])
    from_tensor = ra.decompose(model, torch.stack([model.preprocess(image) for image in images]))
    _close(from_pil.output, from_paths.output)
    _close(from_pil.output, from_tensor.output)


@pytest.mark.parametrize("images", [[], torch.zeros(3, 26, 26), "one.png"])
def test_unusable_images_are_refused(tmp_path: Path, images: object) -> None:
    model = ra.load_model(random_models.save_vit(tmp_path / "vit"))
    with pytest.raises(ra.BadInputError, match=r"images|'one.png' cannot be used"):
        ra.decompose(model, images)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_real_vit_adds_up(deit_dir: Path, dtype: str) -> None:
    model = ra.load_model(deit_dir, dtype=dtype)
    c = ra.decompose(model, model.tower.probe(2))
    assert c.residual_error < {"float64": 1e-10, "float32": 1e-5}[dtype]


@pytest.mark.parametrize("directory", [*OTHERS, "dinov2"], indirect=True)
@pytest.mark.parametrize(("fault", "says"), [("scale", "what fails is its blocks"), ("norm", "after its blocks")])
def test_a_tower_that_does_not_add_up_is_refused_by_the_part(directory: Path, fault: str, says: str) -> None:
    from dataclasses import replace

    from residualign.load import check_sum

    tower = ra.load_model(directory, dtype="float64").tower
    assert check_sum(tower, "x") < 1e-10
    if fault == "scale":
        # as if the family had overlooked a layer scale: the MLP gives half of what is added
        halved = replace(tower.blocks[1], mlp_scale=torch.full((tower.width,), 0.5, dtype=torch.float64))
        wrong = replace(tower, blocks=(tower.blocks[0], halved, *tower.blocks[2:]))
    else:
        wrong = replace(tower, forward=lambda pixels: tower.forward(pixels) * 1.5)
    with pytest.raises(ra.BadInputError, match=f"the units do not sum to the model's output: .*{says}"):
        check_sum(wrong, "x")
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tower.module.modules()) == 0
