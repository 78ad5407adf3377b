"""What `similarity` found as JSON and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from residualign.commands.similarity import Compared, SimilarityOutcome

__all__ = ["similarity_payload", "similarity_tables"]

_COSINES = ("weighted", "unweighted", "weighted_optimal", "unweighted_optimal")
_MEANS = ("cosine", "pearson", "spearman", "euclidean", "relative_cosine", "relative_pearson", "relative_spearman")

Line = dict[str, Any]


def similarity_payload(outcome: SimilarityOutcome) -> Line:
    """The one JSON object."""
    settings = outcome.settings
    return {
        "split": settings.split,
        "variance_threshold": settings.variance_threshold,
        "anchors": settings.anchors,
        "seed": settings.seed,
        "same_space": settings.same_space,
        "first": outcome.first.describe(),
        "comparisons": [
            {
                "second": compared.second.describe(),
                "output": _line_of_output(compared),
                "layers": _layer_lines(compared),
                "units": _unit_lines(compared),
                "pairs": _pairs(compared),
            }
            for compared in outcome.compared
        ],
        "n_skipped": len(outcome.skipped),
        "skipped": list(outcome.skipped),
    }


def similarity_tables(outcome: SimilarityOutcome) -> dict[str, list[Line]]:
    """`units` and `layers`, and `pairs` where they were asked for, a line for each comparison and unit."""
    tables: dict[str, list[Line]] = {"units": [], "layers": [], "pairs": []}
    for compared in outcome.compared:
        who = {"first": compared.first.name, "second": compared.second.name}
        output = _line_of_output(compared)
        tables["units"] += [who | line for line in (*_unit_lines(compared), *([output] if output else []))]
        tables["layers"] += [who | line for line in _layer_lines(compared)]
        tables["pairs"] += [who | line for line in _pair_lines(compared)]
    return {name: table for name, table in tables.items() if table}


def _unit_lines(compared: Compared) -> list[Line]:
    if compared.spectral is None and compared.cka is None:
        return []
    means = {} if compared.means is None else {line.label: line for line in compared.means}
    cka = {} if compared.cka is None else {line.label: line for line in compared.cka}
    lines: list[Line] = []
    of_same_tower = compared.first.spectra.units == compared.second.spectra.units
    for unit in compared.units if of_same_tower else ():
        line: Line = {"label": unit.label, "kind": unit.kind, "layer": unit.layer, "head": unit.head}
        line |= _spectral(compared, unit.label)
        mean = means.get(unit.label)
        line |= {f"mean_{name}": None if mean is None else getattr(mean, name) for name in _MEANS}
        lines.append(line | _cka(cka.get(unit.label)))
    return lines


def _line_of_output(compared: Compared) -> Line | None:
    if compared.spectral is None and compared.cka is None:
        return None
    line: Line = {"label": "output", "kind": "output", "layer": None, "head": None}
    line |= _spectral(compared, "output")
    line |= {f"mean_{name}": None for name in _MEANS}
    return line | _cka(None if compared.cka is None else compared.cka[-1])


def _spectral(compared: Compared, label: str) -> Line:
    if compared.spectral is None:
        return dict.fromkeys(("n_components_first", "n_components_second", *_COSINES))
    unit = compared.spectral[label]
    counts = {"n_components_first": unit.n_components[0], "n_components_second": unit.n_components[1]}
    return counts | asdict(unit.cosine)


def _cka(line: Any) -> Line:
    return {"cka": None if line is None else line.cka, "cka_debiased": None if line is None else line.debiased}


def _layer_lines(compared: Compared) -> list[Line]:
    if compared.spectral is None:
        return []
    return [
        {"layer": line.layer, "kind": line.kind, **asdict(line.cosine)}
        for kind in ("head", "mlp")
        for line in compared.spectral.layers(kind)
    ]


def _pairs(compared: Compared) -> Line | None:
    either = compared.pairs or compared.pairs_cka
    if either is None:
        return None
    of_cka, of_bases = compared.pairs_cka, compared.pairs
    return {
        "rows": [unit.label for unit in either.rows],
        "columns": [unit.label for unit in either.columns],
        "matching": None if of_bases is None else of_bases.matching,
        "weighted": None if of_bases is None else of_bases.weighted.tolist(),
        "unweighted": None if of_bases is None else of_bases.unweighted.tolist(),
        "cka": None if of_cka is None else of_cka.cka.tolist(),
        "cka_debiased": None if of_cka is None else of_cka.debiased.tolist(),
    }


def _pair_lines(compared: Compared) -> list[Line]:
    pairs = _pairs(compared)
    if pairs is None:
        return []
    names = ("weighted", "unweighted", "cka", "cka_debiased")
    return [
        {
            "row": row,
            "column": column,
            **{name: None if pairs[name] is None else pairs[name][i][j] for name in names},
        }
        for i, row in enumerate(pairs["rows"])
        for j, column in enumerate(pairs["columns"])
    ]
