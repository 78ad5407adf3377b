"""Stores, spectra and adapters of towers that pool means or by attention: everything right of the trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import residualign as ra
from residualign.adapter.fold import FactoredMap, fold
from residualign.cli import main
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.fitting.coefficients import ScaledUnit, Scaling, adapted_output
from residualign.fitting.methods import METHODS, build_scaling
from residualign.models.vision_model import VisionModel
from residualign.spectrum import Moments, Spectra
from tests import random_models
from tests.adapter.as_twin import twin
from tests.reference import pca_twin

OPTIONS = [(mean, rest) for mean in ("drop", "keep") for rest in ("keep", "mean", "zero")]
SAVERS: dict[str, Callable[[Path], Path]] = {
    "siglip": random_models.save_siglip,
    "vit#mean": random_models.save_vit,
    "timm": lambda path: random_models.save_timm(path, global_pool="avg"),
    "coca": lambda path: random_models.save_open_clip(
        path, coca=True, dim=22, attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=3
    ),
}
PREFIX = {"timm": "timm:local-dir:", "coca": "open_clip:local-dir:"}
N = 23


@pytest.fixture(scope="module", params=SAVERS)
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    saved = SAVERS[request.param](tmp_path_factory.mktemp("models") / "model")
    return f"{PREFIX.get(request.param, '')}{saved}" + ("#mean" if "#" in request.param else "")


@pytest.fixture(scope="module")
def model(name: str) -> VisionModel:
    return ra.load_model(name, dtype="float64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_two_colors(tmp_path_factory.mktemp("data") / "colors", n=11)


def moments_of(model: VisionModel, seed: int = 5, n: int = N) -> Moments:
    moments = Moments.empty(unit_maps(model.tower))
    return moments.update(trace_coordinates(model.tower, model.tower.probe(n, seed=seed)))


def test_spectra_are_those_of_a_plain_svd(model: VisionModel) -> None:
    maps, pixels = unit_maps(model.tower), model.tower.probe(N, seed=5)
    c = ra.decompose(model, pixels)
    spectra = moments_of(model).spectra(maps, source="noise")
    assert spectra.units == model.units
    for unit in c.units:
        mean, components, variance, total = pca_twin.pca(c[unit].numpy())
        spectrum = spectra[unit.label]
        k = spectrum.n_components
        np.testing.assert_allclose(spectrum.mean.numpy(), mean, atol=1e-11)
        np.testing.assert_allclose(spectrum.explained_variance.numpy(), variance[:k], rtol=1e-6)
        assert spectrum.total_variance == pytest.approx(total, rel=1e-8)
        np.testing.assert_allclose(np.abs((spectrum.components.numpy() * components[:k]).sum(axis=1)), 1, atol=1e-7)
        by_attention = maps.layout == "contributions"
        if unit.kind == "head":
            assert k <= (7 if by_attention else 9)
    if by_attention:
        # more of a head than is kept by default
        more = moments_of(model).spectra(maps, source="noise", max_head_components=11)
        assert more["L1.H2"].n_components == 11
        assert torch.equal(more["L1.H2"].components[:7], spectra["L1.H2"].components)
        assert spectra["L1.H2"].explained_variance_ratio.sum() < 1 - 1e-3


def test_moments_add_up_and_come_back_from_disk(model: VisionModel, tmp_path: Path) -> None:
    maps = unit_maps(model.tower)
    parts = moments_of(model, seed=1, n=5).merge(moments_of(model, seed=2, n=7))
    whole = Moments.empty(maps)
    for seed, n in ((1, 5), (2, 7)):
        whole.update(trace_coordinates(model.tower, model.tower.probe(n, seed=seed)))
    parts.save(tmp_path / "moments.safetensors")
    again = Moments.load(tmp_path / "moments.safetensors").spectra(maps, source="noise")
    assert again == parts.spectra(maps, source="noise")
    for label, spectrum in whole.spectra(maps, source="noise").items():
        torch.testing.assert_close(spectrum.explained_variance, again[label].explained_variance, rtol=1e-9, atol=1e-13)
    again.save(tmp_path / "spectra.safetensors")
    assert Spectra.load(tmp_path / "spectra.safetensors") == again


@pytest.mark.parametrize(("mean", "rest"), OPTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_folded_maps_and_coefficients_equal_the_plain_twin(
    model: VisionModel, method: str, mean: str, rest: str
) -> None:
    maps = unit_maps(model.tower)
    coordinates = trace_coordinates(model.tower, model.tower.probe(5, seed=6))
    scaling = build_scaling(METHODS[method], moments_of(model).spectra(maps, source="noise"), mean, rest, 0.8)
    generator = torch.Generator().manual_seed(3)
    lambdas = torch.randn(scaling.n_lambdas, generator=generator, dtype=torch.float64)
    weight = torch.randn(maps.dim, maps.dim, generator=generator, dtype=torch.float64)
    bias = torch.randn(maps.dim, generator=generator, dtype=torch.float64)
    expected = twin(maps, coordinates, scaling, lambdas)
    folded = fold(maps, scaling, lambdas)
    assert isinstance(folded, FactoredMap) == (maps.layout == "contributions")
    torch.testing.assert_close(folded(coordinates), expected, rtol=1e-9, atol=1e-9)
    after = fold(maps, scaling, lambdas, weight, bias).to(dtype=torch.float64)
    torch.testing.assert_close(after(coordinates), expected @ weight + bias, rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(adapted_output(coordinates, maps, scaling, lambdas), expected, rtol=1e-9, atol=1e-9)


def test_the_embedding_is_scaled_like_any_unit(model: VisionModel) -> None:
    maps = unit_maps(model.tower)
    spectrum = moments_of(model).spectra(maps, source="noise")["embedding"]
    assert spectrum.n_components > 3
    unit = ScaledUnit("embedding", spectrum.mean, spectrum.components)
    scaling = Scaling((unit,), "keep", "keep", torch.zeros(maps.dim, dtype=torch.float64))
    lambdas = torch.linspace(-1, 2, unit.n_lambdas, dtype=torch.float64)
    coordinates = trace_coordinates(model.tower, model.tower.probe(5, seed=6))
    expected = twin(maps, coordinates, scaling, lambdas)
    torch.testing.assert_close(fold(maps, scaling, lambdas)(coordinates), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_store_gives_back_what_the_model_gave(name: str, folder: Path, tmp_path: Path, dtype: str) -> None:
    model, data = ra.load_model(name), ra.load_data(folder)
    store = ra.extract(model, data, tmp_path / "store", batch_size=3, shard_size=5, dtype=dtype)
    store.verify()
    again = ra.Store.open(tmp_path / "store")
    assert again.units == model.units
    assert again.maps.layout == unit_maps(model.tower).layout
    coordinates = again.split("train").coordinates()
    expected = model.encode_image(list(data.train.images()))
    tolerance = 1e-5 if dtype == "float32" else 3e-3
    scale = expected.abs().max()
    assert (again.maps.sum(coordinates) - expected).abs().max() / scale < tolerance
    for unit in model.units:
        one = ra.decompose(model, list(data.train.images()))[unit]
        assert (again.maps.contribution(coordinates, unit) - one).abs().max() / scale < tolerance
    picked = again.split("train").take(torch.tensor([3, 1]))
    torch.testing.assert_close(picked.coordinates().heads, coordinates.heads[[3, 1]])


def test_adapt_classify_and_evaluate_from_the_command_line(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["adapt", name, str(folder), "--out", out, "--method", "all", "--json", "--classifier", "means"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["method"] for one in found["methods"]} == set(METHODS)
    assert found["residual_error"] < 1e-4
    image = str(next((folder / "red").iterdir()))
    assert main(["classify", out, image, "--json"]) == 0
    classified = json.loads(capsys.readouterr().out)
    assert classified["images"][0]["label"] in ("red", "blue")
    assert main(["evaluate", out, str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_images"] > 0
    for method in METHODS:
        adapter = ra.load_adapter(f"{out}/methods/{method}")
        model = ra.load_model(name)
        pixels = model.tower.probe(3)
        by_coordinates = adapter.embed_coordinates(trace_coordinates(model.tower, pixels))
        torch.testing.assert_close(adapter.embed(pixels), by_coordinates, rtol=1e-4, atol=1e-4)


def test_coordinates_of_another_layout_are_refused(model: VisionModel, tmp_path: Path) -> None:
    other = ra.load_model(random_models.save_clip(tmp_path / "clip"))
    moments = Moments.empty(unit_maps(model.tower))
    with pytest.raises(ra.BadInputError, match="these moments take"):
        moments.update(trace_coordinates(other.tower, other.tower.probe(2)))
    with pytest.raises(ra.BadInputError, match="cannot merge moments"):
        moments.merge(Moments.empty(unit_maps(other.tower)))


def test_a_mean_and_a_class_token_of_one_tower_are_told_apart(tmp_path: Path) -> None:
    """Heads and MLPs have the same sizes there; the embedding varies in one and is constant in the other."""
    saved = random_models.save_vit(tmp_path / "vit")
    token, mean = ra.load_model(saved), ra.load_model(f"{saved}#mean")
    for one, other in ((token, mean), (mean, token)):
        with pytest.raises(ra.BadInputError, match="these moments take an embedding of"):
            Moments.empty(unit_maps(one.tower)).update(trace_coordinates(other.tower, other.tower.probe(2)))


def test_what_a_class_token_has_anyway_is_not_in_its_plan(tmp_path: Path, folder: Path) -> None:
    """So that stores of class-token models keep their fingerprint; those of the others name what they have more."""
    data = ra.load_data(folder)
    for saver, more in ((random_models.save_clip, set()), (random_models.save_siglip, {"layout", "pool_mlp"})):
        model = ra.load_model(saver(tmp_path / saver.__name__))
        store = ra.extract(model, data, tmp_path / f"{saver.__name__}-store")
        plan = json.loads((Path(store.path) / "manifest.json").read_text())["plan"]
        assert plan["shape"].keys() == {"n_layers", "n_heads", "head_dim", "width", "dim"} | more
        assert ("logit_bias" in plan) == bool(more)


def test_similarities_of_every_layout(model: VisionModel, name: str, folder: Path, tmp_path: Path) -> None:
    from residualign.similarity import cka_pairs, compare_spectra, draw_anchors, linear_cka, relative_means

    store = ra.extract(model, ra.load_data(folder), tmp_path / "store", workers=0, dtype="float32")
    train = store.split("train")
    maps = store.maps.to(dtype=torch.float64)
    coordinates = train.coordinates().to(dtype=torch.float64)
    a, b = moments_of(model).spectra(maps, source="noise"), ra.fit_spectrum(store)
    similar = compare_spectra(a, b)
    assert {unit.label for unit in similar.units} == set(model.units.labels)
    assert all(0 <= unit.cosine.weighted <= 1 for unit in similar.units)
    assert all(unit.cosine.weighted == pytest.approx(1, abs=1e-12) for unit in compare_spectra(b, b).units)
    anchors = draw_anchors(train, 3)
    relative = relative_means(store.split("val"), anchors)
    of_val, of_anchors = (part.coordinates().to(dtype=torch.float64) for part in (store.split("val"), anchors))
    last = maps.units[-1]
    pairs = cka_pairs(train, train, maps.units, [last])
    for i, unit in enumerate(maps.units):
        rows, directions = (maps.contribution(part, unit) for part in (of_val, of_anchors))
        cosines = torch.nn.functional.cosine_similarity(rows[:, None], directions[None], dim=-1)
        torch.testing.assert_close(relative.values[i], cosines.mean(dim=0), rtol=1e-10, atol=1e-12)
        expected = linear_cka(maps.contribution(coordinates, unit), maps.contribution(coordinates, last))
        found = (float(pairs.cka[i, 0]), float(pairs.debiased[i, 0]))
        assert found == pytest.approx((expected.cka, expected.debiased), abs=1e-8)
