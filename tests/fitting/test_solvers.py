"""Both solvers: deterministic, validated, and the same as a plain loop over the encoder."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import ViTModel

import residualign as ra
from residualign.classification.classifier import text_classifier
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError, RunError
from residualign.fitting.coefficients import build_features
from residualign.fitting.methods import METHODS, build_scaling, get_method, start_parameters
from residualign.fitting.objective import Best, Objective, Score, Solution, neutral
from residualign.fitting.solvers import LBFGS, Candidate, ScheduleFree, default_solver, find_learning_rate
from residualign.spectrum import Moments
from tests.fitting.standin import CLASSES, make_spectra, make_store
from tests.random_models import save_vit
from tests.reference import residual_twin, training_twin


def objectives(method="residual", store=None, dtype=torch.float64, mean="keep"):
    store = store or make_store(text=True)
    spectra = make_spectra(store.maps)
    scaling = build_scaling(METHODS[method], spectra, mean)
    classifier = text_classifier(store.text_vectors, CLASSES, store.logit_scale)
    train, val = (
        Objective(
            build_features(part.coordinates(), store.maps, scaling, dtype),
            part.labels,
            classifier.vectors.to(dtype),
            12.0,
        )
        for part in (store.split("train"), store.split("val"))
    )
    start = start_parameters(METHODS[method], scaling, len(CLASSES), store.maps.dim)
    return train, val, {name: value.to(dtype) for name, value in start.items()}


# fewer units than the other tests' towers: the twin loops over every component of every image
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 15, "intermediate_size": 17}

SOLVERS = [ScheduleFree(0.1, batch_size=17, max_epochs=7), LBFGS(max_iterations=12)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@pytest.mark.parametrize("method", METHODS)
def test_fitting_lowers_the_loss_and_never_validates_worse_than_the_start(solver, method):
    train, val, start = objectives(method)
    solution = solver.solve(train, val, start)
    assert solution.score >= val.score(start)
    assert solution.history[-1]["train_loss"] < train.score(start).loss
    assert solution.score == val.score(solution.parameters)


@pytest.mark.parametrize("solver", [ScheduleFree(max_epochs=3), *SOLVERS], ids=["found", "schedule-free", "lbfgs"])
def test_the_same_seed_gives_the_same_numbers(solver):
    runs = [solver.solve(*objectives(), seed=3) for _ in range(2)]
    assert torch.equal(runs[0].parameters["lambdas"], runs[1].parameters["lambdas"])
    histories = [[{**record, "seconds": 0.0} for record in run.history] for run in runs]
    assert histories[0] == histories[1]


def test_another_seed_shuffles_otherwise():
    one, other = (ScheduleFree(0.1, max_epochs=2).solve(*objectives(), seed=seed) for seed in (1, 2))
    assert not torch.equal(one.parameters["lambdas"], other.parameters["lambdas"])


def test_solving_leaves_the_start_as_it_was():
    train, val, start = objectives("joint")
    for solver in SOLVERS:
        solver.solve(train, val, start)
    torch.testing.assert_close(start, neutral(start), rtol=0, atol=0)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_every_record_goes_into_a_line_of_json(solver):
    solution = solver.solve(*objectives())
    for record in solution.history:
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert {"solver", "train_loss", "val_loss", "val_accuracy", "seconds"} <= set(record)


@pytest.mark.parametrize("mean", ["keep", "drop"])
def test_fifty_cached_steps_are_fifty_steps_through_the_whole_encoder(mean, tmp_path):
    """The promise: training on cached coefficients is training through the frozen encoder, to rounding."""
    model = ViTModel.from_pretrained(save_vit(tmp_path, **SMALL), add_pooling_layer=False).double().eval()
    tower = ra.load_model(str(tmp_path), dtype="float64").tower
    n_train, n_classes, rate, batch_size = 23, 3, 0.05, 5
    pixels = tower.probe(n_train, seed=3)
    labels = torch.arange(n_train) % n_classes
    maps, coordinates = unit_maps(tower), trace_coordinates(tower, pixels)
    moments = Moments.empty(maps)
    moments.update(coordinates)
    spectra = moments.spectra(maps, source="noise")
    scaling = build_scaling(METHODS["residual"], spectra, mean)
    vectors = torch.nn.functional.normalize(torch.randn(n_classes, maps.dim, dtype=torch.float64), dim=-1)
    objective = Objective(build_features(coordinates, maps, scaling, torch.float64), labels, vectors, 7.0)
    start = start_parameters(METHODS["residual"], scaling, n_classes, maps.dim)

    epochs = 10
    generator = torch.Generator().manual_seed(0)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(n_train, generator=generator).split(batch_size)]
    assert len(batches) == 50
    expected = training_twin.train(
        lambda images: residual_twin.contributions(model, images),
        pixels,
        labels.tolist(),
        vectors,
        7.0,
        [(unit.label, unit.mean, unit.components) for unit in scaling.units],
        maps.units.labels,
        start["lambdas"],
        mean,
        batches,
        rate,
    )
    last = _last_point(ScheduleFree(rate, batch_size, epochs, patience=epochs + 1), objective, start)
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-8)
    assert (last - 1).abs().max() > 0.1


def _last_point(solver, objective, start):
    """The averaged point after the last epoch, whatever validation thinks of it."""
    seen = []

    class Watching(Objective):
        def score(self, parameters):
            seen.append(parameters["lambdas"].detach().clone())
            return Score(float(len(seen)), 0.0)

    watching = Watching(objective.features, objective.labels, objective.class_vectors, objective.logit_scale)
    solver.solve(objective, watching, start)
    return seen[-1]


def scripted(val, accuracies):
    """A validation objective that tells prepared accuracies, the start's first, then the last one for ever."""
    told = []

    class Scripted(Objective):
        def score(self, parameters):
            told.append(parameters)
            return Score(float(accuracies[min(len(told), len(accuracies)) - 1]), -1.0)

    return Scripted(val.features, val.labels, val.class_vectors, 1.0)


