"""Grids of settings: which runs there are, what each fits, and how they are summarized."""

from __future__ import annotations

from dataclasses import replace
from statistics import stdev

import pytest
import torch

from residualign.errors import BadInputError
from residualign.fitting.methods import METHODS, build_scaling, component_scaling
from residualign.fitting.sweep import (
    FACTORS,
    Run,
    Setting,
    factor_levels,
    run_setting,
    settings_of,
    summarize_runs,
)
from residualign.spectrum import truncate
from tests.fitting.standin import fit, make_spectra, make_store

USUAL = Setting("all", "both", "target", "ones", "none", 0)


@pytest.fixture(scope="module")
def store():
    return make_store(text=True)


@pytest.fixture(scope="module")
def spectra(store):
    return make_spectra(store.maps)


def same_scaling(one, other):
    assert (one.mean, one.rest) == (other.mean, other.rest)
    torch.testing.assert_close(one.rest_mean, other.rest_mean, rtol=0, atol=0)
    assert [unit.label for unit in one.units] == [unit.label for unit in other.units]
    for a, b in zip(one.units, other.units, strict=True):
        assert torch.equal(a.components, b.components)
        assert torch.equal(a.mean, b.mean)


def test_settings_that_are_methods_scale_what_the_methods_scale(spectra):
    same_scaling(USUAL.scaling(spectra), build_scaling(METHODS["residual"], spectra))
    heads = replace(USUAL, components="70%", scaled="heads")
    for mean in ("drop", "keep"):
        expected = build_scaling(METHODS["residual-heads"], spectra, mean, "zero", variance_threshold=0.7)
        same_scaling(heads.scaling(spectra, mean, "zero"), expected)


def test_components_are_a_share_a_count_or_all(spectra):
    for unit in replace(USUAL, components="60%", scaled="mlps").scaling(spectra).units:
        assert ".mlp" in unit.label
        assert torch.equal(unit.components, truncate(spectra[unit.label], 0.6).components)
    for unit in replace(USUAL, components="3", scaled="heads").scaling(spectra).units:
        assert torch.equal(unit.components, spectra[unit.label].components[:3])
    same_scaling(replace(USUAL, components="100%").scaling(spectra), USUAL.scaling(spectra))
    same_scaling(replace(USUAL, components="999").scaling(spectra), USUAL.scaling(spectra))
    with pytest.raises(BadInputError, match="at least one component, got 0"):
        component_scaling(spectra, count=0)


def test_a_scaling_that_is_given_is_the_one_that_is_fitted(store, spectra):
    scaling = component_scaling(spectra, ("mlp",), variance_threshold=0.5)
    result = fit(store, "residual", spectra, scaling=scaling)
    assert result.scaling is scaling
    assert result.parameters == scaling.n_lambdas
    assert (
        fit(store, "residual", spectra, scaling=USUAL.scaling(spectra)).accuracy == fit(store, spectra=spectra).accuracy
    )


def test_a_run_is_its_fit(store, spectra):
    bases = {"target": make_spectra(store.maps, seed=3), "reference": spectra}
    setting = Setting("80%", "heads", "reference", "randn", "0.5", 4)
    run = run_setting(store, bases, setting, classifier="means", rest="zero", mean="drop", shots=7)
    expected = fit(
        store,
        "residual-heads",
        spectra,
        classifier="means",
        shots=7,
        solver=setting.solver(),
        start="randn",
        variance_threshold=0.8,
        mean="drop",
        seed=4,
    )
    assert (run.val, run.test) == (expected.accuracy["val"], expected.accuracy["adapted"])
    assert run.zero_shot == expected.accuracy["zero_shot"]
    assert (run.parameters, run.epochs, run.found_learning_rate) == (expected.parameters, expected.epochs, 0.5)
    again = run_setting(store, bases, setting, classifier="means", rest="zero", mean="drop", shots=7)
    assert replace(again, seconds=0.0) == replace(run, seconds=0.0)
    assert Run.from_json(run.to_json()) == run


def test_every_combination_once_and_seeds_where_they_matter():
    arguments = (["all", "8", "all"], ["heads"], ["target"], ["ones", "randn"], ["none", "0.8"])
    found = settings_of(*arguments, seeds=range(5, 8))
    assert len(set(found)) == len(found) == 2 * (1 + 3 + 3 + 3)
    alone = [one for one in found if (one.start, one.learning_rate) == ("ones", "none")]
    assert [one.seed for one in alone] == [5, 5]
    assert len(settings_of(*arguments, seeds=range(3), seeds_always_matter=True)) == 2 * 4 * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": "0"}, "components are 'all'"),
        ({"components": "0%"}, "components are 'all'"),
        ({"components": "101%"}, "components are 'all'"),
        ({"components": "1.5"}, "components are 'all'"),
        ({"components": "most"}, "components are 'all'"),
        ({"scaled": "embedding"}, "scaled is one of heads, mlps, both, got 'embedding'"),
        ({"start": "zeros"}, "start is one of ones, randn"),
        ({"learning_rate": "0"}, "a learning rate is a positive number"),
        ({"learning_rate": "nan"}, "a learning rate is a positive number"),
        ({"learning_rate": "fast"}, "a learning rate is a positive number"),
    ],
)
def test_levels_that_do_not_exist_are_refused(change, message):
    with pytest.raises(BadInputError, match=message):
        replace(USUAL, **change)


def made(val, test, seed=0, parameters=10, **factors):
    return Run(replace(USUAL, seed=seed, **factors), val, test, 0.5, parameters, 3, None, 1.0)


def test_means_and_spread_over_seeds():
    runs = [made(0.5, 0.4, 0, start="randn"), made(0.7, 0.8, 1, start="randn"), made(0.55, 0.6)]
    first, second = summarize_runs(runs)
    assert dict(zip(FACTORS, first.factors, strict=True))["start"] == "randn"
    assert (first.n_seeds, second.n_seeds) == (2, 1)
    assert (first.val, first.test) == (pytest.approx(0.6), pytest.approx(0.6))
    assert first.test_sd == pytest.approx(stdev([0.4, 0.8]))
    assert first.val_sd == pytest.approx(stdev([0.5, 0.7]))
    assert first.seconds == 1.0
    assert second.test_sd is second.val_sd is None
    (alone,) = summarize_runs([made(0.5, None, 0, start="randn"), made(0.6, None, 1, start="randn")])
    assert alone.test is alone.test_sd is None


def test_levels_are_judged_by_validation_and_then_by_size():
    runs = [
        made(0.8, 0.5, components="8", parameters=8),
        made(0.8, 0.7, components="all", parameters=99),
        made(0.9, 0.6, components="8", scaled="heads"),
    ]
    levels = {(one.factor, one.level): one for one in factor_levels(summarize_runs(runs))}
    assert set(levels) >= {("components", "8"), ("components", "all"), ("scaled", "heads"), ("scaled", "both")}
    assert levels["scaled", "both"].best.parameters == 8
    assert levels["components", "8"].best.test == 0.6
    assert levels["components", "8"].test == pytest.approx(0.55)
    assert levels["scaled", "both"].n_settings == 2
