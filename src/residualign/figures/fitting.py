"""The figures of fits: which lambdas moved, accuracy as they are reset to 1, learning curves, sweeps over settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from residualign._messages import minus
from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    INK,
    NARROW,
    QUIET,
    SECOND,
    SERIES,
    Rows,
    column,
    grouped,
    legend,
    level,
    line,
    log_ticks,
    panels,
    percent_axis,
    shown,
    tips,
    whole_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["lambda_figures", "sweep_figures"]

_FACTORS = {
    "components": "components per unit",
    "scaled": "units scaled",
    "basis": "components from",
    "start": "lambdas begin at",
    "learning_rate": "learning rate",
}
_LEVELS = {"none": "L-BFGS", "auto": "found"}


def lambda_figures(
    tables: Mapping[str, Rows], title: str = "", *, n_images: int, scale_free: bool = False, top: int = 20
) -> dict[str, Figure]:
    """Figures by name, from the tables `moved`, `put_back` and `learning_curves`; a table may be absent or empty.

    n_images: number of images behind the accuracies of `put_back`. scale_free: whether the lambdas are divided by
    their root mean square. top: bars in the figure `moved`.
    """
    figures = {}
    if moved := tables.get("moved"):
        figures["moved"] = Figure(partial(_moved, moved, title, top, "λ / rms" if scale_free else "λ"))
    if rows := tables.get("put_back"):
        draw = partial(_put_back, rows, title, n_images)
        figures["put_back"] = Figure(draw, partial(draw, width=NARROW))
    if curves := [row for row in tables.get("learning_curves", ()) if row["step_name"] != "learning_rate"]:
        draw = partial(_learning, curves, title)
        figures["learning_curves"] = Figure(draw, partial(draw, columns=1))
    return figures


def sweep_figures(settings: Rows, title: str, zero_shot: float | None, name: str = "factors") -> dict[str, Figure]:
    """The one figure of a table with one row per setting, by `name`.

    zero_shot: test accuracy before adapting; None without test images, where validation accuracy is shown.
    """
    return {name: Figure(partial(_sweep, settings, title, zero_shot))}


def _moved(moved: Rows, title: str, top: int, name: str) -> Any:
    """The components that moved most as bars, and every lambda against the size of its effect."""
    rows = moved[:top]
    size = (9.0, max(2.8, 1.1 + 0.22 * len(rows)))
    figure, (bars, cloud) = panels(1, 2, size, title, width_ratios=(1.25, 1))
    # without the variance of images, lambdas are ordered by their distance from 1
    known = all(row["effect"] is not None for row in moved)
    sizes = column(moved, "effect") if known else [abs(row["lambda"] - 1) for row in moved]
    names = [row["label"] if row["component"] is None else f"{row['label']} · {row['component']}" for row in rows]
    colors = [ACCENT if row["lambda"] > 1 else SECOND for row in moved]
    made = bars.barh(range(len(rows)), sizes[:top], color=colors[:top])
    bars.bar_label(made, [minus(f"{name} {row['lambda']:.2f}") for row in rows], padding=3, fontsize=7.5)
    bars.set_yticks(range(len(rows)), names)
    bars.invert_yaxis()
    bars.margins(x=0.22)
    what = "effect on the embedding" if known else f"|{name} − 1|"
    bars.set(xlabel=f"{what} (root mean square length)" if known else what, title="moved most: unit · component")
    dots = cloud.scatter(sizes, column(moved, "lambda"), s=6, alpha=0.6, linewidths=0, c=colors)
    dots.set_rasterized(len(moved) > 5000)
    cloud.axhline(1.0, color=QUIET, linewidth=0.8)
    cloud.set(xlabel=what, ylabel=name, title=f"all {len(moved):,} lambdas")
    return figure


def _put_back(rows: Rows, title: str, n_images: int, width: float = 6.4) -> Any:
    """Accuracy as lambdas are reset to 1; several random orders as a band from lowest to highest."""
    figure, (axes,) = panels(1, 1, (width, 3.6), title)
    total = max(row["put_back"] for row in rows)
    orders = grouped([{**row, "share": row["put_back"] / total} for row in rows], "order", "seed")
    random = [points for (order, _), points in orders.items() if order == "random"]
    if random:
        shares = column(random[0], "share")
        values = list(zip(*(column(points, "accuracy") for points in random), strict=True))
        several = f", mean and range of {len(random)}" if len(random) > 1 else ""
        axes.fill_between(shares, [*map(min, values)], [*map(max, values)], color=QUIET, alpha=0.3, linewidth=0)
        axes.plot(shares, [*map(fmean, values)], color=QUIET, label=f"random order{several}")
    for name, color in (("largest", SECOND), ("smallest", ACCENT)):
        points = orders.get((name, None))
        if points:
            texts = [f"{row['put_back']:,} reset: {100 * row['accuracy']:.1f} %" for row in points]
            style = {"color": color, "marker": ".", "markersize": 5, "label": f"{name} effect first"}
            line(axes, points, "share", "accuracy", texts, **style)
    level(axes, rows[0]["accuracy"], "as learned", ":")
    axes.set(xlabel=f"share of the {total:,} lambdas reset to 1", ylabel=f"accuracy on {n_images:,} images")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend(figure, axes, columns=2)
    return figure


def _learning(rows: Rows, title: str, columns: int = 2) -> Any:
    """Losses and validation accuracy by step, one color per candidate."""
    size = (9.0, 3.9) if columns > 1 else (NARROW, 6.4)
    figure, (loss, accuracy) = panels(2 // columns, columns, size, title)
    for i, ((solver, candidate), points) in enumerate(grouped(rows, "solver", "candidate").items()):
        style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "linewidth": 1.3}
        line(loss, points, "step", "train_loss", linestyle=":", **style)
        line(loss, points, "step", "val_loss", **style)
        line(accuracy, points, "step", "val_accuracy", label=shown(candidate or solver), **style)
    loss.set(ylabel="cross-entropy (logarithmic)", title="solid: validation; dotted: training and penalty")
    loss.set_yscale("log")
    log_ticks(loss.yaxis)
    accuracy.set_title("validation accuracy")
    percent_axis(accuracy.yaxis)
    for axes in (loss, accuracy):
        axes.set_xlabel("L-BFGS iteration" if rows[0]["step_name"] == "iteration" else "epoch")
        whole_ticks(axes)
    legend(figure, accuracy, columns=columns)
    return figure


def _sweep(settings: Rows, title: str, zero_shot: float | None) -> Any:
    """A panel per factor with several levels: a dot per setting (mean over its seeds), their mean, and the best one."""
    split = "test" if all(row["test"] is not None for row in settings) else "val"
    levels = {factor: grouped(settings, factor) for factor in _FACTORS}
    varied = [factor for factor in _FACTORS if len(levels[factor]) > 1] or ["components"]
    widths = [1.2 + len(levels[factor]) for factor in varied]
    size = (1.8 + 0.75 * sum(widths), 3.9)
    figure, made = panels(1, len(varied), size, title, sharey=True, width_ratios=widths)
    for axes, factor in zip(made, varied, strict=True):
        names = [shown(_LEVELS.get(at, at), 14) for (at,) in levels[factor]]
        for x, group in enumerate(levels[factor].values()):
            _level(axes, x, group, split)
        if zero_shot is not None and split == "test":
            level(axes, zero_shot, "before adapting", ":")
        axes.set_xticks(range(len(names)), names)
        axes.set(xlim=(-0.6, len(names) - 0.4), title=_FACTORS[factor])
    made[0].set_ylabel(f"{'test' if split == 'test' else 'validation'} accuracy")
    percent_axis(made[0].yaxis)
    legend(figure, made[0], columns=4 if size[0] > 6 else 2)
    return figure


def _level(axes: Axes, x: int, group: Rows, split: str) -> None:
    values = column(group, split)
    # side by side, so that equal accuracies can be counted
    spread = [x + 0.5 * ((k + 0.5) / len(group) - 0.5) for k in range(len(group))]
    best = max(range(len(group)), key=lambda k: (group[k]["val"], -group[k]["parameters"]))
    dots = axes.scatter(spread, values, s=16, color=ACCENT, alpha=0.6, zorder=2, label="a setting, mean of its seeds")
    tips(dots, [", ".join(str(row[name]) for name in _FACTORS) + f": {100 * row[split]:.1f} %" for row in group])
    axes.hlines(fmean(values), x - 0.32, x + 0.32, color=INK, linewidth=1.6, zorder=3, label="mean")
    label = "best on validation images"
    axes.scatter(spread[best], values[best], s=42, marker="D", color=SECOND, zorder=4, label=label)
