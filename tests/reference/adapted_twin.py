"""The slow, plain twin of adapted embeddings: image by image, unit by unit, component by component."""

from __future__ import annotations

import numpy as np


def adapted(values, output, labels, units, mean, rest, rest_mean):
    """Equation 3 of arXiv 2411.00246, with loops.

    values: (image, unit, dim) contributions in the order of labels. units: {label: (mean, components or None,
    lambdas)}, where the label "output" stands for the whole embedding.
    """
    result = np.zeros_like(output)
    for n in range(len(output)):
        for u, label in enumerate(labels):
            if label in units:
                result[n] += _one(values[n, u], *units[label], mean, rest)
            elif rest == "keep" and "output" not in units:
                result[n] += values[n, u]
        if "output" in units:
            result[n] += _one(output[n], *units["output"], mean, rest)
        if rest == "mean":
            result[n] += rest_mean
    return result


def _one(contribution, center, components, lambdas, mean, rest):
    if components is None:
        return lambdas[0] * contribution
    total = np.zeros_like(contribution)
    outside = contribution - center
    for k in range(len(components)):
        coefficient = float(np.dot(contribution - center, components[k]))
        total = total + lambdas[k] * coefficient * components[k]
        outside = outside - coefficient * components[k]
    if rest == "keep":
        total = total + outside
    if mean == "keep":
        total = total + center
    return total
