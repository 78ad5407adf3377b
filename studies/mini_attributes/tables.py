"""The results of the study as markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studies.mini_attributes.results import SPECIALIZED_SHARE, SPECIALIZED_TIMES, AttributeProof
from studies.mini_attributes.words import EndWords, p_value


def markdown(proof: AttributeProof) -> str:
    """All tables, each with a heading."""
    parts = [
        f"{proof.images:,} images, mix {proof.mix}, seed {proof.seed}; components from {proof.spectra}.",
        "### What heads represent",
        attributes(proof),
        "### Specialized heads",
        specialized(proof),
        "### Layers",
        layers(proof),
        "### Every head and MLP",
        heads(proof),
        "### Do the words agree?",
        agreement(proof),
        "### The first component of the head with the largest share",
        first_components(proof),
        "### Clearest components",
        components(proof),
    ]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def attributes(proof: AttributeProof) -> str:
    """One row per attribute: the whole embedding, the best, the median and the worst head, the best component."""
    rows = []
    for result in proof.attributes:
        ranked = sorted(result.heads, key=lambda head: -head.linear.balanced_accuracy)
        best, component = ranked[0], max(result.heads, key=lambda head: head.best_eta_squared)
        auc = max(result.heads, key=lambda head: head.best_auc)
        rows.append([
            result.attribute.name,
            f"{len(result.attribute.values)}",
            f"{int(result.attribute.shown.sum()):,}",
            f"{result.embedding.chance:.3f}",
            _score(result.embedding.balanced_accuracy, result.embedding.standard_error),
            f"{best.unit} {_score(best.linear.balanced_accuracy, best.linear.standard_error)}",
            f"{np.median([head.linear.balanced_accuracy for head in ranked]):.2f}",
            f"{ranked[-1].linear.balanced_accuracy:.2f}",
            f"{component.unit}.{component.best_component} {component.best_eta_squared:.2f}",
            f"{auc.unit} {auc.best_auc:.2f} ({auc.best_value})",
        ])  # fmt: skip
    columns = ["attribute", "values", "images", "chance", "embedding", "best head", "median head", "worst",
               "best eta² (head.component)", "best AUC of one component (value)"]  # fmt: skip
    return table(columns, rows)


def specialized(proof: AttributeProof) -> str:
    """One row per main attribute: which heads are specialized in it, and the three with the largest shares."""
    found, rows = proof.specialized(), []
    for result in proof.main:
        largest = sorted(result.heads, key=lambda head: -head.variance_share)[:3]
        rows.append([
            result.attribute.name,
            ", ".join(found[result.attribute.name]) or "none",
            ", ".join(f"{head.unit} {head.variance_share:.2f}" for head in largest),
        ])  # fmt: skip
    rule = (
        f"Specialized: the attribute accounts for at least {SPECIALIZED_SHARE:.0%} of the head's variance, and "
        f"{SPECIALIZED_TIMES:g} times as much as any other attribute in the table."
    )
    return table(["attribute", "specialized heads", "largest shares of variance"], rows) + "\n\n" + rule


def layers(proof: AttributeProof) -> str:
    """One row per layer: mean balanced accuracy and share of variance of its heads, for each main attribute."""
    per_layer = 1 + max(int(label.partition("H")[2]) for label in proof.labels)
    rows = []
    for layer in range(len(proof.labels) // per_layer):
        part = slice(layer * per_layer, (layer + 1) * per_layer)
        cells = [
            f"{np.mean([head.linear.balanced_accuracy for head in result.heads[part]]):.2f} · "
            f"{np.mean([head.variance_share for head in result.heads[part]]):.2f}"
            for result in proof.main
        ]
        rows.append([f"L{layer}", *cells])
    names = [result.attribute.name for result in proof.main]
    return table(["mean of heads: accuracy · share", *names], rows)


def heads(proof: AttributeProof) -> str:
    """One row per head or MLP: balanced accuracy and share of variance for each main attribute, and concentration."""
    index = dict(zip(proof.labels, proof.concentrations(), strict=True))
    rows = []
    for row, unit in enumerate(proof.attributes[0].units):
        cells = [
            f"{result.units[row].linear.balanced_accuracy:.2f} · {result.units[row].variance_share:.2f}"
            for result in proof.main
        ]
        rows.append([unit.unit, *cells, f"{index[unit.unit]:.2f}" if unit.unit in index else ""])
    chance = [f"{result.embedding.chance:.2f}" for result in proof.main]
    rows.append(["chance", *chance, ""])
    columns = ["accuracy · share", *(result.attribute.name for result in proof.main), "concentration"]
    return table(columns, rows)


def agreement(proof: AttributeProof) -> str:
    """One row per attribute: do images and words agree at the ends of its clearest components?"""
    rows = []
    for result in proof.attributes:
        of = result.words
        etas = [component.eta_squared for component in of.components]
        cells = [
            f"{right:.2f} ({chance:.3f})"
            for rates in of.rates
            for right, chance in ((rates.first, rates.first_chance), (rates.top, rates.top_chance))
        ]
        rows.append([
            of.attribute, f"{min(etas):.2f}-{max(etas):.2f}", f"{of.correlation:.2f}", p_value(of),
            f"{of.captions_right:.2f} ({of.captions_chance:.2f})", *cells,
        ])  # fmt: skip
    names = [f"{rates.dictionary} ({rates.texts:,}): {which}" for rates in proof.attributes[0].words.rates
             for which in ("first", "one of five")]  # fmt: skip
    return table(["attribute", "eta²", "mean correlation", "p", "captions right (chance)", *names], rows)


def first_components(proof: AttributeProof) -> str:
    """For every main attribute, the first component of the head with the largest share of it, in words."""
    rows = []
    for result in proof.main:
        component = result.first
        head = next(head for head in result.heads if head.unit == component.unit)
        for end in component.ends:
            rows.append([
                f"{component.unit}.{component.component} {end.sign}" if end.sign == "+" else end.sign,
                f"{result.attribute.name} {head.variance_share:.2f}" if end.sign == "+" else "",
                f"{component.explained_variance_ratio:.2f}" if end.sign == "+" else "",
                f"{component.eta_squared:.2f}" if end.sign == "+" else "",
                f"{component.correlation:.2f}" if end.sign == "+" else "",
                end.value, _said(end.caption, end.value), *(_bold(words) for words in end.words),
            ])  # fmt: skip
    names = [rates.dictionary for rates in proof.attributes[0].words.rates]
    columns = ["component", "attribute, share", "of the head", "eta²", "correlation", "images at this end", "captions"]
    return table([*columns, *names], rows)


def components(proof: AttributeProof, count: int = 3) -> str:
    """The clearest components of each main attribute: the value at each end, the captions' value, the words."""
    rows = []
    for result in proof.main:
        for component in result.words.components[:count]:
            for end in component.ends:
                rows.append([
                    result.attribute.name, f"{component.unit}.{component.component} {end.sign}",
                    f"{component.eta_squared:.2f}", f"{component.correlation:.2f}", end.value,
                    _said(end.caption, end.value), *(_bold(words) for words in end.words),
                ])  # fmt: skip
    names = [rates.dictionary for rates in proof.attributes[0].words.rates]
    return table(["attribute", "component", "eta²", "correlation", "images at the end", "captions", *names], rows)


def _said(caption: str, value: str) -> str:
    return caption if caption == value else f"*{caption}*"


def _bold(words: EndWords, count: int = 3) -> str:
    pairs = list(zip(words.texts, words.named, strict=True))[:count]
    return ", ".join(f"**{text}**" if named else text for text, named in pairs)


def _score(accuracy: float, error: float) -> str:
    return f"{accuracy:.3f} ± {error:.3f}"
