"""Figures of what was learned: the lambdas that moved most, accuracy as they are reset to 1, learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from residualign.figures._figure import Figure
from residualign.figures._style import (
    ACCENT,
    NARROW,
    QUIET,
    SECOND,
    SERIES,
    Rows,
    legend,
    level,
    number,
    panels,
    percent_axis,
    shown,
    tips,
    whole_ticks,
)

__all__ = ["lambda_figures"]


def lambda_figures(
    tables: Mapping[str, Rows], title: str = "", *, n_images: int, scale_free: bool = False, top: int = 20
) -> dict[str, Figure]:
    """Figures by name, of the tables `moved`, `put_back` and `learning_curves`; a table may be absent or empty.

    n_images: behind the accuracies of `put_back`. scale_free: the lambdas are over their root mean square.
    """
    figures = {}
    if moved := tables.get("moved"):
        figures["moved"] = Figure(partial(_moved, moved, title, top, "λ / rms" if scale_free else "λ"))
    if rows := tables.get("put_back"):
        draw = partial(_put_back, rows, title, n_images)
        figures["put_back"] = Figure(draw, partial(draw, width=NARROW))
    curves = [row for row in tables.get("learning_curves", ()) if row["step_name"] != "learning_rate"]
    if curves:
        draw = partial(_learning, curves, title)
        figures["learning_curves"] = Figure(draw, partial(draw, columns=1))
    return figures


def _moved(moved: Rows, title: str, top: int, name: str) -> Any:
    """The components that moved most as bars, and every lambda against the size of its effect."""
    rows = moved[:top]
    size = (9.0, max(2.8, 1.1 + 0.22 * len(rows)))
    figure, (bars, cloud) = panels(1, 2, size, title, width_ratios=(1.25, 1))
    names = [row["label"] if row["component"] is None else f"{row['label']} · {row['component']}" for row in rows]
    made = bars.barh(range(len(rows)), [row["effect"] for row in rows], color=[_color(row["lambda"]) for row in rows])
    bars.set_yticks(range(len(rows)), names)
    bars.invert_yaxis()
    bars.margins(x=0.22)
    bars.bar_label(made, [f"{name} {row['lambda']:.2f}" for row in rows], padding=3, fontsize=7.5)
    bars.set_xlabel("effect on the embedding (root mean square length)")
    bars.set_title("moved most: unit · component")
    colors = [_color(row["lambda"]) for row in moved]
    effects, values = [row["effect"] for row in moved], [row["lambda"] for row in moved]
    dots = cloud.scatter(effects, values, s=6, alpha=0.6, linewidths=0, c=colors)
    dots.set_rasterized(len(moved) > 5000)
    cloud.axhline(1.0, color=QUIET, linewidth=0.8)
    cloud.set_xlabel("effect on the embedding")
    cloud.set_ylabel(name)
    cloud.set_title(f"all {len(moved):,} lambdas")
    return figure


def _color(value: float) -> str:
    return ACCENT if value > 1 else SECOND


def _put_back(rows: Rows, title: str, n_images: int, width: float = 6.4) -> Any:
    """Accuracy as lambdas are reset to 1; several random orders as a band from lowest to highest."""
    figure, (axes,) = panels(1, 1, (width, 3.6), title)
    total = max(row["put_back"] for row in rows)
    orders: dict[tuple[str, int | None], list[tuple[float, float]]] = {}
    for row in rows:
        point = (row["put_back"] / total, row["accuracy"])
        orders.setdefault((row["order"], row["seed"]), []).append(point)
    random = [points for (order, _), points in orders.items() if order == "random"]
    if random:
        shares = [share for share, _ in random[0]]
        values = [[points[k][1] for points in random] for k in range(len(shares))]
        several = f", mean and range of {len(random)}" if len(random) > 1 else ""
        axes.fill_between(shares, [*map(min, values)], [*map(max, values)], color=QUIET, alpha=0.3, linewidth=0)
        means = [sum(one) / len(one) for one in values]
        axes.plot(shares, means, color=QUIET, linewidth=1.5, label=f"random order{several}")
    for name, color in (("largest", SECOND), ("smallest", ACCENT)):
        for (order, _), points in orders.items():
            if order == name:
                label = f"{name} effect first"
                (line,) = axes.plot(*zip(*points, strict=True), color=color, marker=".", markersize=5, label=label)
                tips(line, [f"{round(share * total):,} reset: {100 * value:.1f} %" for share, value in points])
    level(axes, rows[0]["accuracy"], "as learned", ":")
    axes.set_xlabel(f"share of the {total:,} lambdas reset to 1")
    axes.set_ylabel(f"accuracy on {n_images:,} images")
    percent_axis(axes.xaxis)
    _accuracies(axes)
    legend(figure, axes, columns=2)
    return figure


def _learning(rows: Rows, title: str, columns: int = 2) -> Any:
    """Losses and validation accuracy by step, one color per candidate."""
    size = (9.0, 3.9) if columns > 1 else (NARROW, 6.4)
    figure, (loss, accuracy) = panels(2 // columns, columns, size, title)
    runs: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        runs.setdefault((row["solver"], row["candidate"]), []).append(row)
    for i, ((solver, candidate), points) in enumerate(runs.items()):
        color, steps = SERIES[i % len(SERIES)], [point["step"] for point in points]
        train, val, right = (
            [number(point[name]) for point in points] for name in ("train_loss", "val_loss", "val_accuracy")
        )
        loss.plot(steps, train, color=color, linestyle=":", linewidth=1.2)
        loss.plot(steps, val, color=color, linewidth=1.3)
        accuracy.plot(steps, right, color=color, linewidth=1.3, label=shown(candidate or solver))
    loss.set_ylabel("cross-entropy (logarithmic)")
    loss.set_title("lines: validation; dots: training, pull included")
    loss.set_yscale("log")
    _log_ticks(loss.yaxis)
    accuracy.set_title("validation accuracy")
    _accuracies(accuracy)
    step = "outer iteration" if rows[0]["step_name"] == "iteration" else "epoch"
    for axes in (loss, accuracy):
        axes.set_xlabel(step)
        whole_ticks(axes)
    legend(figure, accuracy, columns=columns)
    return figure


def _log_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def _accuracies(axes: Any) -> None:
    low, high = axes.get_ylim()
    percent_axis(axes.yaxis, high - low)
