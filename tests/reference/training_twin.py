"""Training the slow way: a plain loop that runs the whole encoder at every step and scales whole contributions.

Nothing is cached: contributions come fresh from the images, every component is multiplied on its own, and Schedule-Free
AdamW is written out from Defazio et al. 2405.15682, algorithm 1 with AdamW's preconditioner.
"""

from __future__ import annotations

import math

import torch


def adapted(values, labels, units, lambdas, mean):
    """Embeddings of one batch; values: label -> (image, dim); units: [(label, mean, components)]; the rest is kept."""
    total = 0.0
    first = 0
    scaled = {label: (center, components) for label, center, components in units}
    starts = {}
    for label, _, components in units:
        starts[label] = first
        first += len(components)
    for label in labels:
        contribution = values[label]
        if label not in scaled:
            total = total + contribution
            continue
        center, components = scaled[label]
        outside = contribution - center
        for k, component in enumerate(components):
            coefficient = (contribution - center) @ component
            outside = outside - coefficient[:, None] * component
            total = total + lambdas[starts[label] + k] * coefficient[:, None] * component
        total = total + outside
        if mean == "keep":
            total = total + center
    return total


def loss(embeddings, targets, class_vectors, scale):
    total = 0.0
    for embedding, target in zip(embeddings, targets, strict=True):
        logits = [scale * torch.dot(embedding, w) / embedding.norm() / w.norm() for w in class_vectors]
        total = total + torch.logsumexp(torch.stack(logits), dim=0) - logits[target]
    return total / len(embeddings)


def train(encode, images, targets, class_vectors, scale, units, labels, lambdas, mean, batches, rate):
    """The averaged point after one step a batch; encode(images) -> label -> (image, dim) runs the whole encoder."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    z, x, second = lambdas.clone(), lambdas.clone(), torch.zeros_like(lambdas)
    for step, batch in enumerate(batches, start=1):
        y = ((1 - beta1) * z + beta1 * x).requires_grad_(True)
        values = encode(images[batch])
        value = loss(adapted(values, labels, units, y, mean), [targets[i] for i in batch], class_vectors, scale)
        (gradient,) = torch.autograd.grad(value, y)
        second = beta2 * second + (1 - beta2) * gradient**2
        corrected = second / (1 - beta2**step)
        z = z - rate * gradient / (corrected.sqrt() + eps)
        weight = 1.0 / step
        x = (1 - weight) * x + weight * z
        assert math.isfinite(value.item())
    return x.detach()