def test_schedule_free_stops_after_five_epochs_without_a_better_one_and_keeps_the_best():
    train, val, start = objectives()
    solver = ScheduleFree(0.1, max_epochs=30)
    solution = solver.solve(train, scripted(val, [0.1, 0.2, 0.5, 0.4, 0.5, 0.3, 0.3, 0.3, 0.9]), start)
    assert solution.epochs == 2 + 5
    assert solution.score.accuracy == 0.5
    best = solver.solve(train, scripted(val, [0.1, 0.2, 0.5]), start).parameters
    torch.testing.assert_close(solution.parameters, best, rtol=0, atol=0)


def test_equal_accuracy_is_better_with_a_lower_loss():
    best = Best(Score(0.5, -1.0), {})
    best.see(Score(0.5, -0.9), {"lambdas": torch.ones(1)})
    best.see(Score(0.4, -0.1), {})
    assert best.score == Score(0.5, -0.9)
    assert best.waited == 1


def test_lbfgs_stops_when_validation_does_not_improve():
    train, val, start = objectives()
    solution = LBFGS(patience=3).solve(train, scripted(val, [0.1, 0.3, 0.2]), start)
    assert len(solution.history) == 1 + 3
    assert solution.score.accuracy == 0.3


TWO = [Candidate(), Candidate(whitening=0.5)]


def race(val, first, second, race, start_score=0.0):
    """Both candidates' outer iterations, where validation tells these (accuracy, loss) of the first and the second."""
    told = iter([(start_score, 9.0), *first, (start_score, 9.0), *second])

    class Scripted(Objective):
        def score(self, parameters):
            accuracy, loss = next(told)
            return Score(accuracy, -loss)

    train, _, start = objectives()
    scripted = Scripted(val.features, val.labels, val.class_vectors, 1.0)
    solution = LBFGS(TWO, max_iterations=6, race=race).solve(train, scripted, start)
    iterations = [sum(one["whitening"] == two.whitening for one in solution.history) for two in TWO]
    return iterations, solution


RISING = [(0.1 * i, 2.0 - 0.1 * i) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("second", "every", "iterations"),
    [
        ([(accuracy - 0.05, loss + 0.05) for accuracy, loss in RISING], 2, 2),
        ([(accuracy - 0.05, loss + 0.05) for accuracy, loss in RISING], 3, 3),
        ([(accuracy - 0.05, loss + 0.05) for accuracy, loss in RISING], None, 6),
        ([(accuracy - 0.05, loss - 0.05) for accuracy, loss in RISING], 2, 6),
        ([(accuracy + 0.05, loss + 0.05) for accuracy, loss in RISING], 2, 6),
        (RISING, 2, 6),
        ([*RISING[:3], (0.0, 9.0), (0.0, 9.0), (0.0, 9.0)], 2, 4),
        ([RISING[0], (0.15, 1.85), *RISING[2:]], 2, 2),
    ],
    ids=["behind", "behind at three", "no race", "lower loss", "more accurate", "level", "falls behind", "leader dips"],
)
def test_a_run_that_is_behind_in_both_is_given_up(second, every, iterations):
    _, val, _ = objectives()
    leader = [RISING[1], (0.0, 9.0), *RISING[2:]] if second[1] == (0.15, 1.85) else RISING
    counts, solution = race(val, leader, second, every)
    assert counts == [6, iterations]
    assert solution.epochs >= sum(counts)


