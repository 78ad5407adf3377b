"""Plain twin of the streaming PCA: build every contribution, take one SVD per unit, with loops."""

from __future__ import annotations

import numpy as np


def contributions(coordinates, maps, label):
    """One unit's contributions (image, dim), image by image, from the definition `y @ B_u + c_u`."""
    heads, mlps = coordinates.heads.double().numpy(), coordinates.mlps.double().numpy()
    inverse_std, mean_over_std = coordinates.inverse_std.double().numpy(), coordinates.mean_over_std.double().numpy()
    rows = []
    for n in range(len(inverse_std)):
        if label == "embedding":
            y, weight, bias = [inverse_std[n], mean_over_std[n]], maps.embedding, maps.group_bias
        elif label.endswith(".mlp"):
            layer = int(label[1 : -len(".mlp")])
            y, weight, bias = [*mlps[n, layer], mean_over_std[n]], maps.mlps[layer], maps.group_bias
        else:
            layer, head = (int(part) for part in label[1:].split(".H"))
            y = [*heads[n, layer, head], inverse_std[n], mean_over_std[n]]
            weight, bias = maps.heads[layer, head], maps.head_bias
        rows.append(np.array(y) @ weight.double().numpy() + bias.double().numpy())
    return np.stack(rows)


def pca(rows):
    """Mean, components (as rows), variances divided by n - 1, and the whole variance, by a full centered SVD."""
    mean = rows.mean(axis=0)
    _, singular, components = np.linalg.svd(rows - mean, full_matrices=False)
    variance = singular**2 / (len(rows) - 1)
    return mean, components, variance, variance.sum()
