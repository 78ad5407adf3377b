"""Which numbers each method learns."""

from __future__ import annotations

import pytest
import torch

from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT
from residualign.fitting.methods import METHODS, build_scaling, get_method, start_parameters
from residualign.spectrum import truncate
from tests.fitting.standin import CLASSES, make_spectra, make_store
from tests.spectrum.random_tower import DIM, HEADS, LAYERS


@pytest.fixture(scope="module")
def spectra():
    return make_spectra(make_store().maps)


@pytest.mark.parametrize("method", ["residual", "joint"])
def test_every_component_of_every_head_and_mlp_is_scaled(spectra, method):
    scaling = build_scaling(METHODS[method], spectra)
    assert [unit.label for unit in scaling.units] == [label for label in spectra.units.labels if label != "embedding"]
    assert scaling.n_lambdas == sum(spectra[unit.label].n_components for unit in scaling.units)


def test_residual_heads_keeps_the_leading_components(spectra):
    scaling = build_scaling(METHODS["residual-heads"], spectra, variance_threshold=0.7)
    assert len(scaling.units) == LAYERS * HEADS
    assert scaling.rest == "zero"
    for unit in scaling.units:
        torch.testing.assert_close(unit.components, truncate(spectra[unit.label], 0.7).components)
        assert 0 < unit.n_lambdas < spectra[unit.label].n_components


def test_coarse_has_one_lambda_a_head(spectra):
    scaling = build_scaling(METHODS["coarse"], spectra, mean="drop")
    assert scaling.n_lambdas == LAYERS * HEADS
    assert (scaling.mean, scaling.rest) == ("keep", "zero")


def test_spectral_output_scales_the_embedding_and_has_no_rest(spectra):
    scaling = build_scaling(METHODS["spectral-output"], spectra, rest="zero")
    assert [unit.label for unit in scaling.units] == [OUTPUT]
    assert scaling.rest == "keep"


def test_the_mean_of_the_rest_is_that_of_the_spectrums_images(spectra):
    scaling = build_scaling(METHODS["residual-heads"], spectra, rest="mean")
    expected = spectra["embedding"].mean + spectra["L0.mlp"].mean + spectra["L1.mlp"].mean
    torch.testing.assert_close(scaling.rest_mean, expected)


@pytest.mark.parametrize(
    ("method", "learned"),
    [
        ("residual", {"lambdas"}),
        ("coarse", {"lambdas"}),
        ("linear", {"map", "bias"}),
        ("joint", {"lambdas", "class_residual"}),
    ],
)
def test_what_is_learned_and_where_it_starts(spectra, method, learned):
    scaling = build_scaling(METHODS[method], spectra)
    start = start_parameters(METHODS[method], scaling, len(CLASSES), DIM)
    assert set(start) == learned
    expected = {
        "lambdas": torch.ones(scaling.n_lambdas),
        "map": torch.eye(DIM),
        "bias": torch.zeros(DIM),
        "class_residual": torch.zeros(len(CLASSES), DIM),
    }
    for name, value in start.items():
        torch.testing.assert_close(value, expected[name].double(), rtol=0, atol=0)


def test_a_random_start_is_one_plus_noise_and_seeded():
    scaling = build_scaling(METHODS["residual"], make_spectra(make_store().maps))
    first, again, other = (
        start_parameters(METHODS["residual"], scaling, 3, DIM, "randn", seed)["lambdas"] for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert abs(first.mean().item() - 1.0) < 0.4
    assert 0.7 < first.std().item() < 1.3


@pytest.mark.parametrize(("name", "reason"), [("select", "learns nothing"), ("finetune", "trains the encoder")])
def test_methods_that_are_not_fitted_are_refused_with_the_reason(name, reason):
    with pytest.raises(BadInputError, match=reason):
        get_method(name)


def test_an_unknown_method_is_refused_and_the_known_ones_are_named():
    with pytest.raises(
        BadInputError,
        match=r"no method 'residuals' \(did you mean residual.*\?\); methods are residual, res",
    ):
        get_method("residuals")


@pytest.mark.parametrize(
    "options", [{"mean": "median"}, {"rest": "drop"}, {"variance_threshold": 0.0}, {"variance_threshold": 1.5}], ids=str
)
def test_options_out_of_range_are_refused(spectra, options):
    with pytest.raises(BadInputError, match=next(iter(options))):
        build_scaling(METHODS["residual-heads"], spectra, **options)


def test_an_unknown_start_is_refused(spectra):
    scaling = build_scaling(METHODS["residual"], spectra)
    with pytest.raises(BadInputError, match="start is one of"):
        start_parameters(METHODS["residual"], scaling, 3, DIM, "zeros")
