"""The figure of an ablation: what each factor does to accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from residualign.fitting.sweep import FACTORS, SettingSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["factor_figure"]

_TITLES = {
    "components": "components a unit",
    "scaled": "units scaled",
    "basis": "components from",
    "start": "lambdas begin at",
    "learning_rate": "learning rate",
}
_NAMES = {"none": "L-BFGS", "auto": "found"}
_DOT, _MEAN, _BEST, _GREY = "#56B4E9", "#222222", "#D55E00", "#444444"


def factor_figure(summaries: Sequence[SettingSummary], zero_shot: float | None, name: str) -> Figure:
    """A panel for every factor with several levels: a dot a setting (mean over its seeds), the mean, and the best.

    The best is the one of best validation accuracy. Without test images accuracy is that of validation.
    """
    from matplotlib.figure import Figure

    on_test = all(one.test is not None for one in summaries)
    shown = [i for i in range(len(FACTORS)) if len({one.factors[i] for one in summaries}) > 1] or [0]
    widths = [1.2 + len({one.factors[i] for one in summaries}) for i in shown]
    figure = Figure(figsize=(1.6 + 0.75 * sum(widths), 3.9), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, i in zip(panels, shown, strict=True):
        levels = list(dict.fromkeys(one.factors[i] for one in summaries))
        for x, level in enumerate(levels):
            group = [one for one in summaries if one.factors[i] == level]
            values = [100 * _accuracy(one) for one in group]
            # side by side, so that equal accuracies can be counted
            spread = [x + 0.5 * ((k + 0.5) / len(group) - 0.5) for k in range(len(group))]
            best = max(range(len(group)), key=lambda k: (group[k].val, -group[k].parameters))
            axes.scatter(spread, values, s=16, color=_DOT, zorder=2, label="a setting, mean of its seeds")
            axes.hlines(fmean(values), x - 0.32, x + 0.32, color=_MEAN, linewidth=1.6, zorder=3, label="mean")
            axes.scatter(
                spread[best], values[best], s=42, marker="D", color=_BEST, zorder=4, label="best on validation"
            )
        if zero_shot is not None and on_test:
            axes.axhline(100 * zero_shot, color=_GREY, linestyle=":", linewidth=1.0, label="before adapting")
        axes.set_xticks(range(len(levels)), [_NAMES.get(level, level) for level in levels], fontsize=8.5)
        axes.set_xlim(-0.6, len(levels) - 0.4)
        axes.set_title(_TITLES[FACTORS[i]], fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel(f"{'test' if on_test else 'validation'} accuracy, %")
    figure.suptitle(name.rstrip("/").rsplit("/", 1)[-1], fontsize=11, parse_math=False)
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _accuracy(one: SettingSummary) -> float:
    return one.val if one.test is None else one.test