def test_a_run_is_compared_with_the_last_of_a_leader_that_ended_before():
    train, val, start = objectives()
    told = iter([0.0, 0.5, *[0.1] * 3, 0.0, 0.1, 0.5, 0.5, 0.5, 0.6, *[0.1] * 3])

    class Scripted(Objective):
        def score(self, parameters):
            return Score(next(told), -1.0)

    scripted = Scripted(val.features, val.labels, val.class_vectors, 1.0)
    solution = LBFGS(TWO, patience=3, race=2).solve(train, scripted, start)
    assert solution.score.accuracy == 0.6
    assert [one["whitening"] for one in solution.history] == [0.0] * 4 + [0.5] * 8


def test_lbfgs_finds_the_stationary_point_of_a_pulled_objective():
    train, val, start = objectives()
    pull = {"lambdas": 2.0}
    rising = scripted(val, list(range(5000)))
    solution = LBFGS([Candidate(pull)], max_iterations=500).solve(train, rising, start)
    _, gradient = replace(train, pull=pull).value_and_gradient(solution.parameters)
    assert gradient["lambdas"].abs().max() < 1e-5


def test_whitening_changes_the_path_but_not_the_minimum():
    """With the pull in the same units the two walk to the same point only if nothing depends on the units."""
    train, val, start = objectives()
    rising = scripted(val, list(range(5000)))
    plain, whitened = (
        LBFGS([Candidate({}, whitening)], max_iterations=5).solve(train, rising, start) for whitening in (0.0, 0.5)
    )
    assert not torch.allclose(plain.parameters["lambdas"], whitened.parameters["lambdas"], atol=1e-3)
    moment = train.features.second_moment()
    step = (whitened.parameters["lambdas"] - 1).abs()
    weak, strong = moment.argsort()[:10], moment.argsort()[-10:]
    plain_step = (plain.parameters["lambdas"] - 1).abs()
    assert step[weak].mean() / step[strong].mean() > 3 * plain_step[weak].mean() / plain_step[strong].mean()


def test_a_frozen_group_stays_at_its_start():
    train, val, start = objectives("joint")
    frozen = LBFGS([Candidate({"class_residual": math.inf})], max_iterations=8).solve(train, val, start)
    assert torch.equal(frozen.parameters["class_residual"], start["class_residual"])
    assert not torch.equal(frozen.parameters["lambdas"], start["lambdas"])
    assert frozen.chosen["pull"] == {"class_residual": "frozen"}


def test_joint_never_validates_worse_than_residual():
    for seed in range(4):
        store = make_store(seed, separation=0.4, text=True)
        alone, joint = (
            default_solver(get_method(method)).solve(*objectives(method, store)) for method in ("residual", "joint")
        )
        assert joint.score.accuracy >= alone.score.accuracy
        # the runs with frozen class vectors are those of residual to the last bit
        count = len(alone.history)
        for ours, theirs in zip(joint.history[:count], alone.history, strict=True):
            assert ours["val_loss"] == theirs["val_loss"]
        assert joint.score.accuracy > alone.score.accuracy or joint.score.loss <= alone.score.loss


def test_a_richer_candidate_wins_only_with_equal_accuracy_and_a_lower_loss():
    from residualign.fitting.solvers import _choose

    def solution(accuracy, loss):
        return Solution({}, Score(accuracy, -loss), 1, None, {}, ())

    simple = solution(0.8, 0.5)
    for richer, expected in (((0.9, 0.6), simple), ((0.9, 0.4), None), ((0.7, 0.1), simple)):
        candidate = solution(*richer)
        assert _choose([simple, candidate], [True, False]) is (expected or candidate)


def test_the_learning_rate_finder_takes_the_rate_of_least_loss_and_shows_its_curve():
    train, val, start = objectives()
    rate, curve = find_learning_rate(train, val, start, steps=12, grid=(1e-5, 1e-1, 1e4))
    assert [record["learning_rate"] for record in curve] == [1e-5, 1e-1, 1e4]
    assert rate == 1e-1
    assert curve[1]["val_loss"] == min(record["val_loss"] for record in curve)
    solution = ScheduleFree(max_epochs=1).solve(train, val, start)
    assert solution.learning_rate in [record.get("learning_rate") for record in solution.history]


def test_each_rate_of_the_finder_starts_afresh():
    train, val, start = objectives()
    _, alone = find_learning_rate(train, val, start, steps=12, grid=(0.1,))
    _, among = find_learning_rate(train, val, start, steps=12, grid=(3.0, 0.1))
    assert alone[0]["val_loss"] == among[1]["val_loss"]


def test_no_usable_learning_rate_is_an_error():
    train, val, start = objectives()
    start["lambdas"][0] = float("nan")
    with pytest.raises(RunError, match="no learning rate"):
        find_learning_rate(train, val, start, steps=2)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_learning_rate_that_is_no_positive_number_is_refused(rate):
    with pytest.raises(BadInputError, match="learning rate"):
        ScheduleFree(rate).solve(*objectives())


def test_an_unknown_solver_is_refused():
    with pytest.raises(BadInputError, match="solver is 'lbfgs' or 'schedule-free', got 'adam'"):
        default_solver(get_method("residual"), "adam")
