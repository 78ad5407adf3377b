"""The figures of `select`: accuracy by number of heads, layers left out or kept, and overlap between data sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import Any

from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    INK,
    QUIET,
    SECOND,
    SERIES,
    Rows,
    column,
    grouped,
    legend,
    level,
    line,
    panels,
    percent_axis,
    shown,
    whole_ticks,
)

__all__ = ["select_figures"]

_MARKS = "os^Dv"
_LEFT_OUT = (
    ("without heads", "its heads", ACCENT, "o"),
    ("without mlp", "its MLP", SECOND, "s"),
    ("without layer", "both", INK, "D"),
)
_KEPT = (
    ("heads of layer", "heads of this layer alone", QUIET, "x"),
    ("heads up to layer", "heads up to this layer", ACCENT, "^"),
    ("heads from layer", "heads from this layer on", "#56b4e9", "v"),
    ("up to layer", "all units up to this layer", SECOND, "o"),
    ("from layer", "all units from this layer on", "#e69f00", "s"),
)
_TITLES = {"mean": "the rest at its mean", "zero": "the rest zero"}
_PLACES = {"mean": "its mean in its place", "zero": "nothing in its place"}


def select_figures(tables: Mapping[str, Rows], split: str = "test", keep_mlps: bool = False) -> dict[str, Figure]:
    """Figures by name: curves and layers of every data set, and the overlap between several.

    From the tables `select_curves`, `select_layers` and `select_overlap`. split: of the accuracies. keep_mlps: whether
    MLPs and embedding are kept in the curves.
    """
    figures = {}
    of_layers, of_curves = (grouped(tables[name], "data") for name in ("select_layers", "select_curves"))
    for i, ((name,), layers) in enumerate(of_layers.items()):
        ending = "" if len(of_layers) == 1 else f"_{i + 1}"
        curves = of_curves[name,]
        whole = next(row["accuracy"] for row in layers if row["kept"] == "all")
        figures[f"select_curves{ending}"] = Figure(partial(_curves, name, curves, whole, split, keep_mlps))
        figures[f"select_layers{ending}"] = Figure(partial(_layers, name, layers, whole, split))
    if len(of_layers) > 1:
        figures["select_overlap"] = Figure(partial(_overlap, tables["select_overlap"]))
    return figures


def _curves(data: str, rows: Rows, whole: float, split: str, keep_mlps: bool) -> Any:
    """Accuracy against the number of heads, a panel per ablation; the band spans the random choices."""
    modes, scores = (dict.fromkeys(row[name] for row in rows) for name in ("ablation", "score"))
    curves = grouped(rows, "ablation", "score")
    n_heads = max(row["n_heads"] for row in rows)
    figure, made = panels(1, len(modes), (1.4 + 4.4 * len(modes), 4.2), f"{_short(data)}: the best heads of each score")
    for axes, mode in zip(made, modes, strict=True):
        for k, score in enumerate(scores):
            points = curves.get((mode, score), [])
            style: dict[str, Any] = _of_score(k) | {"label": shown(score), "markevery": max(1, len(points) // 12)}
            if score == "R":
                style = {"color": QUIET, "label": "random", "linestyle": "--"}
                x, low, high = (column(points, name) for name in ("n_heads", "low", "high"))
                axes.fill_between(x, low, high, color=QUIET, alpha=0.18, linewidth=0)
            line(axes, points, "n_heads", "accuracy", **style)
        level(axes, whole, "every unit")
        level(axes, 0.95 * whole, "95 % of that", ":")
        axes.set(xlim=(0, n_heads + 1), ylim=(0, 1.05 * max(whole, *column(rows, "high"))))
        percent_axis(axes.yaxis)
        axes.set_title(_TITLES[mode] + (", MLPs and embedding kept" if keep_mlps else ""))
        axes.set_xlabel(f"heads kept, of {n_heads}")
    made[0].set_ylabel(f"accuracy on {split} images")
    legend(figure, made[0], columns=4)
    return figure


def _of_score(k: int) -> dict[str, Any]:
    """Color and marker of the k-th score; gray is for random choices."""
    return {"color": SERIES[k % (len(SERIES) - 1)], "marker": _MARKS[k % len(_MARKS)]}


def _layers(data: str, rows: Rows, whole: float, split: str) -> Any:
    """Accuracy by layer: one layer left out (left), and parts of the tower kept (right), a row per ablation."""
    lines = grouped([row for row in rows if row["layer"] is not None], "ablation", "kept")
    modes = dict.fromkeys(row["ablation"] for row in rows)
    title = f"{_short(data)}: layers left out and kept"
    figure, made = panels(len(modes), 2, (9.8, 0.8 + 3.0 * len(modes)), title)
    for mode, left, right in zip(modes, made[::2], made[1::2], strict=True):
        left.set(title=f"one layer left out: {_PLACES[mode]}", ylabel=f"accuracy on {split} images")
        right.set_title(f"only these kept, {_TITLES[mode]}")
        for axes, kinds in ((left, _LEFT_OUT), (right, _KEPT)):
            for kind, label, color, mark in kinds:
                points = lines.get((mode, kind), [])
                texts = [f"layer {row['layer']}, {label}: {100 * row['accuracy']:.1f} %" for row in points]
                line(axes, points, "layer", "accuracy", texts, color=color, marker=mark, label=label)
            level(axes, whole, "every unit")
            if axes is right:
                axes.set_ylim(0, None)
            percent_axis(axes.yaxis)
            whole_ticks(axes)
            axes.set_xlabel("layer")
    for axes in made[:2]:
        axes.legend(fontsize=7.5, loc="best")
    return figure


def _overlap(rows: Rows) -> Any:
    """Jaccard overlap of the heads chosen for two data sets, mean over all pairs, against their number."""
    between = sorted((row for row in rows if row["data"] != row["other_data"]), key=lambda row: row["n_heads"])
    figure, (axes,) = panels(1, 1, (5.4, 4.0), "Heads chosen for two data sets")
    for k, score in enumerate(dict.fromkeys(row["score"] for row in between)):
        pairs = grouped([row for row in between if row["score"] == score], "n_heads")
        means = [fmean(column(same, "jaccard")) for same in pairs.values()]
        axes.plot([n for (n,) in pairs], means, **_of_score(k), label=shown(score))
    chance = grouped(between, "n_heads", "chance")
    axes.plot(*zip(*chance, strict=True), color=QUIET, linestyle="--", label="chance")
    axes.set(xlabel="heads chosen", ylabel="Jaccard overlap", ylim=(0, 1))
    legend(figure, axes)
    return figure


def _short(name: str) -> str:
    """The end of a path, for titles."""
    return shown(name.rstrip("/").rsplit("/", 1)[-1])
