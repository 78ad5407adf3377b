"""Figures of selections: accuracy against the number of heads, layers left out, and overlap between data sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    INK,
    QUIET,
    SECOND,
    SERIES,
    Rows,
    legend,
    level,
    panels,
    percent_axis,
    shown,
    tips,
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
    """By file name: curves and layers of every data set, and the overlap between them where there are several.

    Of the tables `select_curves`, `select_layers` and `select_overlap`. split: behind the accuracies. keep_mlps: in the
    curves MLPs and embedding stay.
    """
    figures = {}
    names = list(dict.fromkeys(row["data"] for row in tables["select_layers"]))
    for i, name in enumerate(names):
        ending = "" if len(names) == 1 else f"_{i + 1}"
        layers, curves = (
            [row for row in tables[table] if row["data"] == name] for table in ("select_layers", "select_curves")
        )
        whole = next(row["accuracy"] for row in layers if row["kept"] == "all")
        figures[f"select_curves{ending}"] = Figure(partial(_curves, name, curves, whole, split, keep_mlps))
        figures[f"select_layers{ending}"] = Figure(partial(_layers, name, layers, whole, split))
    if len(names) > 1:
        figures["select_overlap"] = Figure(partial(_overlap, tables["select_overlap"]))
    return figures


def _curves(data: str, rows: Rows, whole: float, split: str, keep_mlps: bool) -> Any:
    """Accuracy against the number of heads, a panel per ablation; the band spans the random choices."""
    modes, scores = (tuple(dict.fromkeys(row[name] for row in rows)) for name in ("ablation", "score"))
    title = f"{_short(data)}: the best heads of each score"
    n_heads = max(row["n_heads"] for row in rows)
    figure, made = panels(1, len(modes), (1.4 + 4.4 * len(modes), 4.2), title)
    for axes, mode in zip(made, modes, strict=True):
        for k, score in enumerate(scores):
            points = [row for row in rows if (row["ablation"], row["score"]) == (mode, score)]
            if not points:
                continue
            x, mean, low, high = ([row[name] for row in points] for name in ("n_heads", "accuracy", "low", "high"))
            random = score == "R"
            color = QUIET if random else SERIES[k % (len(SERIES) - 1)]
            if random:
                axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
            style: dict[str, Any] = {"linestyle": "--"} if random else {"marker": _MARKS[k % len(_MARKS)]}
            every = max(1, len(points) // 12)
            axes.plot(
                x,
                mean,
                color=color,
                linewidth=1.6,
                markersize=4,
                markevery=every,
                label="random" if random else shown(score),
                **style,
            )
        level(axes, whole, "every unit")
        level(axes, 0.95 * whole, "95 % of that", ":")
        axes.set_xlim(0, n_heads + 1)
        axes.set_ylim(0, 1.05 * max(whole, *(row["high"] for row in rows)))
        percent_axis(axes.yaxis)
        axes.set_title(_TITLES[mode] + (", MLPs and embedding kept" if keep_mlps else ""))
        axes.set_xlabel(f"heads kept, of {n_heads}")
    made[0].set_ylabel(f"accuracy on {split} images")
    legend(figure, made[0], columns=4)
    return figure


def _layers(data: str, rows: Rows, whole: float, split: str) -> Any:
    """Accuracy by layer: one layer left out (left), and parts of the tower kept (right), a row per ablation."""
    modes = tuple(dict.fromkeys(row["ablation"] for row in rows))
    title = f"{_short(data)}: layers left out and kept"
    figure, made = panels(len(modes), 2, (9.8, 0.8 + 3.0 * len(modes)), title)
    for k, mode in enumerate(modes):
        left, right = made[2 * k], made[2 * k + 1]
        for axes, kinds in ((left, _LEFT_OUT), (right, _KEPT)):
            for kind, label, color, mark in kinds:
                points = [
                    row for row in rows if (row["kept"], row["ablation"]) == (kind, mode) and row["layer"] is not None
                ]
                layers, accuracy = ([row[name] for row in points] for name in ("layer", "accuracy"))
                (line,) = axes.plot(
                    layers, accuracy, color=color, marker=mark, markersize=4, linewidth=1.4, label=label
                )
                tips(line, [f"layer {row['layer']}, {label}: {100 * row['accuracy']:.1f} %" for row in points])
            level(axes, whole, "every unit")
            if axes is right:
                axes.set_ylim(0, None)
            low, high = axes.get_ylim()
            percent_axis(axes.yaxis, high - low)
            whole_ticks(axes)
            axes.set_xlabel("layer")
        left.set_title(f"one layer left out: {_PLACES[mode]}")
        right.set_title(f"only these kept, {_TITLES[mode]}")
        left.set_ylabel(f"accuracy on {split} images")
    for axes in made[:2]:
        axes.legend(fontsize=7.5, loc="best")
    return figure


def _overlap(rows: Rows) -> Any:
    """Jaccard overlap of the heads chosen for two data sets, mean over all pairs, against their number."""
    between = [row for row in rows if row["data"] != row["other_data"]]
    figure, (axes,) = panels(1, 1, (5.4, 4.0), "Heads chosen for two data sets")
    for k, score in enumerate(dict.fromkeys(row["score"] for row in between)):
        counts = sorted({row["n_heads"] for row in between})
        values = [[row["jaccard"] for row in between if (row["score"], row["n_heads"]) == (score, n)] for n in counts]
        means = [sum(part) / len(part) for part in values]
        axes.plot(counts, means, color=SERIES[k % (len(SERIES) - 1)], marker=_MARKS[k % len(_MARKS)], markersize=4,
                  label=shown(score))  # fmt: skip
    chance = sorted({(row["n_heads"], row["chance"]) for row in between})
    axes.plot(*zip(*chance, strict=True), color=QUIET, linestyle="--", label="chance")
    axes.set_xlabel("heads chosen")
    axes.set_ylabel("Jaccard overlap")
    axes.set_ylim(0, 1)
    legend(figure, axes)
    return figure


def _short(name: str) -> str:
    """The end of a path, for titles."""
    return shown(name.rstrip("/").rsplit("/", 1)[-1])
