"""The figures of a report as Vega-Lite charts: the same ones on the page, as PNG and as PDF.

Colours on the page come from its style sheet, so that dark, light and paper each have their own; what is set here is
for the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from residualign.report.contents import MEASURES, MethodLine, ReportContents

if TYPE_CHECKING:
    import altair as alt

__all__ = ["charts", "component_chart"]

ACCENT, SECOND, QUIET = "#2f6fb5", "#c8741a", "#8a8f98"
"""Blue, orange and grey that hold their own on white and on near-black, and for those who see red and green alike."""

_PROFILES = ("linear_dimension", "two_nn", "ratio", "evr_first")
_MOST_CLASSES = 60


def charts(contents: ReportContents) -> dict[str, alt.Chart]:
    """Every figure by name; those without data are left out."""
    made = {
        "accuracy": _accuracy(contents),
        "profiles": _profiles(contents),
        "put_back": _put_back(contents),
        "learning_curve": _curve(contents),
        "confusion": _confusion(contents),
        **{f"map_{measure.name}": _map(contents, measure.name) for measure in MEASURES},
    }
    return {name: chart for name, chart in made.items() if chart is not None}


def component_chart() -> alt.Chart:
    """Spectrum and lambdas of one unit; the data are put in as `components`, and the width, where it is shown."""
    import altair as alt

    x = alt.X(
        "index:Q",
        title="principal component",
        axis=alt.Axis(tickMinStep=1, grid=False),
        scale=alt.Scale(nice=False, zero=False, padding=10),
    )
    tooltip = [
        alt.Tooltip("index:Q", title="component"),
        alt.Tooltip("share:Q", title="share of variance", format=".2%"),
        alt.Tooltip("scale:Q", title="lambda", format=".3f"),
    ]
    base = alt.Chart(alt.NamedData("components"))
    spectrum = base.mark_bar(color=QUIET).encode(
        x=x, y=alt.Y("share:Q", title="variance", axis=alt.Axis(format="%", tickCount=3)), tooltip=tooltip
    )
    one = base.transform_filter("datum.scale !== null").mark_rule(strokeDash=[3, 3], color=QUIET).encode(y=alt.datum(1))
    sticks = base.transform_filter("datum.scale !== null").mark_rule(color=ACCENT, strokeWidth=1.5)
    points = base.transform_filter("datum.scale !== null").mark_circle(color=ACCENT, size=28, opacity=1)
    # components of little variance may have lambdas of a hundred: without the logarithm they flatten all others
    y = alt.Y("scale:Q", title="lambda", axis=alt.Axis(tickCount=5), scale=alt.Scale(type="symlog", constant=1))
    scales = alt.layer(one, sticks.encode(x=x, y=y, y2=alt.datum(1)), points.encode(x=x, y=y, tooltip=tooltip))
    chart = alt.vconcat(
        spectrum.properties(width=400, height=80), scales.properties(width=400, height=110), spacing=6
    ).resolve_scale(x="shared")
    # room for half of the last number below the axis
    return _styled(chart, right=14)


def _accuracy(contents: ReportContents) -> alt.Chart | None:
    """One bar a method with its interval; the classifier before adapting is a line through all of them."""
    import altair as alt

    rows = [_method_row(line) for line in contents.methods if line.accuracy is not None]
    if not rows:
        return None
    y = alt.Y("method:N", sort=[row["method"] for row in rows], title=None, axis=alt.Axis(labelLimit=200, grid=False))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("accuracy:Q", format=".1%"),
        alt.Tooltip("parameters:Q", title="learned numbers", format=","),
        alt.Tooltip("seconds:Q", title="seconds to fit", format=".1f"),
    ]
    base = alt.Chart(alt.Data(values=rows))
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["before", "method", "shown", "probe"], range=[QUIET, "#8fb4dc", ACCENT, SECOND]),
        legend=None,
    )
    bars = base.mark_bar(height=16, cornerRadiusEnd=2).encode(
        x=alt.X(
            "accuracy:Q", title=f"accuracy on {contents.n_test:,} test images", axis=alt.Axis(format="%", tickCount=6)
        ),
        y=y,
        color=colour,
        tooltip=tooltip,
    )
    ends = base.mark_rule(strokeWidth=1.5, color="#33373d").encode(x="low:Q", x2="high:Q", y=y)
    texts = base.mark_text(align="left", dx=6).encode(x="high:Q", y=y, text="figure:N")
    return _styled(alt.layer(bars, ends, texts).properties(width=560, height=26 * len(rows)))


def _method_row(line: MethodLine) -> dict[str, Any]:
    assert line.accuracy is not None
    low, high = line.interval or (line.accuracy, line.accuracy)
    figure = f"{100 * line.accuracy:.1f} %"
    if line.parameters is not None:
        figure += f"  ·  {line.parameters:,} numbers"
    return {
        "method": line.name,
        "kind": "shown" if line.is_shown else line.kind,
        "accuracy": line.accuracy,
        "low": low,
        "high": high,
        "parameters": line.parameters,
        "seconds": line.seconds,
        "figure": figure,
    }


def _profiles(contents: ReportContents) -> alt.Chart | None:
    """Small multiples over depth: mean over a layer's heads with its interval, and every head as a dot."""
    import altair as alt

    titles = {measure.name: measure.title for measure in MEASURES}
    panels = []
    for name in _PROFILES:
        lines = [
            {"layer": line.layer, "mean": line.mean, "low": line.low, "high": line.high}
            for line in contents.profiles
            if line.measure == name
        ]
        dots = [
            {"layer": unit.layer, "label": unit.label, "value": unit.measures.get(name)}
            for unit in contents.units
            if unit.kind == "head" and unit.measures.get(name) is not None
        ]
        if not lines:
            continue
        x = alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, grid=False))
        y_title = titles[name]
        share = name == "evr_first"
        # one extent for all, so that the panels stand under one another
        axis = alt.Axis(tickCount=4, minExtent=30, maxExtent=30, format="%" if share else alt.Undefined)
        band = (
            alt.Chart(alt.Data(values=lines))
            .mark_area(color=ACCENT, opacity=0.18)
            .encode(x=x, y=alt.Y("low:Q", title=None, axis=axis, scale=alt.Scale(zero=share)), y2="high:Q")
        )
        mean = (
            alt.Chart(alt.Data(values=lines))
            .mark_line(color=ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(color=ACCENT, size=30))
            .encode(x=x, y=alt.Y("mean:Q"))
        )
        heads = (
            alt.Chart(alt.Data(values=dots))
            .mark_circle(color=QUIET, size=16, opacity=0.6)
            .encode(
                x=x,
                y=alt.Y("value:Q"),
                tooltip=[
                    alt.Tooltip("label:N", title="head"),
                    alt.Tooltip("value:Q", title=y_title, format=".1%" if share else ".2f"),
                ],
            )
        )
        title = alt.TitleParams(y_title, fontSize=12, anchor="start", fontWeight="normal")
        panels.append(alt.layer(band, heads, mean).properties(width=430, height=150, title=title))
    if not panels:
        return None
    return _styled(alt.concat(*panels, columns=2, spacing=28, align="all"))


