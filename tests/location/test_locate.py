"""Parts by patch sum back to the head's contribution, in every family, and lie where they should."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import residualign as ra
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.location import locate
from residualign.location.locate import text_direction
from residualign.spectrum import Moments
from tests import random_models
from tests.location.towers import FAMILIES, saved
from tests.reference import where_twin

UNITS = ("L0.H1", "L1.H4", "L2.H0")
N = 3


def load(name, folder, dtype="float64"):
    return ra.load_model(saved(name, folder), dtype=dtype)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """26 x 26 pixels, four patches."""
    return load("clip", tmp_path_factory.mktemp("models"))


def random_directions(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def without_positions(model):
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "position" in name or "pos_embed" in name:
                parameter.zero_()


def whole(location):
    return location.maps.sum(dim=(2, 3)) + location.prefix.sum(dim=2) + location.constant


def test_parts_sum_to_the_contribution_in_every_family(model):
    pixels = model.tower.probe(N)
    found = locate(model, pixels, UNITS, direction=(direction := random_directions(model.dim)), batch_size=2)
    contributions = ra.decompose(model, pixels)
    expected = torch.stack([contributions[label] @ direction for label in UNITS], dim=1)
    torch.testing.assert_close(found.total, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole(found), expected, rtol=0, atol=1e-11)
    assert found.error < 1e-13
    assert found.maps.shape == (N, len(UNITS), 2, 2)
    assert found.prefix.shape[2] == model.tower.n_prefix
    assert found.maps.abs().amin(dim=(0, 2, 3)).min() > 0


def test_constants_are_those_of_the_maps(model):
    """What no token has: biases and the final norm's terms, computed from the maps and the two scalars alone."""
    if unit_maps(model.tower).layout == "contributions" or has_sub_norm(model):
        pytest.skip("attention pooling keeps no scalars; the bias of a norm before the projection is a constant too")
    pixels, direction = model.tower.probe(N), random_directions(model.dim)
    maps, coordinates = unit_maps(model.tower), trace_coordinates(model.tower, pixels)
    found = locate(model, pixels, UNITS, direction=direction)
    for k, label in enumerate(UNITS):
        unit = maps.units.get(label)
        expected = (coordinates.scalars() @ maps.weight(unit)[-2:] + maps.bias(unit)) @ direction
        torch.testing.assert_close(found.constant[:, k], expected, rtol=0, atol=1e-12)


def has_sub_norm(model):
    """Whether a bias of a norm before the output projection is in the constants too."""
    from residualign.location.attention import watch_attention

    with torch.no_grad(), model.tower.exchange(), watch_attention(model.tower, [0]) as seen:
        model.tower.forward(model.tower.probe(1))
    return seen[0].norm is not None


def test_the_forward_pass_is_left_as_it_was(model):
    pixels = model.tower.probe(2)
    before = model.encode_pixels(pixels)
    hooks = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.module.modules())
    locate(model, pixels, ["L0.H0"])
    assert torch.equal(model.encode_pixels(pixels), before)
    after = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.module.modules())
    assert after == hooks


