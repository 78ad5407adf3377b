"""Coefficients, features and what lambdas of one mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from residualign.decomposition.contributions import Contributions
from residualign.fitting.coefficients import adapted_output, build_features
from residualign.fitting.methods import METHODS, build_scaling
from tests.fitting.standin import make_spectra, make_store
from tests.reference import adapted_twin

SCALINGS = ("residual", "residual-heads", "coarse", "spectral-output")
MEANS, RESTS = ("drop", "keep"), ("keep", "mean", "zero")


@pytest.fixture(scope="module")
def store():
    return make_store()


@pytest.fixture(scope="module")
def spectra(store):
    return make_spectra(store.maps)


def scaling_of(method, spectra, mean="keep", rest="keep", threshold=0.6):
    return build_scaling(METHODS[method], spectra, mean, rest, threshold)


def random_lambdas(scaling, seed=3):
    return torch.randn(scaling.n_lambdas, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", SCALINGS)
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("rest", RESTS)
def test_adapted_embeddings_are_the_twins(store, spectra, method, mean, rest):
    scaling = scaling_of(method, spectra, mean, rest)
    lambdas = random_lambdas(scaling)
    coordinates = store.split("val").coordinates()[:11]
    parts = scaling.split(lambdas)
    units = {
        unit.label: (
            unit.mean.numpy(),
            None if unit.components is None else unit.components.numpy(),
            parts[unit.label].numpy(),
        )
        for unit in scaling.units
    }
    expected = adapted_twin.adapted(
        Contributions.of(coordinates, store.maps).values.numpy(),
        coordinates.output.numpy(),
        store.maps.units.labels,
        units,
        scaling.mean,
        scaling.rest,
        scaling.rest_mean.numpy(),
    )
    np.testing.assert_allclose(adapted_output(coordinates, store.maps, scaling, lambdas), expected, atol=1e-11)


def test_coefficients_are_the_centered_contributions_on_the_components(store, spectra):
    coordinates = store.split("val").coordinates()
    scaling = scaling_of("residual", spectra)
    values = build_features(coordinates, store.maps, scaling, torch.float64).values
    contributions = Contributions.of(coordinates, store.maps).values
    start = 0
    for unit in scaling.units:
        ours = values[:, start : start + unit.n_lambdas]
        start += unit.n_lambdas
        centered = contributions[:, store.maps.units.index(unit.label)] - unit.mean
        torch.testing.assert_close(ours, centered @ unit.components.T, rtol=0, atol=1e-11)
    assert start == values.shape[1]


@pytest.mark.parametrize("method", SCALINGS)
def test_ones_with_means_and_rest_kept_are_the_models_own_embedding(store, spectra, method):
    coordinates = store.split("test").coordinates()
    scaling = scaling_of(method, spectra, "keep", "keep")
    ones = torch.ones(scaling.n_lambdas, dtype=torch.float64)
    torch.testing.assert_close(
        adapted_output(coordinates, store.maps, scaling, ones), coordinates.output, rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("method", ["residual", "residual-heads", "spectral-output"])
def test_ones_with_means_dropped_are_the_embedding_less_the_scaled_units_means(store, spectra, method):
    coordinates = store.split("test").coordinates()
    scaling = scaling_of(method, spectra, "drop", "keep")
    ones = torch.ones(scaling.n_lambdas, dtype=torch.float64)
    means = sum(unit.mean for unit in scaling.units)
    torch.testing.assert_close(
        adapted_output(coordinates, store.maps, scaling, ones), coordinates.output - means, rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("method", SCALINGS)
def test_the_signs_of_components_mean_nothing(store, spectra, method):
    coordinates = store.split("test").coordinates()
    scaling = scaling_of(method, spectra, "drop", "keep")
    lambdas = random_lambdas(scaling)
    flipped = replace(
        scaling,
        units=tuple(
            unit if unit.components is None else replace(unit, components=unit.components * signs(unit))
            for unit in scaling.units
        ),
    )
    torch.testing.assert_close(
        adapted_output(coordinates, store.maps, flipped, lambdas),
        adapted_output(coordinates, store.maps, scaling, lambdas),
        rtol=0,
        atol=1e-11,
    )


def signs(unit):
    return torch.tensor([(-1.0) ** (i % 2) for i in range(unit.n_lambdas)], dtype=torch.float64)[:, None]


def test_output_level_lambdas_scale_components_and_not_coordinates(store, spectra):
    coordinates = store.split("test").coordinates()
    scaling = scaling_of("spectral-output", spectra, "keep")
    (unit,) = scaling.units
    lambdas = torch.ones(scaling.n_lambdas, dtype=torch.float64)
    lambdas[0] = 3.0
    change = adapted_output(coordinates, store.maps, scaling, lambdas) - coordinates.output
    along = change @ unit.components[0]
    torch.testing.assert_close(change, along[:, None] * unit.components[0], rtol=0, atol=1e-11)
    assert along.abs().max() > 0.1


@pytest.mark.parametrize("method", SCALINGS)
def test_above_the_size_guard_values_are_computed_again_and_are_the_same(store, spectra, method):
    coordinates = store.split("train").coordinates()
    scaling = scaling_of(method, spectra)
    held = build_features(coordinates, store.maps, scaling, torch.float64)
    size = held.values.numel() * 8
    assert build_features(coordinates, store.maps, scaling, torch.float64, max_bytes=size).values is not None
    recomputed = build_features(coordinates, store.maps, scaling, torch.float64, max_bytes=size - 1)
    assert recomputed.values is None
    lambdas, index = random_lambdas(scaling), torch.tensor([5, 2, 31, 2])
    for rows in (index, slice(None), slice(3, 40)):
        torch.testing.assert_close(recomputed.adapted(lambdas, rows), held.adapted(lambdas, rows), rtol=0, atol=1e-12)
    torch.testing.assert_close(recomputed.second_moment(), held.second_moment())


def test_scaling_the_smaller_side_changes_nothing(store, spectra):
    """Fewer images than dimensions and more: two orders of the same product."""
    features = build_features(
        store.split("train").coordinates(), store.maps, scaling_of("residual", spectra), torch.float64
    )
    lambdas = random_lambdas(scaling_of("residual", spectra))
    whole = features.adapted(lambdas, slice(None))
    few = torch.cat([features.adapted(lambdas, slice(i, i + 5)) for i in range(0, len(features), 5)])
    torch.testing.assert_close(whole, few, rtol=0, atol=1e-12)


def test_the_second_moment_is_the_mean_squared_length_of_a_component(store, spectra):
    scaling = scaling_of("residual-heads", spectra)
    coordinates = store.split("train").coordinates()
    base = adapted_output(coordinates, store.maps, scaling, torch.zeros(scaling.n_lambdas, dtype=torch.float64))
    moments = build_features(coordinates, store.maps, scaling, torch.float64).second_moment()
    for k in (0, scaling.n_lambdas - 1):
        one = torch.zeros(scaling.n_lambdas, dtype=torch.float64)
        one[k] = 1.0
        alone = adapted_output(coordinates, store.maps, scaling, one) - base
        assert moments[k].item() == pytest.approx(alone.square().sum(dim=-1).mean().item(), rel=1e-9)


@pytest.mark.parametrize(
    ("method", "mean", "rest", "free"),
    [
        ("residual-heads", "drop", "zero", True),
        ("residual-heads", "keep", "zero", False),
        ("residual-heads", "drop", "keep", False),
        ("coarse", None, "zero", True),
        ("coarse", None, "keep", False),
        ("spectral-output", "drop", None, True),
        ("spectral-output", "keep", None, False),
    ],
)
def test_where_a_common_factor_of_the_lambdas_changes_no_cosine(store, spectra, method, mean, rest, free):
    scaling = build_scaling(METHODS[method], spectra, mean, rest)
    coordinates = store.split("test").coordinates()
    once, twice = (
        torch.nn.functional.normalize(
            adapted_output(coordinates, store.maps, scaling, factor * random_lambdas(scaling)), dim=-1
        )
        for factor in (1.0, 2.0)
    )
    assert scaling.scale_free is free
    assert torch.allclose(once, twice, atol=1e-9) is free


def test_split_and_join_are_inverse(spectra):
    scaling = scaling_of("residual", spectra)
    lambdas = random_lambdas(scaling)
    assert list(scaling.split(lambdas)) == [unit.label for unit in scaling.units]
    torch.testing.assert_close(scaling.join(scaling.split(lambdas)), lambdas, rtol=0, atol=0)


def test_float32_is_good_enough(store, spectra):
    scaling = scaling_of("residual", spectra)
    lambdas = random_lambdas(scaling)
    coordinates = store.split("test").coordinates()
    exact = adapted_output(coordinates, store.maps, scaling, lambdas)
    coarse = adapted_output(coordinates.to(dtype=torch.float32), store.maps, scaling, lambdas.float())
    # some 40 products of numbers of size one
    torch.testing.assert_close(coarse.double(), exact, rtol=0, atol=2e-4)
