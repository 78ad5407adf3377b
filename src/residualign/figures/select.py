"""Figures of selections: accuracy against the number of heads, layers left out, and overlap between data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from residualign.selection.result import Overlap, SelectionStudy
from residualign.selection.scores import score_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["select_figures"]

# told apart by readers who see few colours (Okabe and Ito)
_COLOURS = {"S": "#D55E00", "U": "#0072B2", "UT": "#009E73", "cosine": "#CC79A7", "R": "#777777"}
_MARKS = {"S": "o", "U": "s", "UT": "^", "cosine": "D", "R": ""}
_LEFT_OUT = (("without heads", "its heads", "#0072B2", "o"), ("without mlp", "its MLP", "#D55E00", "s"))
_LEFT_OUT_BOTH = ("without layer", "both", "#222222", "D")
_KEPT = (
    ("heads of layer", "heads of this layer alone", "#777777", "x"),
    ("heads up to layer", "heads up to this layer", "#0072B2", "^"),
    ("heads from layer", "heads from this layer on", "#56B4E9", "v"),
    ("up to layer", "all units up to this layer", "#D55E00", "o"),
    ("from layer", "all units from this layer on", "#E69F00", "s"),
)
_TITLES = {"mean": "the rest at its mean", "zero": "the rest zero"}
_GREY = "#444444"


def select_figures(
    studies: Sequence[SelectionStudy], overlaps: Sequence[Overlap]
) -> Mapping[str, Callable[[], Figure]]:
    """By file name: curves and layers of every study, and the overlap between data sets where there are several."""
    figures: dict[str, Callable[[], Figure]] = {}
    for i, study in enumerate(studies):
        ending = "" if len(studies) == 1 else f"_{i + 1}"
        figures[f"select_curves{ending}"] = partial(curve_figure, study)
        figures[f"select_layers{ending}"] = partial(layer_figure, study)
    if len(studies) > 1:
        figures["select_overlap"] = partial(overlap_figure, overlaps)
    return figures


def curve_figure(study: SelectionStudy) -> Figure:
    """Accuracy against the number of heads, a panel an ablation; the band spans the random choices."""
    modes = tuple(dict.fromkeys(curve.ablation for curve in study.curves))
    figure, panels = _panels(1, len(modes), f"{_short(study.name)}: the best heads of each score")
    for axes, mode in zip(panels, modes, strict=True):
        x = range(1, study.n_heads + 1)
        for one in study.summaries:
            if one.ablation != mode:
                continue
            mean, low, high = ([100 * value for value in part] for part in (one.mean, one.low, one.high))
            if one.score == "R":
                axes.fill_between(x, low, high, color=_COLOURS["R"], alpha=0.18, linewidth=0, label=None)
            axes.plot(
                x,
                mean,
                color=_COLOURS[one.score],
                linestyle="--" if one.score == "R" else "-",
                linewidth=1.6,
                marker=_MARKS[one.score],
                markersize=4,
                markevery=[budget.n_heads - 1 for budget in study.budgets],
                label=f"random, {one.n_seeds} seeds" if one.score == "R" else one.title,
            )
        _line(axes, 100 * study.accuracy, "every unit", "-")
        _line(axes, 95 * study.accuracy, "95 % of that", ":")
        axes.set_xlim(0, study.n_heads + 1)
        axes.set_ylim(0, 105 * max(study.accuracy, *(max(one.high) for one in study.summaries)))
        axes.set_title(_title(mode, study.keep_mlps), fontsize=10)
        axes.set_xlabel(f"heads kept, of {study.n_heads}")
    panels[0].set_ylabel(f"accuracy on {study.n_images:,} {study.split} images, %")
    _legend(figure, panels[0])
    return figure


def layer_figure(study: SelectionStudy) -> Figure:
    """Accuracy by layer: one layer left out (left), and parts of the tower kept (right), a row an ablation."""
    from matplotlib.ticker import MaxNLocator

    modes = tuple(dict.fromkeys(one.ablation for one in study.layers))
    figure, panels = _panels(len(modes), 2, f"{_short(study.name)}: layers left out and kept")
    for row, mode in enumerate(modes):
        left, right = panels[2 * row], panels[2 * row + 1]
        for axes, kinds in ((left, (*_LEFT_OUT, _LEFT_OUT_BOTH)), (right, _KEPT)):
            for kind, title, colour, mark in kinds:
                found = [one for one in study.layers if one.kind == kind and one.ablation == mode]
                layers = [one.layer for one in found if one.layer is not None]
                accuracy = [100 * one.accuracy for one in found]
                axes.plot(layers, accuracy, color=colour, marker=mark, markersize=4, linewidth=1.4, label=title)
            _line(axes, 100 * study.accuracy, "every unit", "-")
            if axes is right:
                axes.set_ylim(0, None)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if row == len(modes) - 1:
                axes.set_xlabel("layer")
        left.set_title(f"one layer left out: {_place(mode)}", fontsize=10)
        right.set_title(f"only these kept, {_TITLES[mode]}", fontsize=10)
        left.set_ylabel("accuracy, %")
    for axes in panels[:2]:
        axes.legend(fontsize=7.5, frameon=False, loc="best")
    return figure


def overlap_figure(overlaps: Sequence[Overlap]) -> Figure:
    """Jaccard overlap of the heads chosen for two data sets, mean over all pairs, against their number."""
    between = [one for one in overlaps if one.first[0] != one.second[0]]
    figure, (axes,) = _panels(1, 1, "Heads chosen for two data sets")
    for score in dict.fromkeys(one.first[1] for one in between):
        counts = sorted({one.n_heads for one in between})
        values = [[one.jaccard for one in between if (one.first[1], one.n_heads) == (score, k)] for k in counts]
        means = [sum(part) / len(part) for part in values]
        axes.plot(counts, means, color=_COLOURS[score], marker=_MARKS[score], markersize=4, label=score_title(score))
    chance = sorted({(one.n_heads, one.expected) for one in between})
    axes.plot(*zip(*chance, strict=True), color=_GREY, linestyle="--", label="chance")
    axes.set_xlabel("heads chosen")
    axes.set_ylabel("Jaccard overlap")
    axes.set_ylim(0, 1)
    _legend(figure, axes)
    return figure


def _short(name: str) -> str:
    """The end of a path, for titles."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def _panels(rows: int, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    # imported here: drawing libraries take a second, and most runs draw nothing
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 + 4.4 * columns, 0.8 + 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure, panels


def _line(axes: Axes, value: float, label: str, style: str) -> None:
    axes.axhline(value, color=_GREY, linestyle=style, linewidth=0.9, label=label, zorder=1)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5)


def _title(mode: str, keep_mlps: bool) -> str:
    return _TITLES[mode] + (", MLPs and embedding kept" if keep_mlps else "")


def _place(mode: str) -> str:
    return "its mean in its place" if mode == "mean" else "nothing in its place"
