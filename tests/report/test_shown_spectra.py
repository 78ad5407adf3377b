"""The components a page speaks of have the variance they have on the images at hand."""

from __future__ import annotations

import pytest
import torch

import residualign as ra
from residualign.decomposition.maps import unit_maps
from residualign.report.measure import shown_spectra
from residualign.spectrum import Moments
from tests import random_models
from tests.adapter.make_adapter import coordinates_of, random_adapter, spectra_of

N = 29


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("models") / "clip"), dtype="float64")


@pytest.fixture(scope="module")
def own(model):
    """Spectra of other images than those the adapter's components come from."""
    maps = unit_maps(model.tower)
    moments = Moments.empty(maps)
    moments.update(coordinates_of(model, N, seed=11))
    return moments.spectra(maps, source="other noise", model_fingerprint=model.fingerprint)


@pytest.mark.parametrize("method", ["residual", "residual-heads"])
def test_variance_along_the_adapters_components_is_that_of_the_images_coefficients(model, own, method):
    adapter = random_adapter(model, method)
    shown = shown_spectra(adapter, own)
    coordinates, maps = coordinates_of(model, N, seed=11), unit_maps(model.tower)
    scaled = {unit.label: unit.components for unit in adapter.full_scaling.units}
    for unit in maps.units:
        spectrum = shown[unit.label]
        assert torch.equal(spectrum.mean, own[unit.label].mean)
        assert spectrum.total_variance == own[unit.label].total_variance
        if unit.label not in scaled:
            assert spectrum == own[unit.label]
            continue
        assert torch.equal(spectrum.components, scaled[unit.label])
        coefficients = maps.contribution(coordinates, unit) @ spectrum.components.T
        torch.testing.assert_close(spectrum.explained_variance, coefficients.var(dim=0), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("method", ["coarse", "linear", "spectral-output"])
def test_units_that_are_not_scaled_by_component_show_their_own(model, own, method):
    shown = shown_spectra(random_adapter(model, method), own)
    assert all(shown[label] == own[label] for label in own)
    assert spectra_of(model)["L0.H0"] != own["L0.H0"]
