"""Scores of heads and accuracy under ablation the slow way: explicit contributions, masks, image by image."""

from __future__ import annotations

import math

import numpy as np


def cosine(a, b):
    length = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / length if length > 0 else 0.0


def predict(embedding, vectors):
    """The class of largest cosine, the first of equal ones."""
    best, chosen = -math.inf, 0
    for c in range(len(vectors)):
        value = cosine(embedding, vectors[c])
        if value > best:
            best, chosen = value, c
    return chosen


def ablated(values, kept, mode, means):
    """(image, dim): the contributions of the kept units, and for the others nothing or their mean.

    values: (image, unit, dim). kept: a set of positions. means: (unit, dim).
    """
    result = np.zeros((values.shape[0], values.shape[2]))
    for n in range(values.shape[0]):
        for u in range(values.shape[1]):
            if u in kept:
                result[n] += values[n, u]
            elif mode == "mean":
                result[n] += means[u]
    return result


def accuracy(values, kept, mode, means, vectors, labels):
    embeddings = ablated(values, kept, mode, means)
    right = 0
    for n in range(len(labels)):
        right += predict(embeddings[n], vectors) == labels[n]
    return right / len(labels)


def pearson(a, b):
    a, b = [x - sum(a) / len(a) for x in a], [x - sum(b) / len(b) for x in b]
    covariance = sum(x * y for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return covariance / spread if spread > 0 else 0.0


def correlation(contribution, output, directions):
    """Pearson over the images along each direction, averaged."""
    total = 0.0
    for direction in directions:
        along_unit = [float(x @ direction) for x in contribution]
        along_output = [float(x @ direction) for x in output]
        total += pearson(along_unit, along_output)
    return total / len(directions)


def mean_cosine(contribution, output):
    own_center, center = contribution.mean(axis=0), output.mean(axis=0)
    return sum(cosine(x - own_center, y - center) for x, y in zip(contribution, output, strict=True)) / len(output)


def supervised(contribution, vectors, labels):
    return sum(predict(x, vectors) == y for x, y in zip(contribution, labels, strict=True)) / len(labels)
