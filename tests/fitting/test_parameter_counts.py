"""The numbers that a method will learn, told before any image is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

import residualign as ra
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.fitting.methods import METHODS, build_scaling, most_parameters, start_parameters
from residualign.spectrum import Moments, Spectra
from tests import random_models


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Spectra:
    """Of so many images that every unit has all the components that its map allows."""
    folder: Path = random_models.save_clip(tmp_path_factory.mktemp("models") / "clip")
    model = ra.load_model(folder, dtype="float64")
    maps = unit_maps(model.tower)
    moments = Moments.empty(maps)
    moments.update(trace_coordinates(model.tower, model.tower.probe(97)))
    return moments.spectra(maps, source="noise", model_fingerprint=model.fingerprint)


@pytest.mark.parametrize("method", METHODS)
def test_the_most_is_what_fitting_learns_on_full_spectra(spectra: Spectra, method: str) -> None:
    n_layers, n_heads, width, dim = (
        random_models.N_LAYERS,
        random_models.N_HEADS,
        random_models.WIDTH,
        random_models.DIM,
    )
    told = most_parameters(n_layers, n_heads, width, dim)[method]
    for threshold, is_bound in ((1.0, False), (0.9, method == "residual-heads")):
        scaling = build_scaling(METHODS[method], spectra, variance_threshold=threshold)
        parameters = start_parameters(METHODS[method], scaling, n_classes=0, dim=dim)
        learned = sum(tensor.numel() for tensor in parameters.values())
        assert learned < told if is_bound else learned == told


def test_the_published_figures_of_vit_b() -> None:
    counts = most_parameters(n_layers=12, n_heads=12, width=768, dim=512)
    assert counts["coarse"] == 12 * 12
    assert counts["spectral-output"] == 512
    assert counts["linear"] == 512 * 512 + 512
    assert counts["residual-heads"] == 12 * 12 * 66
    assert counts["residual"] == counts["joint"] == 12 * 12 * 66 + 12 * 512


def test_a_unit_never_has_more_components_than_the_output_space_has_dimensions() -> None:
    assert most_parameters(n_layers=2, n_heads=3, width=21, dim=5)["residual"] == 2 * 3 * 5 + 2 * 5
    # and an MLP none beyond its map, where the output space is larger than the stream
    assert most_parameters(n_layers=2, n_heads=3, width=21, dim=97)["residual"] == 2 * 3 * 9 + 2 * 22


def test_attention_pooling_has_an_mlp_more_and_smaller_heads() -> None:
    counts = most_parameters(n_layers=2, n_heads=3, width=21, dim=21, attention_pooled=True)
    assert counts["residual-heads"] == 2 * 3 * 7
    assert counts["residual"] == 2 * 3 * 7 + (2 + 1) * 21
    assert (counts["coarse"], counts["spectral-output"], counts["linear"]) == (6, 21, 21 * 21 + 21)


def test_nothing_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from residualign.fitting import methods

    built: list[Spectra] = []
    monkeypatch.setattr(
        methods,
        "build_scaling",
        lambda method, spectra, **options: built.append(spectra) or build_scaling(method, spectra, **options),
    )
    most_parameters(n_layers=2, n_heads=3, width=21, dim=5, methods=["residual"])
    assert {spectrum.components.untyped_storage().nbytes() for spectrum in built[0].values()} == {4}
