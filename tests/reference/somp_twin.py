"""Plain twins of the pursuits: every residual formed, every fit solved from scratch, in the whole space."""

from __future__ import annotations

import numpy as np


def somp(data, atoms, count):
    """Simultaneous OMP with the L1 criterion: (indices, column norms of the weights, share explained after each)."""
    rows = data - data.mean(axis=0)
    total = (rows**2).sum()
    residual, indices, explained, norms = rows, [], [], []
    for _ in range(count):
        scores = [sum(abs(float(row @ atom)) for row in residual) for atom in atoms]
        for i in indices:
            scores[i] = -1.0
        indices.append(int(np.argmax(scores)))
        weights = np.linalg.lstsq(atoms[indices].T, rows.T, rcond=None)[0].T
        residual = rows - weights @ atoms[indices]
        explained.append(1 - (residual**2).sum() / total)
        norms = np.linalg.norm(weights, axis=0)
    return indices, norms, explained


def text_span(data, atoms, count, rank):
    """Algorithm 1 of arXiv 2310.05916: (indices, norms of the coefficients at each step, share explained)."""
    _, _, vectors = np.linalg.svd(data, full_matrices=False)
    vectors = vectors[:rank]
    texts = np.stack([vectors.T @ (vectors @ atom) for atom in atoms])
    rows = data - data.mean(axis=0)
    total = (rows**2).sum()
    indices, norms, explained = [], [], []
    for _ in range(count):
        spreads = [np.std(rows @ text) for text in texts]
        chosen = int(np.argmax(spreads))
        text = texts[chosen].copy()
        coefficients = rows @ text / (text @ text)
        rows = rows - np.outer(coefficients, text)
        texts = np.stack([other - (other @ text) / (text @ text) * text for other in texts])
        indices.append(chosen)
        norms.append(np.linalg.norm(coefficients))
        explained.append(1 - (rows**2).sum() / total)
    return indices, norms, explained
