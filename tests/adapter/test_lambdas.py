"""Which lambdas moved, and accuracy as they are put back to one."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from residualign.adapter.fit import adapter_from_fit
from residualign.adapter.lambdas import learning_curve, put_back_curve, shown_lambdas
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT
from residualign.fitting.methods import METHODS
from residualign.spectrum import Moments
from tests.adapter.make_adapter import random_result
from tests.fitting.standin import CLASSES, fit, make_spectra, make_store

METHODS_WITH_LAMBDAS = [name for name in METHODS if "lambdas" in METHODS[name].learns]


def make(method, mean=None, rest=None):
    store = make_store()
    spectra = make_spectra(store.maps)
    result = random_result(spectra, method, mean, rest, classes=CLASSES)
    test = store.split("test")
    return adapter_from_fit(result, store.maps, store.model, spectra), spectra, test.coordinates(), test.labels


def with_lambdas(adapter, lambdas):
    return replace(adapter, learned={**adapter.learned, "lambdas": lambdas})


@pytest.mark.parametrize("order", ["largest", "smallest", "random"])
@pytest.mark.parametrize("method", METHODS_WITH_LAMBDAS)
@pytest.mark.parametrize(("mean", "rest"), [(None, None), ("drop", "zero"), ("keep", "mean")])
def test_every_point_is_the_accuracy_of_the_adapter_folded_anew(method, mean, rest, order):
    adapter, spectra, coordinates, labels = make(method, mean, rest)
    curve = put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra, order=order, points=7, seed=3)
    moved = adapter.moved(spectra)
    lambdas = adapter.learned["lambdas"].double()
    if adapter.full_scaling.scale_free:
        lambdas = lambdas / lambdas.square().mean().sqrt()
    assert curve.put_back[0] == 0
    assert curve.put_back[-1] == len(lambdas)
    if order == "random":
        ranked = torch.randperm(len(lambdas), generator=torch.Generator().manual_seed(3)).tolist()
    else:
        starts = {unit.label: i for i, unit in zip_starts(adapter)}
        ranked = [starts[one.label] + (one.component or 0) for one in moved]
        ranked = ranked if order == "largest" else ranked[::-1]
    for count, accuracy in zip(curve.put_back, curve.accuracy, strict=True):
        changed = lambdas.clone()
        changed[ranked[:count]] = 1.0
        logits = with_lambdas(adapter, changed).logits(coordinates)
        assert accuracy == pytest.approx(float((logits.argmax(dim=-1) == labels).double().mean()), abs=1e-12)
    assert len(set(curve.accuracy)) > 1 or method == "coarse"


@pytest.mark.parametrize(
    ("method", "mean", "rest", "divided"),
    [("residual-heads", None, None, False), ("residual-heads", "drop", "zero", True), ("residual", None, None, False),
     ("coarse", None, None, True), ("residual", "drop", "keep", False)],
)  # fmt: skip
def test_lambdas_are_over_their_root_mean_square_where_a_common_factor_changes_no_class(method, mean, rest, divided):
    adapter, spectra, coordinates, _ = make(method, mean, rest)
    as_learned = adapter.learned["lambdas"].double()
    shown = torch.cat(list(shown_lambdas(adapter).values()))
    rms = as_learned.square().mean().sqrt()
    torch.testing.assert_close(shown, as_learned / rms if divided else as_learned)
    # the same numbers everywhere
    assert sorted(one.value for one in adapter.moved(spectra)) == pytest.approx(sorted(shown.tolist()))
    # and the reason: only there do tenfold lambdas give the same cosines
    cosines = [
        torch.nn.functional.normalize(with_lambdas(adapter, factor * as_learned).embed_coordinates(coordinates), dim=-1)
        for factor in (1, 10)
    ]
    assert torch.allclose(*cosines, atol=1e-9) == divided


def zip_starts(adapter):
    first = 0
    for unit in adapter.full_scaling.units:
        yield first, unit
        first += unit.n_lambdas


def test_logits_along_the_curve_are_those_of_the_folded_adapter(monkeypatch):
    """Accuracies alone would forgive small errors."""
    adapter, spectra, coordinates, labels = make("residual", "drop")
    seen = []
    original = type(adapter.classifier).logits

    def watched(self, embeddings):
        seen.append(embeddings.clone())
        return original(self, embeddings)

    monkeypatch.setattr(type(adapter.classifier), "logits", watched)
    put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra, order="random", points=5, seed=1)
    monkeypatch.undo()
    lambdas = adapter.learned["lambdas"].double()
    ranked = torch.randperm(len(lambdas), generator=torch.Generator().manual_seed(1))
    back = round(len(lambdas) / 2)
    changed = lambdas.clone()
    changed[ranked[:back]] = 1.0
    torch.testing.assert_close(
        seen[2], with_lambdas(adapter, changed).embed_coordinates(coordinates), rtol=0, atol=1e-10
    )
    assert len(seen) == 5


def test_chunks_and_recomputed_coefficients_change_nothing(monkeypatch):
    from residualign.adapter import lambdas as reading
    from residualign.fitting import coefficients

    adapter, spectra, coordinates, labels = make("residual")
    whole = put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra)
    monkeypatch.setattr(coefficients, "_CHUNK", 13)
    built = reading.build_features
    monkeypatch.setattr(reading, "build_features", lambda *given: built(*given, max_bytes=0))
    assert put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra) == whole


@pytest.mark.parametrize("method", METHODS_WITH_LAMBDAS)
def test_effects_are_lengths_of_what_the_embedding_gains(method):
    """Over the images of the spectra themselves: the change of the embedding when one lambda goes to one."""
    adapter, _, coordinates, _ = make(method)
    maps = adapter.maps
    moments = Moments.empty(maps)
    moments.update(coordinates)
    spectra = moments.spectra(maps, source="these images")
    moved = adapter.moved(spectra)
    assert len(moved) == adapter.full_scaling.n_lambdas
    assert all(one.effect >= other.effect for one, other in itertools.pairwise(moved))
    lambdas = adapter.learned["lambdas"].double()
    if adapter.full_scaling.scale_free:
        lambdas = lambdas / lambdas.square().mean().sqrt()
    before = with_lambdas(adapter, lambdas).embed_coordinates(coordinates)
    starts = {unit.label: first for first, unit in zip_starts(adapter)}
    n = len(coordinates)
    for one in moved[:: max(len(moved) // 9, 1)]:
        changed = lambdas.clone()
        changed[starts[one.label] + (one.component or 0)] = 1.0
        gained = before - with_lambdas(adapter, changed).embed_coordinates(coordinates)
        # variances are over n - 1, lengths here over n
        length = gained.square().sum(dim=1).mean().sqrt().item()
        assert length == pytest.approx(one.effect, rel=1 / n)
        spread = (gained - gained.mean(dim=0)).square().sum().item() / (n - 1)
        assert spread**0.5 == pytest.approx(abs(one.value - 1) * one.explained_variance**0.5, rel=1e-6)


def test_without_spectra_the_effect_is_the_distance_from_one():
    adapter, _, _, _ = make("residual")
    moved = adapter.moved()
    assert moved[0].explained_variance is None
    assert moved[0].effect == abs(moved[0].value - 1)
    assert moved[0].to_json()["lambda"] == moved[0].value


def test_the_whole_embedding_is_a_unit_of_its_own():
    adapter, spectra, _, _ = make("spectral-output")
    assert {one.label for one in adapter.moved(spectra)} == {OUTPUT}


def test_how_many_carry_the_gain():
    adapter, spectra, coordinates, labels = make("residual")
    curve = put_back_curve(adapter.adapted, coordinates, labels, spectra=spectra)
    curve = replace(curve, put_back=(0, 1, 2, 3), accuracy=(0.9, 0.8, 0.55, 0.5))
    assert curve.needed_for(0.5) == 2
    assert curve.needed_for(0.0) == 3
    assert curve.needed_for(1.0) == 0
    rows = curve.tables["put_back"]
    assert rows[2] == {"order": "largest", "seed": None, "put_back": 2, "accuracy": 0.55}
    assert [row["put_back"] for row in rows] == [0, 1, 2, 3]


def test_bad_input():
    adapter, _, coordinates, labels = make("residual")
    linear, *_ = make("linear")
    with pytest.raises(BadInputError, match="'linear' has no lambdas"):
        linear.moved()
    with pytest.raises(BadInputError, match="has no lambdas"):
        put_back_curve(linear.adapted, coordinates, labels)
    with pytest.raises(BadInputError, match="order is one of largest, smallest, random; got 'biggest'"):
        put_back_curve(adapter.adapted, coordinates, labels, order=copy.copy("biggest"))
    with pytest.raises(BadInputError, match="points is at least 2"):
        put_back_curve(adapter.adapted, coordinates, labels, points=1)
    with pytest.raises(BadInputError, match="got 58 labels for 59 images"):
        put_back_curve(adapter.adapted, coordinates, labels[:-1])


def test_learning_curves_of_both_solvers():
    history = [
        {"solver": "learning-rate-finder", "learning_rate": 0.1, "steps": 60, "val_loss": None, "seconds": 0.1},
        {"solver": "lbfgs", "pull": {"lambdas": 0.1, "class_residual": "frozen"}, "whitening": 0.25, "iteration": 1,
         "train_loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.5, "seconds": 0.1},
        {"solver": "lbfgs", "pull": {"lambdas": 0.0}, "whitening": 0.5, "iteration": 1,
         "train_loss": 2.0, "val_loss": 1.4, "val_accuracy": 0.6, "seconds": 0.2},
        {"solver": "lbfgs", "pull": {"lambdas": 0.0}, "whitening": 0.5, "iteration": 2,
         "train_loss": 1.0, "val_loss": 1.3, "val_accuracy": 0.7, "seconds": 0.3},
        {"solver": "schedule-free", "epoch": 1, "train_loss": 1.0, "val_loss": 0.5, "val_accuracy": 0.75, "seconds": 1},
        {"note": "of another program"},
    ]  # fmt: skip
    curves = learning_curve(history)
    assert [curve.candidate for curve in curves] == [
        "", "L2 penalty on lambdas 0.1, class residual frozen, whitening 0.25",
        "L2 penalty on lambdas 0, whitening 0.5", "",
    ]  # fmt: skip
    assert [curve.step_name for curve in curves] == ["learning_rate", "iteration", "iteration", "epoch"]
    assert [point.step for point in curves[2].points] == [1, 2]
    assert curves[2].points[1].val_accuracy == 0.7
    assert curves[0].points[0].val_loss is None
    assert curves[3].rows()[0]["val_loss"] == 0.5


def test_the_history_of_real_fits_gives_curves():

    store = make_store(sizes={"train": 41, "val": 23, "test": 11})
    for solver, names in (("lbfgs", {"iteration"}), ("schedule-free", {"learning_rate", "epoch"})):
        result = fit(store, "joint", solver=solver)
        curves = learning_curve(result.history)
        assert {curve.step_name for curve in curves} == names
        assert sum(len(curve.points) for curve in curves) == len(result.history)
        assert len({(curve.solver, curve.candidate) for curve in curves}) == len(curves)
