"""A folded map is the plain forward pass plus one product, for every method, mean and rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from residualign.adapter.fold import fold
from residualign.fitting.coefficients import adapted_output
from residualign.fitting.methods import METHODS, build_scaling
from residualign.spectrum import Moments
from tests.adapter.as_twin import twin
from tests.spectrum.random_tower import DIM, make_coordinates, make_maps

N = 17
OPTIONS = [(mean, rest) for mean in ("drop", "keep") for rest in ("keep", "mean", "zero")]


@pytest.fixture(scope="module")
def tower():
    """Maps, coordinates whose output is the sum of the units, and spectra from other images."""
    maps = make_maps()
    moments = Moments.empty(maps)
    moments.update(_consistent(maps, 31, seed=5))
    return maps, _consistent(maps, N, seed=6), moments.spectra(maps, source="noise")


def _consistent(maps, n, seed):
    from dataclasses import replace

    coordinates = make_coordinates(n, seed, offset=0.7)
    return replace(coordinates, output=maps.sum(coordinates))


def _learned(method, scaling, seed=3):
    g = torch.Generator().manual_seed(seed)
    lambdas = torch.randn(scaling.n_lambdas, generator=g, dtype=torch.float64)
    if "map" not in method.learns:
        return lambdas, None, None
    return lambdas, torch.randn(DIM, DIM, generator=g, dtype=torch.float64), torch.randn(DIM, generator=g).double()


@pytest.mark.parametrize(("mean", "rest"), OPTIONS)
@pytest.mark.parametrize("name", METHODS)
def test_folded_is_the_plaintwin(tower, name, mean, rest):
    maps, coordinates, spectra = tower
    scaling = build_scaling(METHODS[name], spectra, mean, rest, variance_threshold=0.8)
    lambdas, weight, bias = _learned(METHODS[name], scaling)
    expected = twin(maps, coordinates, scaling, lambdas)
    if weight is not None:
        expected = expected @ weight + bias
    folded = fold(maps, scaling, lambdas, weight, bias)
    torch.testing.assert_close(folded(coordinates), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("mean", "rest"), OPTIONS)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "linear"])
def test_folded_is_what_fitting_saw(tower, name, mean, rest):
    maps, coordinates, spectra = tower
    scaling = build_scaling(METHODS[name], spectra, mean, rest, variance_threshold=0.8)
    lambdas, _, _ = _learned(METHODS[name], scaling)
    unfolded = adapted_output(coordinates, maps, scaling, lambdas)
    torch.testing.assert_close(fold(maps, scaling, lambdas)(coordinates), unfolded, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_folded_in_float32(tower, name):
    maps, coordinates, spectra = tower
    scaling = build_scaling(METHODS[name], spectra, variance_threshold=0.8)
    lambdas, weight, bias = _learned(METHODS[name], scaling)
    exact = fold(maps, scaling, lambdas, weight, bias)
    rounded = exact.to(dtype=torch.float32)(coordinates.to(dtype=torch.float32))
    assert rounded.dtype == torch.float32
    expected = exact(coordinates)
    assert (rounded - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["residual", "joint", "spectral-output"])
def test_lambdas_of_one_change_nothing_when_all_is_kept(tower, name):
    maps, coordinates, spectra = tower
    scaling = build_scaling(METHODS[name], spectra, "keep", "keep")
    folded = fold(maps, scaling, torch.ones(scaling.n_lambdas, dtype=torch.float64))
    torch.testing.assert_close(folded(coordinates), coordinates.output, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "needed"), [("residual", True), ("coarse", True), ("spectral-output", False), ("linear", False)]
)
def test_output_methods_read_no_units(tower, name, needed):
    maps, coordinates, spectra = tower
    scaling = build_scaling(METHODS[name], spectra)
    lambdas, weight, bias = _learned(METHODS[name], scaling)
    folded = fold(maps, scaling, lambdas, weight, bias)
    assert folded.needs_units is needed
    if not needed:
        assert torch.equal(folded.of_output(coordinates.output), folded(coordinates))


def test_images_do_not_see_each_other(tower):
    maps, coordinates, spectra = tower
    scaling = build_scaling(METHODS["residual"], spectra, "drop", "zero")
    folded = fold(maps, scaling, _learned(METHODS["residual"], scaling)[0])
    order = torch.from_numpy(np.random.default_rng(2).permutation(N))
    torch.testing.assert_close(folded(coordinates[order]), folded(coordinates)[order], rtol=1e-12, atol=1e-12)
    assert folded(coordinates[:0]).shape == (0, DIM)
