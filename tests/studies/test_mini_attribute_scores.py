"""The scores of the attribute proof against scikit-learn, SciPy and plain loops."""

import itertools

import numpy as np
import pytest
from scipy.stats import f_oneway, pearsonr
from sklearn.feature_selection import r_regression
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from studies.mini_attributes.scores import (
    balanced_accuracy,
    concentration,
    correlations,
    eta_squared,
    linear_score,
    one_against_rest,
    permutation_p,
    squares,
    value_means,
    variance_share,
)

N, COMPONENTS, VALUES = 199, 7, 5


@pytest.fixture
def labels() -> np.ndarray:
    random = np.random.default_rng(3)
    return random.permutation(np.repeat(np.arange(VALUES), [23, 61, 17, 41, 57]))


@pytest.fixture
def values(labels: np.ndarray) -> np.ndarray:
    """Columns with an effect of 0, 0.3, 0.6, ... standard deviations, and unequal scales and means."""
    random = np.random.default_rng(5)
    effect = random.normal(size=(VALUES, COMPONENTS)) * np.arange(COMPONENTS) * 0.3
    return (random.normal(size=(N, COMPONENTS)) + effect[labels]) * [1, 2, 5, 1e-3, 7, 11, 13] + 17


def test_eta_squared_is_that_of_the_f_statistic(values: np.ndarray, labels: np.ndarray) -> None:
    """eta^2 = F (k-1) / (F (k-1) + n - k), column by column."""
    f = f_oneway(*(values[labels == value] for value in range(VALUES))).statistic
    expected = f * (VALUES - 1) / (f * (VALUES - 1) + N - VALUES)
    np.testing.assert_allclose(eta_squared(values, labels), expected, rtol=1e-10)


def test_eta_squared_is_the_share_a_regression_on_the_values_explains(values: np.ndarray, labels: np.ndarray) -> None:
    one = np.eye(VALUES)[labels]
    expected = [LinearRegression().fit(one, column).score(one, column) for column in values.T]
    np.testing.assert_allclose(eta_squared(values, labels), expected, rtol=1e-10)


def test_eta_squared_at_its_ends(labels: np.ndarray) -> None:
    column = np.stack([labels.astype(float), np.full(N, 3.0)], axis=1)
    assert eta_squared(column, labels).tolist() == pytest.approx([1.0, 0.0])


def test_two_values_give_the_squared_correlation(values: np.ndarray) -> None:
    two = (np.arange(N) % 3 == 0).astype(int)
    np.testing.assert_allclose(eta_squared(values, two), r_regression(values - values.mean(0), two) ** 2, rtol=1e-9)


def test_variance_share_weighs_columns_by_their_variance(values: np.ndarray, labels: np.ndarray) -> None:
    between, total = squares(values, labels)
    raw = (eta_squared(values, labels) * total).sum() / total.sum()
    assert between.sum() / total.sum() == pytest.approx(raw, rel=1e-12)
    assert variance_share(values, labels) == pytest.approx(1 - (1 - raw) * (N - 1) / (N - VALUES), rel=1e-12)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(COMPONENTS, COMPONENTS)))[0]
    assert variance_share(values @ turn, labels) == pytest.approx(variance_share(values, labels), rel=1e-10)


def test_labels_at_random_have_no_share_of_the_variance_on_average() -> None:
    random = np.random.default_rng(11)
    noise = random.normal(size=(N, COMPONENTS))
    shares = [variance_share(noise, random.integers(VALUES, size=N)) for _ in range(400)]
    assert abs(np.mean(shares)) < 4 * np.std(shares) / np.sqrt(len(shares))
    assert variance_share(np.ones((N, 2)), random.integers(VALUES, size=N)) == 0