def _put_back(contents: ReportContents) -> alt.Chart | None:
    """Accuracy as scales are put back to one, by the order they are put back in."""
    import altair as alt

    if not contents.put_back:
        return None
    rows = [{"order": point.order, "count": point.count, "accuracy": point.accuracy} for point in contents.put_back]
    orders = list(dict.fromkeys(point.order for point in contents.put_back))
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2, interpolate="step-after")
        .encode(
            x=alt.X("count:Q", title="components put back to one", axis=alt.Axis(grid=False, tickCount=5)),
            y=alt.Y(
                "accuracy:Q", title="test accuracy", axis=alt.Axis(format="%", tickCount=5), scale=alt.Scale(zero=False)
            ),
            color=alt.Color(
                "order:N",
                title=None,
                scale=alt.Scale(domain=orders, range=[ACCENT, SECOND, QUIET][: len(orders)]),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=["order:N", "count:Q", alt.Tooltip("accuracy:Q", format=".1%")],
        )
    )
    return _styled(chart.properties(width=430, height=200))


def _curve(contents: ReportContents) -> alt.Chart | None:
    """Validation accuracy of every candidate while fitting."""
    import altair as alt

    if not contents.curve:
        return None
    rows = [{"run": point.run, "step": point.step, "accuracy": point.accuracy} for point in contents.curve]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=1.5, opacity=0.85, color=ACCENT)
        .encode(
            x=alt.X("step:Q", title="validation", axis=alt.Axis(grid=False, tickMinStep=1)),
            y=alt.Y(
                "accuracy:Q",
                title="validation accuracy",
                axis=alt.Axis(format="%", tickCount=5),
                scale=alt.Scale(zero=False),
            ),
            detail="run:N",
            tooltip=[
                alt.Tooltip("run:N", title="settings"),
                alt.Tooltip("step:Q", title="validation"),
                alt.Tooltip("accuracy:Q", format=".1%"),
            ],
        )
    )
    return _styled(chart.properties(width=430, height=200))


