"""Figures of what was learned, as matplotlib figures without a window or global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

if TYPE_CHECKING:
    from residualign.adapter.lambdas import LearningCurve, MovedComponent, PutBackCurve

__all__ = ["learning_figure", "moved_figure", "put_back_figure"]

# two hues that colour-blind readers tell apart, and a grey
_UP, _DOWN, _QUIET = "#0072b2", "#d55e00", "#8a8a8a"
_HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


def moved_figure(moved: Sequence[MovedComponent], top: int = 20) -> Figure:
    """The components that moved most as bars, and every lambda against the size of its effect."""
    shown = list(moved[:top])
    figure = Figure(figsize=(9.0, max(2.8, 1.1 + 0.22 * len(shown))), layout="constrained")
    bars, cloud = figure.subplots(1, 2, width_ratios=(1.25, 1))
    names = [one.label if one.component is None else f"{one.label} · {one.component}" for one in shown]
    positions = np.arange(len(shown))
    bars.barh(positions, [one.effect for one in shown], color=[_UP if one.value > 1 else _DOWN for one in shown])
    bars.set_yticks(positions, names, fontsize=8)
    bars.invert_yaxis()
    bars.margins(x=0.22)
    for position, one in zip(positions, shown, strict=True):
        bars.annotate(
            f"λ {one.value:.2f}",
            (one.effect, position),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    bars.set_xlabel("effect on the embedding (root mean square length)")
    bars.set_title("moved most: unit · component", fontsize=10, loc="left")
    values = np.array([one.value for one in moved])
    effects = np.array([one.effect for one in moved])
    cloud.scatter(effects, values, s=6, alpha=0.5, linewidths=0, c=np.where(values > 1, _UP, _DOWN))
    cloud.axhline(1.0, color=_QUIET, linewidth=0.8)
    cloud.set_xlabel("effect on the embedding")
    cloud.set_ylabel("λ")
    cloud.set_title(f"all {len(moved):,} lambdas", fontsize=10, loc="left")
    _plain(bars, cloud)
    return figure


def put_back_figure(curves: Sequence[PutBackCurve]) -> Figure:
    """Accuracy as lambdas are put back to one; random orders as a band from lowest to highest."""
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.subplots()
    total = curves[0].put_back[-1]
    random = [curve for curve in curves if curve.order == "random"]
    if random:
        shares = np.array(random[0].put_back) / total
        values = np.array([curve.accuracy for curve in random])
        axes.fill_between(shares, values.min(axis=0), values.max(axis=0), color=_QUIET, alpha=0.35, linewidth=0)
        axes.plot(shares, values.mean(axis=0), color=_QUIET, label=f"random, mean and range of {len(random)}")
    for order, colour in (("largest", _DOWN), ("smallest", _UP)):
        for curve in (one for one in curves if one.order == order):
            axes.plot(
                np.array(curve.put_back) / total,
                curve.accuracy,
                color=colour,
                label=f"{order} effect first",
                marker=".",
                markersize=4,
            )
    axes.set_xlabel(f"share of the {total:,} lambdas put back to 1")
    axes.set_ylabel(f"accuracy ({curves[0].n_images:,} images)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    _percents(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8.5)
    _plain(axes)
    return figure


def learning_figure(curves: Sequence[LearningCurve]) -> Figure:
    """Losses and validation accuracy by step, one colour a candidate."""
    runs = [curve for curve in curves if curve.step_name != "learning_rate"]
    figure = Figure(figsize=(9.0, 3.9), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for i, curve in enumerate(runs):
        colour, name = _HUES[i % len(_HUES)], curve.candidate or curve.solver
        steps = [point.step for point in curve.points]
        loss.plot(steps, _values(curve, "train_loss"), color=colour, linestyle=":", linewidth=1)
        loss.plot(steps, _values(curve, "val_loss"), color=colour)
        accuracy.plot(steps, _values(curve, "val_accuracy"), color=colour, label=name)
    step = f"outer {runs[0].step_name}" if runs and runs[0].step_name == "iteration" else "epoch"
    loss.set_ylabel("cross-entropy")
    loss.set_title("validation: lines; training, pull included: dots", fontsize=9, loc="left")
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    loss.yaxis.set_minor_formatter(NullFormatter())
    accuracy.set_ylabel("validation accuracy")
    _percents(accuracy)
    for axes in (loss, accuracy):
        axes.set_xlabel(step)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if runs:
        figure.legend(
            *accuracy.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=8
        )
    _plain(loss, accuracy)
    return figure


def _values(curve: LearningCurve, name: str) -> list[float]:
    return [float("nan") if (value := getattr(point, name)) is None else value for point in curve.points]


def _percents(axes: Any) -> None:
    """Ticks at round shares; a decimal where accuracies lie within a few points of each other."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=(1, 2, 5, 10)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.06 else 1))


def _plain(*all_axes: Any) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
