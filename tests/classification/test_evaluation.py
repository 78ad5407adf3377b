"""Figures against scikit-learn, scipy and plain loops; intervals by what they promise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, log_loss

from residualign.classification.evaluation import (
    compare,
    evaluate,
    expected_calibration_error,
    match_classes,
    wilson_interval,
)
from residualign.errors import BadInputError

N, CLASSES = 211, tuple("abcdefg")


@pytest.fixture
def example():
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(0, len(CLASSES), (N,), generator=g)
    logits = 2 * torch.randn(N, len(CLASSES), generator=g, dtype=torch.float64)
    logits[torch.arange(N), labels] += 1.5
    return logits, labels


def test_figures_are_scikit_learns(example):
    logits, labels = example
    found = evaluate(logits, labels, CLASSES)
    predicted, true = logits.argmax(dim=1).numpy(), labels.numpy()
    assert found.n == N
    assert found.accuracy == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
    assert found.macro_accuracy == pytest.approx(balanced_accuracy_score(true, predicted), abs=1e-12)
    assert found.cross_entropy == pytest.approx(log_loss(true, logits.softmax(dim=1).numpy()), abs=1e-12)
    assert np.array_equal(found.confusion.numpy(), confusion_matrix(true, predicted))
    for i, entry in enumerate(found.per_class):
        mask = true == i
        assert (entry.name, entry.n) == (CLASSES[i], mask.sum())
        assert entry.accuracy == pytest.approx((predicted[mask] == i).mean(), abs=1e-12)
        assert entry.interval == wilson_interval(int((predicted[mask] == i).sum()), int(mask.sum()))


def test_a_class_without_images_has_no_accuracy_and_no_say(example):
    logits, labels = example
    kept = labels != 3
    found = evaluate(logits[kept], labels[kept], CLASSES)
    assert (found.per_class[3].n, found.per_class[3].accuracy, found.per_class[3].interval) == (0, None, None)
    shares = [entry.accuracy for entry in found.per_class if entry.n]
    assert found.macro_accuracy == pytest.approx(sum(shares) / len(shares))
    assert found.confusion[3].sum() == 0


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 7), (7, 7), (3, 11), (500, 997), (0, 1), (1, 1)])
def test_wilson_is_scipys(k, n, confidence):
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= wilson_interval(k, n, confidence)[0] <= k / n <= wilson_interval(k, n, confidence)[1] <= 1


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_share(k, n):
    with pytest.raises(BadInputError, match="successes"):
        wilson_interval(k, n)


def _calibration_twin(probabilities, labels, bins):
    """Loops over bins ((i - 1) / bins, i / bins], as Guo et al. write them."""
    total, n = 0.0, len(labels)
    confidence = [max(row) for row in probabilities]
    right = [row.index(max(row)) == label for row, label in zip(probabilities, labels, strict=True)]
    for i in range(1, bins + 1):
        inside = [j for j in range(n) if (i - 1) / bins < confidence[j] <= i / bins]
        if inside:
            accuracy = sum(right[j] for j in inside) / len(inside)
            mean = sum(confidence[j] for j in inside) / len(inside)
            total += len(inside) / n * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("bins", [1, 2, 15])
def test_calibration_error_is_the_plain_twins(bins):
    g = torch.Generator().manual_seed(4)
    # right as often at any confidence: low bins lie above their confidence, high ones below, so that bins matter
    probabilities = (3 * torch.randn(N, len(CLASSES), generator=g, dtype=torch.float64)).softmax(dim=1)
    wrong = torch.rand(N, generator=g) < 0.4
    labels = (probabilities.argmax(dim=1) + wrong) % len(CLASSES)
    twin = _calibration_twin(probabilities.tolist(), labels.tolist(), bins)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(twin, abs=1e-12)


def test_calibration_error_of_cases_known_by_hand():
    sure = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 0, 1, 1])]
    assert expected_calibration_error(sure, torch.tensor([0, 0, 1, 1])) == 0.0
    assert expected_calibration_error(sure, torch.tensor([1, 1, 0, 0])) == 1.0
    # the edge of a bin belongs to the bin below: 0.5 is alone in (0, 0.5], 0.75 in (0.5, 1]
    edge = torch.tensor([[0.5, 0.5], [0.75, 0.25]], dtype=torch.float64)
    assert expected_calibration_error(edge, torch.tensor([0, 1]), bins=2) == pytest.approx((0.5 + 0.75) / 2)


def _after(example):
    g = torch.Generator().manual_seed(2)
    return example[0] + torch.randn(N, len(CLASSES), generator=g, dtype=torch.float64)


def test_comparison_counts_pairs_and_tests_them_exactly(example):
    before, labels = example
    after = _after(example)
    found = compare(before, after, labels, CLASSES)
    pairs = [
        (int(a.argmax()) == int(t), int(b.argmax()) == int(t)) for a, b, t in zip(before, after, labels, strict=True)
    ]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    assert (found.only_before, found.only_after) == (lost, won)
    assert min(lost, won) > 3
    assert found.difference == pytest.approx(found.after.accuracy - found.before.accuracy, abs=1e-12)
    tail = float(binom.cdf(min(lost, won), lost + won, 0.5))
    assert found.p_value == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert found.interval[0] < found.difference < found.interval[1]


def test_comparison_with_itself_finds_nothing(example):
    found = compare(example[0], example[0], example[1], CLASSES)
    assert (found.difference, found.p_value, found.only_before, found.only_after) == (0.0, 1.0, 0, 0)
    assert found.interval[0] < 0 < found.interval[1]


def test_exchanging_the_two_turns_the_sign(example):
    there = compare(example[0], _after(example), example[1], CLASSES)
    back = compare(_after(example), example[0], example[1], CLASSES)
    assert back.difference == -there.difference
    assert back.p_value == there.p_value
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))


def test_the_paired_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    probabilities, truth, held = [0.5, 0.25, 0.1, 0.15], -0.15 + 0.1, 0
    kinds = [(True, True), (False, True), (True, False), (False, False)]
    # kind 1 is right after only, kind 2 before only: after minus before = 0.25 - 0.1
    truth = 0.25 - 0.1
    runs, n = 400, 97
    for _ in range(runs):
        drawn = rng.choice(4, size=n, p=probabilities)
        right = torch.tensor([kinds[i] for i in drawn])
        logits = [torch.stack([r.double(), 1 - r.double()], dim=1) for r in right.T]
        interval = compare(logits[0], logits[1], torch.zeros(n, dtype=torch.int64), ("yes", "no")).interval
        held += interval[0] <= truth <= interval[1]
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs) < held / runs < 0.95 + 3 * math.sqrt(0.95 * 0.05 / runs)


def test_everything_is_json(example):
    described = compare(example[0], _after(example), example[1], CLASSES).to_json()
    back = json.loads(json.dumps(described, allow_nan=False))
    found = compare(example[0], _after(example), example[1], CLASSES)
    assert all(len(repr(one)) <= 200 for one in (found, found.after))
    rows = found.tables["classes"]
    assert [row["before"] for row in rows] == [one.accuracy for one in found.before.per_class]
    assert [row["after"] for row in rows] == [one.accuracy for one in found.after.per_class]
    one = found.after.per_class[2]
    assert found.after.tables["classes"][2] == {
        **{"class": one.name, "n": one.n, "accuracy": one.accuracy},
        **{"low": one.interval[0], "high": one.interval[1]},
    }
    assert (back["before"]["accuracy"], back["after"]["accuracy"]) == (found.before.accuracy, found.after.accuracy)
    assert back["after"]["confusion"][2][2] == described["after"]["confusion"][2][2]
    assert len(back["before"]["per_class"]) == len(CLASSES)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64), "got none"),
        (torch.zeros(2, 5), torch.tensor([0, 1]), "5 columns, expected one for each of 7"),
        (torch.zeros(2, 7), torch.tensor([0, 7]), "labels are between 0 and 7"),
        (torch.zeros(2, 7), torch.tensor([-1, 3]), "labels are between -1 and 3"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(logits, labels, message):
    with pytest.raises(BadInputError, match=message):
        evaluate(logits, labels, CLASSES)


def test_classes_are_matched_by_name_and_missing_ones_listed():
    assert match_classes(("cat", "dog", "cow"), ("cow", "cat")).tolist() == [2, 0]
    with pytest.raises(
        BadInputError, match="does not know 2 of the data's 3 classes: 'bat', 'owl'; it knows 'cat', 'dog'"
    ):
        match_classes(("cat", "dog"), ("bat", "dog", "owl"))
    with pytest.raises(BadInputError, match=r"it knows '0', .*, '9' and 3 more$"):
        match_classes([str(i) for i in range(13)], ["x"])