def test_float32_agrees_with_float64(tmp_path):
    totals, name = [], saved("open_clip", tmp_path)
    for dtype in ("float64", "float32"):
        model = ra.load_model(name, dtype=dtype)
        found = locate(model, model.tower.probe(N), UNITS, direction=random_directions(model.dim))
        assert found.maps.dtype == getattr(torch, dtype)
        assert found.error < (1e-13 if dtype == "float64" else 1e-5)
        totals.append(found.maps.double())
    torch.testing.assert_close(totals[1], totals[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_located_in_float32(tmp_path, dtype):
    model = load("vit", tmp_path, dtype)
    found = locate(model, model.tower.probe(2), UNITS)
    assert found.maps.dtype == torch.float32
    assert 0 < found.error < 0.05


def test_equals_a_plain_twin_with_loops(tmp_path):
    path = random_models.save_clip_vision(tmp_path / "clip")
    model = ra.load_model(path, dtype="float64")
    pixels, direction = model.tower.probe(2, seed=5), random_directions(model.dim)
    found = locate(model, pixels, ["L1.H3", "L2.H0"], direction=direction)
    lengths = locate(model, pixels, ["L1.H3", "L2.H0"])
    for k, (layer, head) in enumerate(((1, 3), (2, 0))):
        with torch.no_grad():
            parts, constants = where_twin.head_parts(model.module, pixels, layer, head)
        torch.testing.assert_close(found.maps[:, k].flatten(1), parts[:, 1:] @ direction, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.prefix[:, k], parts[:, :1] @ direction, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.constant[:, k], constants @ direction, rtol=0, atol=1e-12)
        torch.testing.assert_close(lengths.maps[:, k].flatten(1), parts[:, 1:].norm(dim=-1), rtol=0, atol=1e-12)
        torch.testing.assert_close(lengths.constant[:, k], constants.norm(dim=-1), rtol=0, atol=1e-12)
        sums = parts.sum(dim=1) + constants
        torch.testing.assert_close(lengths.total[:, k], sums.norm(dim=-1), rtol=0, atol=1e-12)
    assert (found.kind, lengths.kind) == ("direction", "norm")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_every_kernel_gives_the_same_parts(tmp_path, implementation):
    model = load("dinov3", tmp_path)
    pixels, direction = model.tower.probe(2), random_directions(model.dim)
    expected = locate(model, pixels, UNITS, direction=direction)
    model.module.set_attn_implementation(implementation)
    found = locate(model, pixels, UNITS, direction=direction)
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-13)


def test_timm_without_its_fused_kernel(tmp_path):
    model = load("timm", tmp_path)
    pixels, direction = model.tower.probe(2), random_directions(model.dim)
    expected = locate(model, pixels, UNITS, direction=direction)
    for block in model.module.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(
        locate(model, pixels, UNITS, direction=direction).maps, expected.maps, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("name", ["clip", "siglip", "timm, mean then norm", "vit#mean", "blip"])
def test_patches_that_change_places_change_places_in_the_map(name, tmp_path):
    """Without positions a tower does not know where its patches are, so maps are permuted as they are."""
    model = load(name, tmp_path)
    without_positions(model)
    pixels = model.tower.probe(2)
    pixels = pixels + torch.nn.functional.interpolate(
        random_directions(2, 3, 2, 2), size=pixels.shape[-2:], mode="nearest"
    )
    swapped = pixels.clone()
    half = pixels.shape[-1] // 2
    swapped[..., :half, :half], swapped[..., half:, :half] = pixels[..., half:, :half], pixels[..., :half, :half]
    direction = random_directions(model.dim)
    one = locate(model, pixels, UNITS, direction=direction)
    other = locate(model, swapped, UNITS, direction=direction)
    expected = one.maps.clone()
    expected[:, :, 0, 0], expected[:, :, 1, 0] = one.maps[:, :, 1, 0], one.maps[:, :, 0, 0]
    torch.testing.assert_close(other.maps, expected, rtol=0, atol=1e-12)
    assert (one.maps[:, :, 0, 0] - one.maps[:, :, 1, 0]).abs().min() > 1e-6


@pytest.mark.parametrize(("row", "column"), [(0, 2), (1, 0), (2, 1)])
def test_the_only_patch_that_differs_is_found(tmp_path, row, column):
    """3 x 3 patches, layer 0: values depend on their own patch alone, and queries that are zero attend to all alike."""
    path = random_models.save_vit(tmp_path / "vit", image_size=39)
    (path / "preprocessor_config.json").unlink()
    from transformers import ViTImageProcessorPil

    ViTImageProcessorPil(size={"height": 39, "width": 39}).save_pretrained(path)
    model = ra.load_model(path, dtype="float64")
    attention = model.module.layers[0].attention
    without_positions(model)
    with torch.no_grad():
        attention.q_proj.weight.zero_()
        attention.q_proj.bias.zero_()
    blank = torch.zeros(1, 3, 39, 39, dtype=torch.float64)
    spot = blank.clone()
    spot[..., 13 * row : 13 * row + 13, 13 * column : 13 * column + 13] = 3.0
    found = locate(model, spot, ["L0.H2"], direction=random_directions(model.dim))
    maps = found.maps[0, 0]
    others = torch.ones(3, 3, dtype=torch.bool)
    others[row, column] = False
    assert maps.shape == (3, 3)
    torch.testing.assert_close(maps[others], maps[others][:1].expand(8), rtol=0, atol=1e-14)
    assert (maps[row, column] - maps[others].mean()).abs() > 1e-3


def test_wide_pictures_have_wide_maps(tmp_path):
    model = load("dinov2 with registers", tmp_path)
    pixels = torch.randn(1, 3, 26, 65, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert locate(model, pixels, ["L0.H0"]).maps.shape == (1, 1, 2, 5)


def test_components_are_directions_and_means_are_apart(clip):
    pixels, maps = clip.tower.probe(7), unit_maps(clip.tower)
    moments = Moments.empty(maps)
    moments.update(trace_coordinates(clip.tower, pixels))
    spectra = moments.spectra(maps, source="noise")
    found = locate(clip, pixels, ["L2.H1", "L0.H3"], components=[2, 0], spectra=spectra)
    assert [one.label for one in found.targets] == ["L2.H1 · 2", "L2.H1 · 0", "L0.H3 · 2", "L0.H3 · 0"]
    torch.testing.assert_close(whole(found), found.total, rtol=0, atol=1e-12)
    # the variance of the totals over these images is the component's own
    expected = [spectra[one.unit].explained_variance[one.component].item() for one in found.targets]
    assert found.total.var(dim=0).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_text_is_a_unit_direction(clip):
    pixels = clip.tower.probe(2)
    plain = text_direction(clip, "a cat")
    vectors = F.normalize(clip.encode_text(["a cat", "a dog", "one"]), dim=-1)
    torch.testing.assert_close(plain, vectors[0])
    against = text_direction(clip, "a cat", ["a dog", "one"])
    torch.testing.assert_close(against, F.normalize(vectors[0] - (vectors[1] + vectors[2]) / 2, dim=0))
    by_text = locate(clip, pixels, ["L1.H0"], text="a cat", against=["a dog", "one"])
    torch.testing.assert_close(by_text.maps, locate(clip, pixels, ["L1.H0"], direction=against).maps)


def test_a_direction_of_its_own_for_every_image_and_unit(clip):
    pixels, directions = clip.tower.probe(5), random_directions(5, clip.dim)
    found = locate(clip, pixels, ["L1.H0", "L1.H1"], direction=directions, batch_size=2)
    for i in range(5):
        alone = locate(clip, pixels[i : i + 1], ["L1.H0", "L1.H1"], direction=directions[i])
        torch.testing.assert_close(alone.maps[0], found.maps[i], rtol=0, atol=1e-13)
    by_unit = locate(clip, pixels, ["L1.H0", "L1.H1"], direction={"L1.H0": directions, "L1.H1": directions[0]})
    torch.testing.assert_close(by_unit.maps[:, 0], found.maps[:, 0])
    torch.testing.assert_close(by_unit.maps[:, 1], locate(clip, pixels, ["L1.H1"], direction=directions[0]).maps[:, 0])


def test_json_is_plain(clip):
    found = locate(clip, clip.tower.probe(2), ["L1.H0"])
    content = json.loads(json.dumps(found.to_json()))
    assert content["grid"] == [2, 2]
    assert content["images"][1]["maps"][0] == found.maps[1, 0].tolist()
    assert content["targets"] == [{"label": "L1.H0", "unit": "L1.H0", "component": None}]
    assert len(found) == 2


def test_bad_input(clip, tmp_path):
    pixels, spectra = clip.tower.probe(1), None
    for units, words in (
        ([], "units is a list of heads"),
        (["L1.mlp"], "L1.mlp is not a head"),
        (["embedding"], "embedding is not a head"),
        (["L9.H0"], "no unit 'L9.H0'"),
    ):
        with pytest.raises(BadInputError, match=words):
            locate(clip, pixels, units)
    with pytest.raises(BadInputError, match=r"shape \(11,\) or \(1, 11\); got \(7,\)"):
        locate(clip, pixels, ["L0.H0"], direction=torch.ones(7))
    with pytest.raises(BadInputError, match="at most one of direction, components, text; got components and text"):
        locate(clip, pixels, ["L0.H0"], components=[0], text="cat")
    with pytest.raises(BadInputError, match="give spectra too"):
        locate(clip, pixels, ["L0.H0"], components=[0], spectra=spectra)
    maps = unit_maps(clip.tower)
    moments = Moments.empty(maps)
    moments.update(trace_coordinates(clip.tower, clip.tower.probe(5)))
    with pytest.raises(BadInputError, match="components 0 to 3; got 4"):
        locate(clip, pixels, ["L0.H0"], components=[4], spectra=moments.spectra(maps, source="noise"))
    with pytest.raises(BadInputError, match="has no text tower"):
        locate(load("vit", tmp_path), pixels, ["L0.H0"], text="cat")
