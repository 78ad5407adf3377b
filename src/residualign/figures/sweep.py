"""The figure of a grid of fits: what each factor does to accuracy."""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import Any

from residualign.figures._figure import Figure
from residualign.figures._style import ACCENT, INK, SECOND, Rows, legend, level, panels, percent_axis, shown, tips

__all__ = ["sweep_figures"]

_TITLES = {
    "components": "components per unit",
    "scaled": "units scaled",
    "basis": "components from",
    "start": "lambdas begin at",
    "learning_rate": "learning rate",
}
_NAMES = {"none": "L-BFGS", "auto": "found"}


def sweep_figures(settings: Rows, title: str, zero_shot: float | None, name: str = "factors") -> dict[str, Figure]:
    """By name, the one figure of a table with one row per setting.

    zero_shot: test accuracy before adapting; None without test images, and then accuracy is that of validation.
    """
    return {name: Figure(partial(_factors, settings, title, zero_shot))}


def _factors(settings: Rows, title: str, zero_shot: float | None) -> Any:
    """A panel for every factor with several levels: a dot per setting (mean over its seeds), the mean, and the best."""
    accuracy = "test" if all(row["test"] is not None for row in settings) else "val"
    levels = {factor: list(dict.fromkeys(row[factor] for row in settings)) for factor in _TITLES}
    varied = [factor for factor in _TITLES if len(levels[factor]) > 1] or ["components"]
    widths = [1.2 + len(levels[factor]) for factor in varied]
    size = (1.8 + 0.75 * sum(widths), 3.9)
    figure, made = panels(1, len(varied), size, title, sharey=True, width_ratios=widths)
    for axes, factor in zip(made, varied, strict=True):
        for x, at in enumerate(levels[factor]):
            _level(axes, x, [row for row in settings if row[factor] == at], accuracy)
        if zero_shot is not None and accuracy == "test":
            level(axes, zero_shot, "before adapting", ":")
        axes.set_xticks(range(len(levels[factor])), [shown(_NAMES.get(at, at), 14) for at in levels[factor]])
        axes.set_xlim(-0.6, len(levels[factor]) - 0.4)
        axes.set_title(_TITLES[factor])
    made[0].set_ylabel(f"{'test' if accuracy == 'test' else 'validation'} accuracy")
    low, high = made[0].get_ylim()
    percent_axis(made[0].yaxis, high - low)
    legend(figure, made[0], columns=4 if size[0] > 6 else 2)
    return figure


def _level(axes: Any, x: int, group: Rows, accuracy: str) -> None:
    values = [row[accuracy] for row in group]
    # side by side, so that equal accuracies can be counted
    spread = [x + 0.5 * ((k + 0.5) / len(group) - 0.5) for k in range(len(group))]
    best = max(range(len(group)), key=lambda k: (group[k]["val"], -group[k]["parameters"]))
    dots = axes.scatter(spread, values, s=16, color=ACCENT, alpha=0.6, zorder=2, label="a setting, mean of its seeds")
    tips(dots, [", ".join(str(row[name]) for name in _TITLES) + f": {100 * row[accuracy]:.1f} %" for row in group])
    axes.hlines(fmean(values), x - 0.32, x + 0.32, color=INK, linewidth=1.6, zorder=3, label="mean")
    axes.scatter(
        spread[best], values[best], s=42, marker="D", color=SECOND, zorder=4, label="best on validation images"
    )
