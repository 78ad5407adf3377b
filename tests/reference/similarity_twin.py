"""Plain twins of the similarities, written from the papers with loops over numpy arrays; slow on purpose."""

from __future__ import annotations

import itertools

import numpy as np


def cut(variances, total, threshold):
    """How many leading components reach this share of the whole variance."""
    running = 0.0
    for k, variance in enumerate(variances):
        running += variance
        if running / total >= threshold - 1e-12:
            return k + 1
    return len(variances)


def greedy(matrix):
    """Largest entry first, one a row and column; of equal ones the first row's, then the first column's."""
    free_rows, free_columns = list(range(matrix.shape[0])), list(range(matrix.shape[1]))
    picks = []
    while free_rows and free_columns:
        best = None
        for i in free_rows:
            for j in free_columns:
                if best is None or matrix[i, j] > matrix[best]:
                    best = (i, j)
        picks.append(best)
        free_rows.remove(best[0])
        free_columns.remove(best[1])
    return picks


def best_matching(matrix):
    """The one-to-one matching of largest sum of squares, by trying every one."""
    if matrix.shape[0] > matrix.shape[1]:
        return [(i, j) for j, i in best_matching(matrix.T)]
    rows = range(matrix.shape[0])
    tried = itertools.permutations(range(matrix.shape[1]), matrix.shape[0])
    best = max(tried, key=lambda columns: sum(matrix[i, columns[i]] ** 2 for i in rows))
    return [(i, best[i]) for i in rows]


def spectral_cosine(x, y, x_variances, y_variances, match=greedy, weighted=True):
    """Normalized spectral cosine of two bases with orthonormal rows."""
    matrix = np.zeros((len(x), len(y)))
    for i, j in itertools.product(range(len(x)), range(len(y))):
        weight = x_variances[i] * y_variances[j] if weighted else 1.0
        matrix[i, j] = abs(sum(p * q for p, q in zip(x[i], y[j], strict=True))) * weight
    shorter = min(len(x), len(y))
    length = sum((x_variances[i] * y_variances[i]) ** 2 if weighted else 1.0 for i in range(shorter)) ** 0.5
    return sum(matrix[pick] ** 2 for pick in match(matrix)) ** 0.5 / length


def gram_cka(x, y):
    """CKA from image x image matrices (Kornblith et al. 2019, equations 3 and 4)."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n

    def hsic(k, m):
        return np.trace(k @ centring @ m @ centring) / (n - 1) ** 2

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def debiased_cka(x, y):
    """CKA of unbiased estimates, from image x image matrices (Song et al. 2012, equation 5)."""
    n = len(x)

    def hsic(k, m):
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)
        whole = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (whole - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def relative_mean(x, anchors):
    """Mean over images of the cosine with each anchor."""
    values = np.zeros(len(anchors))
    for j, anchor in enumerate(anchors):
        for row in x:
            values[j] += row @ anchor / np.linalg.norm(row) / np.linalg.norm(anchor)
    return values / len(x)