def test_means_of_values_are_a_plain_loop(values: np.ndarray, labels: np.ndarray) -> None:
    expected = [values[labels == value].mean(0) for value in range(VALUES)]
    np.testing.assert_allclose(value_means(values, labels), expected, rtol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_scikit_learns(values: np.ndarray, labels: np.ndarray, ties: bool) -> None:
    values = (values / values.std(0)).round(0) if ties else values
    found = one_against_rest(values, labels)
    assert found.shape == (VALUES, COMPONENTS)
    for value, component in itertools.product(range(VALUES), range(COMPONENTS)):
        expected = roc_auc_score(labels == value, values[:, component])
        assert found[value, component] == pytest.approx(expected, abs=1e-12)


def test_balanced_accuracy_is_scikit_learns(labels: np.ndarray) -> None:
    predicted = np.where(np.arange(N) % 7 < 4, labels, (labels + 1) % VALUES)
    score, error = balanced_accuracy(labels, predicted)
    assert score == pytest.approx(balanced_accuracy_score(labels, predicted), rel=1e-12)
    assert 0 < error < 0.1


def test_the_standard_error_is_that_of_drawing_again() -> None:
    random = np.random.default_rng(7)
    truth = np.repeat([0, 1, 2], [13, 29, 101])
    right = np.array([0.9, 0.5, 0.2])
    drawn = [
        balanced_accuracy(truth, np.where(random.random(len(truth)) < right[truth], truth, (truth + 1) % 3))
        for _ in range(2000)
    ]
    scores, errors = np.array(drawn).T
    assert scores.mean() == pytest.approx(right.mean(), abs=0.01)
    # binomial errors with the estimated shares are a little small for a value with 13 images
    assert errors.mean() == pytest.approx(scores.std(), rel=0.06)


def test_linear_score_finds_what_is_there_and_nothing_else(values: np.ndarray, labels: np.ndarray) -> None:
    score = linear_score(values, labels, seed=0)
    assert score.chance == 0.2
    assert score.balanced_accuracy > 0.6
    assert score.skill == pytest.approx((score.balanced_accuracy - 0.2) / 0.8)
    shuffled = linear_score(values, np.random.default_rng(1).permutation(labels), seed=0)
    assert abs(shuffled.balanced_accuracy - 0.2) < 4 * shuffled.standard_error
    assert linear_score(values, labels, seed=0) == score


def test_linear_score_does_not_see_the_images_it_judges() -> None:
    """As many columns as images: a fit that saw its images would be right on all of them."""
    random = np.random.default_rng(13)
    labels = np.arange(101) % 2
    assert abs(linear_score(random.normal(size=(101, 97)), labels, seed=0).balanced_accuracy - 0.5) < 0.2


def test_linear_score_of_scale_and_of_nothing(values: np.ndarray, labels: np.ndarray) -> None:
    scaled = linear_score(values * np.logspace(-3, 3, COMPONENTS), labels, seed=0)
    assert scaled.balanced_accuracy == pytest.approx(linear_score(values, labels, seed=0).balanced_accuracy, abs=1e-9)
    nothing = linear_score(np.full((N, 3), 2.0), labels, seed=0)
    assert (nothing.balanced_accuracy, nothing.skill) == (0.2, 0.0)


def test_values_of_unequal_size_do_not_win_by_their_number() -> None:
    """A constant answer is at chance, however many images one value has."""
    random = np.random.default_rng(17)
    labels = (np.arange(503) % 11 == 0).astype(int)
    score = linear_score(random.normal(size=(503, 3)), labels, seed=0)
    assert abs(score.balanced_accuracy - 0.5) < 4 * score.standard_error


def test_correlations_are_scipys() -> None:
    random = np.random.default_rng(19)
    a, b = random.normal(size=(2, 11, 3))
    expected = [pearsonr(a[:, i], b[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(correlations(a, b), expected, rtol=1e-10)
    assert correlations(np.ones((5, 1)), a[:5, :1]).tolist() == [0.0]


def test_permutation_p_nears_the_exact_share() -> None:
    random = np.random.default_rng(23)
    a, b = random.normal(size=(2, 5, 3))
    observed = correlations(a, b).mean()
    every = [correlations(a, b[list(order)]).mean() >= observed - 1e-12 for order in itertools.permutations(range(5))]
    assert permutation_p(a, b, draws=4000, seed=0) == pytest.approx(np.mean(every), abs=0.03)
    assert permutation_p(a, b, draws=97, seed=0) == permutation_p(a, b, draws=97, seed=0)


def test_permutation_p_of_agreement_and_of_its_opposite() -> None:
    a = np.random.default_rng(29).normal(size=(11, 2))
    assert permutation_p(a, a, draws=199, seed=0) == pytest.approx(1 / 200)
    assert permutation_p(a, -a, draws=199, seed=0) == 1


def test_two_values_cannot_surprise() -> None:
    """Half of the exchanges change nothing, and what changes nothing counts as a hit."""
    a = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert permutation_p(a, a, draws=999, seed=0) == pytest.approx(0.5, abs=0.06)


def test_copies_of_a_component_are_no_further_witnesses() -> None:
    """The exchange is the same in all components: ten copies are as surprising as one."""
    a, b = np.random.default_rng(31).normal(size=(2, 7, 1))
    one = permutation_p(a, b, draws=499, seed=0)
    assert permutation_p(np.tile(a, 10), np.tile(b, 10), draws=499, seed=0) == one
    assert one > 0.01


def test_concentration_at_its_ends_and_between() -> None:
    rows = np.array([[1, 1, 1], [0, 0.2, 0], [2, 2, 0], [0, 0, 0], [-1, 0.5, -0.1]], dtype=float)
    expected = [0, 1, 1 - np.log(2) / np.log(3), 0, 1]
    np.testing.assert_allclose(concentration(rows), expected, atol=1e-12)
    np.testing.assert_allclose(concentration(rows * 7), expected, atol=1e-12)
