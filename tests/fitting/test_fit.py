"""fit(): what it reads, what it hands back, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from residualign.classification.classifier import class_means, text_classifier
from residualign.errors import BadInputError
from residualign.fitting.fit import few_shots
from residualign.fitting.methods import METHODS
from residualign.fitting.solvers import LBFGS, Candidate, ScheduleFree
from residualign.spectrum import Moments
from residualign.store import Store
from residualign.store.reader import StoreReader
from tests.fitting.standin import CLASSES, SIZES, fit, make_spectra, make_store, with_split

QUICK = LBFGS([Candidate()], max_iterations=15)


@pytest.fixture(scope="module")
def store():
    return make_store(separation=0.5)


@pytest.fixture(scope="module")
def spectra(store):
    return make_spectra(store.maps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", ["lbfgs", "schedule-free"])
def test_every_method_fits_with_both_solvers(store, spectra, method, solver):
    result = fit(store, method, spectra, solver=solver, dtype=torch.float64)
    assert result.method == method
    assert set(result.accuracy) == {"zero_shot", "adapted", "zero_shot_val", "val"}
    assert all(0 <= value <= 1 for value in result.accuracy.values())
    assert result.parameters == sum(value.numel() for value in result.learned.values())
    assert (result.learning_rate is None) == (solver == "lbfgs")
    assert result.epochs > 0
    assert result.seconds > 0
    assert json.loads(json.dumps(result.settings)) == result.settings
    assert result.settings["n_train"] == SIZES["train"]


def equal_images(store):
    """The store with copies of one image in every split."""
    for name in store.splits:
        part = store.split(name)
        store = with_split(store, name, part.labels, part.coordinates()[torch.zeros(len(part), dtype=torch.int64)])
    return store


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", ["lbfgs", "schedule-free"])
def test_equal_training_images_are_said_to_be_equal(store, spectra, method, solver):
    with pytest.raises(BadInputError, match=f"nothing varies: all {SIZES['train']} training images have the same"):
        fit(equal_images(store), method, spectra, solver=solver)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", ["lbfgs", "schedule-free"])
@pytest.mark.parametrize(("n", "seen"), [(1, "1 image"), (5, "5 images, all the same to the model")])
def test_spectra_without_components_leave_nothing_to_scale(store, method, solver, n, seen):
    one = store.split("train").coordinates()[torch.zeros(n, dtype=torch.int64)]
    empty = Moments.empty(store.maps).update(one).spectra(store.maps, source="copies")
    if method in ("coarse", "linear"):
        # these take no components
        assert 0 <= fit(store, method, empty, solver=solver).accuracy["val"] <= 1
        return
    with pytest.raises(BadInputError, match=rf"nothing varies: the spectra \(copies\) are of {seen}, so .*'{method}'"):
        fit(store, method, empty, solver=solver)


def test_parameters_count_learned_numbers_and_nothing_else(store, spectra):
    counts = {method: fit(store, method, spectra, solver=QUICK).parameters for method in METHODS}
    dim = store.maps.dim
    every = sum(spectra[unit.label].n_components for unit in spectra.units.of_kind("head", "mlp"))
    assert counts["residual"] == every
    assert counts["joint"] == every + len(CLASSES) * dim
    assert counts["coarse"] == len(spectra.units.of_kind("head"))
    assert counts["linear"] == dim * dim + dim
    assert counts["spectral-output"] == spectra.output.n_components
    assert 0 < counts["residual-heads"] < every


@pytest.mark.parametrize("method", METHODS)
def test_the_result_predicts_what_it_says(store, spectra, method):
    """Accuracy from the numbers handed back alone, on the test split and on validation."""
    result = fit(store, method, spectra, solver=QUICK, dtype=torch.float64)
    for name, key in (("test", "adapted"), ("val", "val")):
        part = store.split(name)
        predicted = result.logits(part.coordinates(), store.maps).argmax(dim=-1)
        assert result.accuracy[key] == (predicted == part.labels).double().mean().item()
    for name, key in (("test", "zero_shot"), ("val", "zero_shot_val")):
        part = store.split(name)
        predicted = result.base_classifier.logits(part.coordinates().output).argmax(dim=-1)
        assert result.accuracy[key] == (predicted == part.labels).double().mean().item()
    assert [tuple(row.values()) for row in result.tables["accuracy"]] == [
        ("test", SIZES["test"], result.accuracy["zero_shot"], result.accuracy["adapted"]),
        ("validation", SIZES["val"], result.accuracy["zero_shot_val"], result.accuracy["val"]),
    ]
    assert result.settings["threshold"] == (0.9 if method == "residual-heads" else None)


def test_lambdas_come_by_label_in_unit_order(store, spectra):
    lambdas = fit(store, "residual", spectra, solver=QUICK).lambdas
    assert list(lambdas) == [unit.label for unit in spectra.units if unit.kind != "embedding"]
    assert all(len(value) == spectra[label].n_components for label, value in lambdas.items())
    assert fit(store, "linear", spectra, solver=QUICK).lambdas == {}


@pytest.mark.parametrize(
    ("method", "mean"), [("residual-heads", "drop"), ("coarse", None), ("spectral-output", "drop")]
)
def test_lambdas_are_over_their_root_mean_square_where_a_factor_means_nothing(store, spectra, method, mean):
    result = fit(store, method, spectra, solver=QUICK, mean=mean, dtype=torch.float64)
    assert result.learned["lambdas"].square().mean().item() == pytest.approx(1.0, abs=1e-12)


def test_lambdas_are_as_fitted_where_their_size_matters(store, spectra):
    result = fit(store, "residual", spectra, solver=QUICK, dtype=torch.float64)
    assert abs(result.learned["lambdas"].square().mean().item() - 1.0) > 1e-6


def test_the_signs_of_components_change_nothing(store, spectra):
    flipped = replace(
        spectra,
        spectrums=tuple(replace(one, components=-one.components) for one in spectra.spectrums),
        output=replace(spectra.output, components=-spectra.output.components),
    )
    for method in ("residual", "spectral-output"):
        one, other = (fit(store, method, s, solver=QUICK, dtype=torch.float64) for s in (spectra, flipped))
        torch.testing.assert_close(one.learned["lambdas"], other.learned["lambdas"], rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_result(store, spectra):
    solver = ScheduleFree(0.1, max_epochs=3)
    one, again, other = (fit(store, spectra=spectra, solver=solver, start="randn", seed=s) for s in (1, 1, 2))
    assert torch.equal(one.learned["lambdas"], again.learned["lambdas"])
    assert not torch.equal(one.learned["lambdas"], other.learned["lambdas"])


def test_text_is_the_default_where_there_is_text_and_means_elsewhere():
    assert fit(make_store(), solver=QUICK).settings["classifier"] == "means"
    with_text = make_store(text=True)
    result = fit(with_text, solver=QUICK)
    assert (result.settings["classifier"], result.classifier.logit_scale) == ("text", with_text.logit_scale)
    assert fit(with_text, solver=QUICK, classifier="means").settings["classifier"] == "means"


def test_a_ready_classifier_is_used_as_it_is(store, spectra):
    ready = text_classifier(torch.randn(len(CLASSES), store.maps.dim), CLASSES, 5.0)
    result = fit(store, spectra=spectra, classifier=ready, solver=QUICK)
    assert result.base_classifier is ready


def test_class_means_of_other_images_cannot_leave_one_out(store, spectra):
    part = store.split("val")
    other = class_means(part.coordinates().output, part.labels, CLASSES)
    with pytest.raises(BadInputError, match="other images"):
        fit(store, spectra=spectra, classifier=other, solver=QUICK)


def test_a_class_residual_is_part_of_the_final_classifier(store, spectra):
    solver = LBFGS([Candidate()], max_iterations=10)
    result = fit(store, "joint", spectra, solver=solver, dtype=torch.float64)
    expected = torch.nn.functional.normalize(result.base_classifier.vectors + result.learned["class_residual"], dim=-1)
    torch.testing.assert_close(result.classifier.vectors, expected)
    assert result.classifier.sums is None


def test_without_spectra_those_of_the_training_images_serve(store):
    result = fit(store, solver=QUICK)
    assert result.settings["spectra"] == "training split"
    mean = result.scaling.units[0].mean
    part = store.split("train").coordinates()
    expected = store.maps.contribution(part, store.maps.units.get(result.scaling.units[0].label)).mean(dim=0)
    torch.testing.assert_close(mean, expected)


def test_every_split_is_read_once_and_test_last(spectra, monkeypatch):
    order, store = [], Store.open(make_store().path)
    read = StoreReader.rows
    monkeypatch.setattr(
        StoreReader, "rows", lambda reader, split, *rest: order.append(split) or read(reader, split, *rest)
    )
    fit(store, spectra=spectra, solver=QUICK)
    assert order == ["train", "val", "test"]


def test_without_test_images_there_is_no_test_accuracy(store, spectra):
    part = store.split("test")
    empty = with_split(store, "test", part.labels[:0], part.coordinates()[:0])
    result = fit(empty, spectra=spectra, solver=QUICK)
    assert (result.accuracy["zero_shot"], result.accuracy["adapted"]) == (None, None)
    assert result.accuracy["val"] is not None


@pytest.mark.parametrize("name", ["train", "val"])
def test_fitting_needs_training_and_validation_images(store, spectra, name):
    part = store.split(name)
    empty = with_split(store, name, part.labels[:0], part.coordinates()[:0])
    with pytest.raises(BadInputError, match=f"needs {name} images"):
        fit(empty, spectra=spectra)


@pytest.mark.parametrize("shots", [1, 3, 4, 5, 1000])
def test_shots_are_so_many_images_a_class_and_seeded(shots):
    labels = torch.randint(0, 5, (211,))
    chosen = few_shots(labels, shots, seed=3)
    counts, all_counts = torch.bincount(labels[chosen], minlength=5), torch.bincount(labels, minlength=5)
    assert torch.equal(counts, all_counts.clamp(max=shots))
    assert torch.equal(chosen, few_shots(labels, shots, seed=3))
    assert len(set(chosen.tolist())) == len(chosen)
    if shots < 1000:
        assert not torch.equal(chosen, few_shots(labels, shots, seed=4))


def test_the_images_of_few_shots_never_change():
    """Pinned: published results and adapters were fitted on them."""
    assert few_shots(torch.tensor([0, 1] * 10), 3, seed=42).tolist() == [2, 3, 4, 5, 12, 13]


def test_few_shots_use_at_most_four_validation_images_a_class(store, spectra):
    sizes = {}
    for shots in (2, 6):
        settings = fit(store, spectra=spectra, shots=shots, solver=QUICK).settings
        sizes[shots] = settings["n_train"], settings["n_val"], settings["n_test"]
    assert sizes == {2: (6, 6, SIZES["test"]), 6: (18, 12, SIZES["test"])}


def test_the_seed_draws_the_images_of_few_shots(store, spectra):
    one, other = (fit(store, "coarse", spectra, shots=4, seed=s, solver=QUICK) for s in (0, 1))
    assert not torch.equal(one.learned["lambdas"], other.learned["lambdas"])


def test_the_rest_of_the_images_is_not_used_by_few_shots(store):
    """Neither for class means nor for spectra: other images may hold anything."""
    part = store.split("train")
    used = few_shots(part.labels, 4, seed=0)
    spoiled = replace(part.coordinates(), heads=part.coordinates().heads.clone())
    others = torch.ones(len(part), dtype=torch.bool)
    others[used] = False
    spoiled.heads[others] = 1e3
    other_store = with_split(store, "train", part.labels, spoiled)
    one, other = (fit(s, solver=QUICK, shots=4) for s in (make_store(separation=0.5), other_store))
    assert torch.equal(one.learned["lambdas"], other.learned["lambdas"])


def test_one_shot_needs_text(store, spectra):
    with pytest.raises(BadInputError, match="has one training image"):
        fit(store, spectra=spectra, shots=1)
    assert fit(make_store(text=True), spectra=spectra, shots=1, solver=QUICK).settings["n_train"] == len(CLASSES)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "finetune"}, "trains the encoder"),
        ({"classifier": "centroids"}, "classifier is 'text' or 'means'"),
        ({"classifier": "text"}, "no class vectors from text"),
        ({"shots": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_used_is_refused(store, options, reason):
    with pytest.raises(BadInputError, match=reason):
        fit(store, **options)


def test_recomputing_coefficients_gives_the_same_fit(store, spectra):
    for solver in (QUICK, ScheduleFree(0.1, max_epochs=2)):
        held, recomputed = (
            fit(store, spectra=spectra, solver=solver, dtype=torch.float64, max_bytes=size) for size in (2**30, 0)
        )
        torch.testing.assert_close(held.learned, recomputed.learned, rtol=0, atol=1e-7)
