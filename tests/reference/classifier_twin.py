"""Class vectors the slow way: one text, one image, one class at a time."""

from __future__ import annotations

import numpy as np


def unit(vector):
    return vector / np.sqrt((vector * vector).sum())


def text_vectors(encode_one, class_names, templates):
    vectors = []
    for name in class_names:
        total = 0.0
        for template in templates:
            total = total + unit(encode_one(template.format(name)))
        vectors.append(unit(total / len(templates)))
    return np.stack(vectors)


def mean_vectors(embeddings, labels, n_classes, leave_out=None):
    vectors = []
    for c in range(n_classes):
        members = [
            unit(x) for i, (x, y) in enumerate(zip(embeddings, labels, strict=True)) if y == c and i != leave_out
        ]
        vectors.append(unit(sum(members) / len(members)))
    return np.stack(vectors)


def cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[label]
    return total / len(labels)
