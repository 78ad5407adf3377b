"""Figures of the study: layer x head maps, and correlations of words."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from studies.mini_attributes.results import AttributeProof
from studies.mini_attributes.scores import Floats
from studies.mini_attributes.words import WordAgreement, p_value


def figures(proof: AttributeProof) -> dict[str, Figure]:
    """Figures by file name, without extension."""
    n_layers = 1 + max(int(label[1:].partition(".")[0]) for label in proof.labels)
    shares, skills = proof.shares(), proof.skills()
    rows_of = {name: {proof.labels.index(label) for label in heads} for name, heads in proof.specialized().items()}
    names = [result.attribute.name for result in proof.main]
    if not names:
        return {"attribute_words": words(proof)}
    return {
        "attribute_accuracy": maps(
            skills,
            names,
            n_layers,
            "Accuracy of a linear classifier on each head (0: chance, 1: every image correct)",
            [f"whole embedding {result.embedding.skill:.2f}" for result in proof.main],
        ),
        "attribute_variance": maps(
            shares,
            names,
            n_layers,
            "Share of each head's variance between the attribute's values (framed: specialized heads)",
            [""] * len(names),
            rows_of,
        ),
        "attribute_words": words(proof),
    }


def maps(
    values: Floats,
    names: list[str],
    n_layers: int,
    title: str,
    notes: list[str],
    framed: dict[str, set[int]] | None = None,
) -> Figure:
    """A layer x head map per column, on one color scale from 0 to the maximum; framed: heads to mark, by column."""
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.5 * columns, 3.1 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    top = max(float(values.max()), 0.05)
    for axis, name, column, note in zip(axes, names, values.T, notes, strict=False):
        grid = column.reshape(n_layers, -1)
        image = axis.imshow(grid, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        for (layer, head), value in np.ndenumerate(grid):
            axis.text(head, layer, f"{max(value, 0):.2f}", ha="center", va="center", fontsize=7.5,
                      color="white" if value < 0.6 * top else "black")  # fmt: skip
            if framed and layer * grid.shape[1] + head in framed.get(name, set()):
                axis.add_patch(_frame(head, layer))
        axis.set_title(f"{name} ({note})" if note else name, fontsize=10)
        axis.set_xticks(range(grid.shape[1]), [f"H{i}" for i in range(grid.shape[1])])
        axis.set_yticks(range(n_layers), [f"L{i}" for i in range(n_layers)])
        axis.tick_params(length=0)
    for axis in axes[len(names) :]:
        axis.axis("off")
    figure.colorbar(image, ax=axes.tolist(), shrink=0.8, pad=0.01)
    figure.suptitle(title, fontsize=11)
    return figure


def words(proof: AttributeProof) -> Figure:
    """Correlation of words and images for each attribute's components, and its mean."""
    # with two or three values a correlation is close to 1 or -1, whatever the words
    judged = [result.words for result in proof.attributes if p_value(result.words)]
    figure = Figure(figsize=(8, 0.34 * len(judged) + 1.4), layout="constrained")
    axis = figure.subplots()
    for row, of in enumerate(judged):
        found = [component.correlation for component in of.components]
        axis.scatter(found, [row] * len(found), s=22, color="#4477aa", alpha=0.6, linewidths=0, zorder=3,
                     label="one component" if row == 0 else None)  # fmt: skip
        axis.scatter([of.correlation], [row], s=90, marker="|", color="#cc3311", linewidths=2.2, zorder=4,
                     label="mean" if row == 0 else None)  # fmt: skip
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.set_yticks(range(len(judged)), [_name(of) for of in judged])
    axis.invert_yaxis()
    axis.set_xlim(-1.05, 1.05)
    axis.set_xlabel("correlation over the attribute's values: mean coefficient of the images, score of the captions")
    axis.set_title("Do the words at the ends of components agree with the images there?", fontsize=11)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure


def _name(of: WordAgreement) -> str:
    p = p_value(of)
    return f"{of.attribute} (p {p})"


def _frame(head: int, layer: int) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((head - 0.47, layer - 0.47), 0.94, 0.94, fill=False, edgecolor="#ff5533", linewidth=2)
