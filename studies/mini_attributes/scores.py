"""How well per-image numbers (a component's coefficients) represent an attribute: pure functions on arrays.

labels: (image,) consecutive integers from 0 on, the value of the attribute for each image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# of the within-value covariance toward the identity: chosen once in advance, for units of 20 to 128 components
SHRINKAGE = 0.05


@dataclass(frozen=True)
class LinearScore:
    """Balanced accuracy of a linear classifier on images it was not fitted to, its standard error, and 1 / values."""

    balanced_accuracy: float
    standard_error: float
    chance: float

    @property
    def skill(self) -> float:
        """0 at chance, 1 if every image is correct; below 0 is worse than chance."""
        return (self.balanced_accuracy - self.chance) / (1 - self.chance)


def indicator(labels: Ints) -> Floats:
    """(image, value), 1 where the image has the value."""
    return np.eye(int(labels.max()) + 1)[labels]


def value_means(values: Floats, labels: Ints) -> Floats:
    """(value, component): mean of each column over the images that have a value."""
    one = indicator(labels)
    means: Floats = (one.T @ values) / one.sum(0)[:, None]
    return means


def squares(values: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """Sums of squares of each column: between the values of the attribute, and in all."""
    centered = values - values.mean(0)
    counts = np.bincount(labels)
    between: Floats = (counts[:, None] * value_means(centered, labels) ** 2).sum(0)
    return between, (centered**2).sum(0)


def eta_squared(values: Floats, labels: Ints) -> Floats:
    """(component,): share of each column's variance that is between the values, in [0, 1]; 0 for a constant column.

    Chance alone gives (values - 1) / (images - 1).
    """
    between, total = squares(values, labels)
    return np.divide(between, total, out=np.zeros_like(between), where=total > 0)


def variance_share(values: Floats, labels: Ints) -> float:
    """Share of the total variance of all columns that is between the values, minus what chance gives.

    0 is the mean for random labels (so it can be negative), 1 is all of it. Source: Kelley's epsilon squared, with
    sums of squares over the columns.
    """
    between, total = (part.sum() for part in squares(values, labels))
    n, k = len(labels), int(labels.max()) + 1
    return float(1 - (1 - between / total) * (n - 1) / (n - k)) if total > 0 else 0.0


def one_against_rest(values: Floats, labels: Ints) -> Floats:
    """(value, component): ROC AUC of each column for each value against all others; ties count half.

    Above 1/2 the value is at the positive end of the column, below at its negative end.
    """
    one = indicator(labels)
    counts = one.sum(0)[:, None]
    ranks = rankdata(values, axis=0)
    auc: Floats = (one.T @ ranks - counts * (counts + 1) / 2) / (counts * (len(labels) - counts))
    return auc


def balanced_accuracy(truth: Ints, predicted: Ints) -> tuple[float, float]:
    """Mean over the values of the share of their images that are correct, and its standard error (binomial)."""
    right = np.array([np.mean(predicted[truth == value] == value) for value in np.unique(truth)])
    counts = np.array([np.sum(truth == value) for value in np.unique(truth)])
    return float(right.mean()), float(np.sqrt((right * (1 - right) / counts).sum()) / len(right))


def linear_score(values: Floats, labels: Ints, seed: int, folds: int = 5) -> LinearScore:
    """How well a linear classifier separates the attribute's values; each image is classified by a fit without it.

    Linear discriminant analysis on columns of unit variance, with slight shrinkage and equal priors; stratified folds.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    k = int(labels.max()) + 1
    predicted = np.full_like(labels, -1)
    # columns that never vary (a constant unit has no others)
    scale = values.std(0)
    used = values[:, scale > 1e-12 * max(scale.max(), 1e-300)]
    if not used.shape[1]:
        return LinearScore(1 / k, 0.0, 1 / k)
    for fit, judge in StratifiedKFold(folds, shuffle=True, random_state=seed).split(used, labels):
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=np.full(k, 1 / k))
        model = make_pipeline(StandardScaler(), lda)
        predicted[judge] = model.fit(used[fit], labels[fit]).predict(used[judge])
    score, error = balanced_accuracy(labels, predicted)
    return LinearScore(score, error, 1 / k)


def correlations(a: Floats, b: Floats) -> Floats:
    """(column,): Pearson correlation of the columns of a with those of b; 0 where one is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    length = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    result: Floats = np.divide((a * b).sum(0), length, out=np.zeros(a.shape[1]), where=length > 0)
    return result


def permutation_p(means: Floats, texts: Floats, draws: int, seed: int) -> float:
    """How often permuting the values' texts gives at least the observed mean correlation.

    means, texts: (value, component). The same permutation is used in all components, so components that say the
    same do not count as independent evidence. At least 1 / (draws + 1).
    """
    random = np.random.default_rng(seed)
    observed = correlations(means, texts).mean()
    hits = sum(
        correlations(means, texts[random.permutation(len(texts))]).mean() >= observed - 1e-12 for _ in range(draws)
    )
    return float((hits + 1) / (draws + 1))


def concentration(shares: Floats) -> Floats:
    """(unit,): how concentrated a row is on one column: 0 if all are equal, 1 if only one is not zero.

    shares: (unit, attribute); below zero counts as zero. One minus the entropy of the row, in units of its maximum; 0
    for a row of zeros, or of fewer than two columns.
    """
    if shares.shape[1] < 2:
        return np.zeros(len(shares))
    part = np.maximum(shares, 0)
    total = part.sum(1, keepdims=True)
    part = np.divide(part, total, out=np.full_like(part, 1 / part.shape[1]), where=total > 0)
    logs = np.log(part, out=np.zeros_like(part), where=part > 0)
    index: Floats = 1 + (part * logs).sum(1) / np.log(part.shape[1])
    return index
