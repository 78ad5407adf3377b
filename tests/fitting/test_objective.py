"""The objective: cosine logits with a scale, leave-one-out columns, pulls, and its gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from residualign.classification.classifier import class_means
from residualign.errors import RunError
from residualign.fitting.coefficients import adapted_output, build_features
from residualign.fitting.methods import METHODS, build_scaling, start_parameters
from residualign.fitting.objective import Objective, Score, neutral
from tests.fitting.standin import CLASSES, make_spectra, make_store
from tests.reference import classifier_twin as twin

SCALE = 9.0


@pytest.fixture(scope="module")
def store():
    return make_store()


def make(store, method="residual", leave_one_out=True, mean="keep", **options):
    part = store.split("train")
    scaling = build_scaling(METHODS[method], make_spectra(store.maps), mean)
    classifier = class_means(part.coordinates().output, part.labels, CLASSES)
    own = classifier.leave_one_out(part.coordinates().output, part.labels) if leave_one_out else None
    max_bytes = options.pop("max_bytes", 2**30)
    features = build_features(part.coordinates(), store.maps, scaling, torch.float64, max_bytes)
    start = start_parameters(METHODS[method], scaling, len(CLASSES), store.maps.dim)
    generator = torch.Generator().manual_seed(1)
    point = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in start.items()
    }
    return Objective(features, part.labels, classifier.vectors, SCALE, own, **options), point, scaling


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_twins(store, method):
    """Image by image, class by class, with the class mean made without the image in its own column."""
    objective, point, scaling = make(store, method)
    part = store.split("train")
    adapted = part.coordinates().output
    if "lambdas" in point:
        adapted = adapted_output(part.coordinates(), store.maps, scaling, point["lambdas"])
    if "map" in point:
        adapted = adapted @ point["map"] + point["bias"]
    labels = part.labels.tolist()
    residual = point.get("class_residual", torch.zeros(len(CLASSES), store.maps.dim)).numpy()
    embeddings = part.coordinates().output.numpy()
    logits = []
    for i, row in enumerate(adapted.numpy()):
        with_all = twin.mean_vectors(embeddings, labels, len(CLASSES))
        with_all[labels[i]] = twin.mean_vectors(embeddings, labels, len(CLASSES), leave_out=i)[labels[i]]
        logits.append([SCALE * twin.unit(row) @ twin.unit(w + r) for w, r in zip(with_all, residual, strict=True)])
    expected = twin.cross_entropy(np.array(logits), labels)
    assert objective.loss(point, slice(None)).item() == pytest.approx(expected, abs=1e-11)


def test_leaving_an_image_out_makes_its_own_class_harder(store):
    with_all, point, _ = make(store, leave_one_out=False)
    left_out, _, _ = make(store)
    point = neutral(point)
    assert left_out.cross_entropy(point, slice(None)) > with_all.cross_entropy(point, slice(None))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("max_bytes", [2**30, 0])
def test_the_gradient_is_that_of_finite_differences(store, method, max_bytes):
    scales = {"lambdas": torch.tensor(0.7, dtype=torch.float64)}
    pull = {"lambdas": 0.3, "class_residual": 0.2, "map": 0.1}
    objective, point, _ = make(store, method, pull=pull, scales=scales, max_bytes=max_bytes)
    value, gradient = objective.value_and_gradient(point)
    assert value == pytest.approx(objective.loss(point, slice(None)).item(), abs=1e-12)
    step = 1e-6
    for name, tensor in point.items():
        for position in (0, tensor.numel() // 2, tensor.numel() - 1):
            shifted = [{key: v.clone() for key, v in point.items()} for _ in range(2)]
            shifted[0][name].view(-1)[position] += step
            shifted[1][name].view(-1)[position] -= step
            up, down = (objective.loss(p, slice(None)).item() for p in shifted)
            # central differences are good to about 1e-16 / step
            assert gradient[name].view(-1)[position].item() == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_a_pull_adds_the_mean_squared_step_and_nothing_at_the_start(store):
    objective, point, _ = make(store, "joint", pull={"lambdas": 3.0, "class_residual": 5.0})
    expected = 3.0 * (point["lambdas"] - 1).square().mean()
    expected += 5.0 * point["class_residual"].square().sum(dim=-1).mean()
    torch.testing.assert_close(objective.pull_loss(point), expected)
    assert objective.pull_loss(neutral(point)).item() == 0.0


def test_pulls_are_in_units_of_the_scales(store):
    objective, point, _ = make(store, pull={"lambdas": 3.0})
    scaled = replace(objective, scales={"lambdas": torch.full_like(point["lambdas"], 2.0)})
    torch.testing.assert_close(scaled.pull_loss(point) * 4, objective.pull_loss(point))


def test_the_score_counts_and_averages_without_pulls(store):
    objective, point, _ = make(store, pull={"lambdas": 3.0})
    logits = objective.logits(point, slice(None))
    score = objective.score(point)
    labels = store.split("train").labels
    assert score.accuracy == (logits.argmax(dim=-1) == labels).double().mean().item()
    assert score.loss == pytest.approx(objective.cross_entropy(point, slice(None)).item(), abs=1e-12)


def test_scores_compare_by_accuracy_then_loss():
    assert Score(0.9, -2.0) > Score(0.8, -0.1)
    assert Score(0.9, -0.1) > Score(0.9, -0.2)


def test_without_the_logit_scale_even_perfect_cosines_leave_a_loss(store):
    """Cosines between -1 and 1 bound the loss from below, so training would fail quietly."""
    objective, point, _ = make(store)
    point = neutral(point)
    bound = float(np.log(1 + (len(CLASSES) - 1) * np.exp(-2.0)))
    assert replace(objective, logit_scale=1.0).score(point).loss > bound
    assert replace(objective, logit_scale=1.0).score(point).loss > objective.score(point).loss


def test_a_loss_that_is_not_finite_says_so(store):
    objective, point, _ = make(store)
    point["lambdas"][0] = float("nan")
    with pytest.raises(RunError, match="the loss became nan"):
        objective.value_and_gradient(point)
    with pytest.raises(RunError, match="the loss became nan"):
        objective.score(point)