def _confusion(contents: ReportContents) -> alt.Chart | None:
    """Confusion before and after beside one another, as shares of each true class; not for very many classes."""
    import altair as alt

    names = contents.class_names
    if not 2 <= len(names) <= _MOST_CLASSES or not contents.confusion_before:
        return None
    side = max(200, min(330, 22 * len(names)))
    panels = []
    for title, counts in (("before", contents.confusion_before), ("after", contents.confusion_after)):
        rows = _confusion_rows(counts, names)
        axis = alt.Axis(labelLimit=90, grid=False, labelOverlap=True)
        encoded = (
            alt.Chart(alt.Data(values=rows))
            .mark_rect()
            .encode(
                x=alt.X("predicted:N", sort=None, title="predicted", axis=axis, scale=alt.Scale(domain=list(names))),
                y=alt.Y("true:N", sort=None, title="true class", axis=axis, scale=alt.Scale(domain=list(names))),
                color=alt.Color(
                    "kind:N", scale=alt.Scale(domain=["right", "wrong"], range=[ACCENT, SECOND]), legend=None
                ),
                opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 1]), legend=None),
                tooltip=[
                    alt.Tooltip("true:N"),
                    alt.Tooltip("predicted:N"),
                    alt.Tooltip("count:Q", title="images"),
                    alt.Tooltip("share:Q", title="of the class", format=".1%"),
                ],
            )
        )
        heading = alt.TitleParams(title, fontSize=12, anchor="start", fontWeight="normal")
        panels.append(encoded.properties(width=side, height=side, title=heading))
    return _styled(alt.hconcat(*panels, spacing=24))


def _confusion_rows(counts: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Only cells that hold images: of a thousand classes nearly all are empty."""
    rows = []
    for i, row in enumerate(counts):
        total = sum(row)
        rows += [
            {
                "true": names[i],
                "predicted": names[j],
                "count": count,
                "share": count / total,
                "kind": "right" if i == j else "wrong",
            }
            for j, count in enumerate(row)
            if count
        ]
    return rows


def _map(contents: ReportContents, name: str) -> alt.Chart | None:
    """Layers across, heads down: one measure of every head."""
    import altair as alt

    measure = next(measure for measure in MEASURES if measure.name == name)
    rows = [
        {"layer": unit.layer, "head": unit.head, "label": unit.label, "value": unit.measures.get(name)}
        for unit in contents.units
        if unit.kind == "head" and unit.measures.get(name) is not None
    ]
    if not rows:
        return None
    if measure.scale == "ratio":
        scale = alt.Scale(type="log", domainMid=1, scheme="blueorange", reverse=True)
        legend = alt.Legend(values=[2.0**k for k in range(-4, 5)], format="~g")
    else:
        scale = alt.Scale(scheme="blues", zero=measure.scale == "share")
        legend = alt.Legend()
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("head:O", title="head"),
            color=alt.Color("value:Q", title=None, scale=scale, legend=legend),
            tooltip=["label:N", alt.Tooltip("value:Q", title=measure.title, format=".3f")],
        )
    )
    size: Mapping[str, Any] = {"width": alt.Step(26), "height": alt.Step(22)}
    return _styled(chart.properties(title=alt.TitleParams(measure.title, fontSize=12, anchor="start"), **size))


def _styled(chart: Any, right: int = 4) -> alt.Chart:
    """Quiet axes, no frame; text in the page's own typeface. right: pixels of room there."""
    fonts = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
    styled: alt.Chart = (
        chart.configure(
            font=fonts, background="transparent", padding={"left": 4, "right": right, "top": 4, "bottom": 4}
        )
        .configure_view(stroke=None)
        .configure_axis(domain=False, ticks=False, labelPadding=6, gridColor="#e3e5e8", titleFontWeight="normal")
        .configure_legend(labelLimit=300)
    )
    return styled
