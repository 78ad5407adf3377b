"""One self-contained HTML page from the contents of a report. It opens offline and asks nothing of any server."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from residualign.figures.charts import charts, component_chart
from residualign.report.contents import MEASURES, ReportContents, UnitLine

__all__ = ["MAX_BYTES", "render_page"]

MAX_BYTES = 5_000_000
"""What a page of a ViT-B adapter stays below."""

_MOST_CONFUSIONS = 12
_DIGITS = 5


@dataclass(frozen=True)
class _Figure:
    name: str
    value: str
    told: str = ""


@dataclass(frozen=True)
class _Section:
    id: str
    short: str


@dataclass(frozen=True)
class _Confusion:
    true: str
    predicted: str
    before: int
    after: int


def render_page(contents: ReportContents) -> str:
    """The page. Whatever names, keys and words hold is escaped; scripts that are not ours are forbidden to run.

    Costs a few milliseconds a unit. The script of the charts is 0.9 MB of every page.
    """
    drawn = {name: chart.to_dict() for name, chart in charts(contents).items() if not name.startswith("map_")}
    measures = [
        measure for measure in MEASURES if any(unit.measures.get(measure.name) is not None for unit in contents.units)
    ]
    library, script = _chart_library(), _own("page.js")
    confusions = _changed_confusions(contents)
    template = _environment().get_template("page.html.j2")
    page: str = template.render(
        c=contents,
        measures=measures,
        charts=drawn,
        headline=_headline(contents),
        sections=_sections(contents, drawn, bool(confusions)),
        confusions=confusions,
        style=_Raw(_own("page.css")),
        library=_Raw(library),
        script=_Raw(script),
        data=_Raw(_data(contents, measures, drawn)),
        policy=_policy(library, script),
    )
    return page


class _Raw(str):
    """Text of our own that goes into the page as it is."""

    def __html__(self) -> str:
        return str(self)


@cache
def _chart_library() -> str:
    import vl_convert

    library: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", _vega_lite_version())
    assert "</script" not in library
    return library


def _vega_lite_version() -> str:
    """The version altair's charts are written for, as vl-convert names it."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def _own(name: str) -> str:
    return (files("residualign.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("residualign.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": _percent, "count": _count, "number": _number, "measure": _measure}
    return environment


def _policy(*scripts: str) -> str:
    """Content security policy: our scripts by their hashes, and nothing from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(contents: ReportContents, measures: Sequence[Any], drawn: Mapping[str, Any]) -> str:
    """What the page's script reads, as JSON that cannot end the element it stands in."""
    labels = [unit.label for unit in contents.units if unit.kind == "head"]
    first = contents.moved[0].label if contents.moved else (labels[0] if labels else None)
    data = {
        "n_layers": contents.n_layers,
        "n_heads": contents.n_heads,
        "measures": [asdict(measure) for measure in measures],
        "units": [_packed(unit) for unit in contents.units],
        "charts": drawn,
        "component_chart": component_chart().to_dict(),
        "pictures": dict(contents.pictures),
        "first_unit": first,
    }
    text = json.dumps(_rounded(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, code)
    # file names may hold halves of surrogate pairs, which no UTF-8 file can
    return text.encode("utf-8", "replace").decode("utf-8")


def _packed(unit: UnitLine) -> dict[str, Any]:
    """A unit with its components as two lists, and apart from them those that have something at their ends.

    A ViT-B has 16,000 components: with the names of their fields they would be as large as all pictures.
    """
    content = asdict(unit)
    components = content.pop("components")
    content["shares"] = [one["share"] for one in components]
    content["scales"] = [one["scale"] for one in components]
    content["ends"] = {
        one["index"]: [one["positive"], one["negative"]] for one in components if one["positive"] or one["negative"]
    }
    return content


def _rounded(value: Any) -> Any:
    """Numbers to five digits, which is more than anyone can see; what is not finite is absent."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _headline(contents: ReportContents) -> list[_Figure]:
    shown = next((line for line in contents.methods if line.is_shown), None)
    before = next((line for line in contents.methods if line.kind == "before"), None)
    figures = []
    if before is not None and before.accuracy is not None:
        figures.append(_Figure("before", _percent(before.accuracy), contents.before_is))
    if shown is not None and shown.accuracy is not None:
        interval = shown.interval
        told = "" if interval is None else f"95 %: {_percent(interval[0])} – {_percent(interval[1])}"
        figures.append(_Figure(f"after {contents.method}", _percent(shown.accuracy), told))
    if shown is not None and shown.parameters is not None:
        figures.append(_Figure("learned numbers", _count(shown.parameters), "the encoder stays frozen"))
    if contents.n_test:
        figures.append(_Figure("test images", _count(contents.n_test), f"{len(contents.class_names):,} classes"))
    return figures


def _sections(contents: ReportContents, drawn: Mapping[str, Any], confusions: bool) -> list[_Section]:
    candidates = (
        ("methods", "Methods", "accuracy" in drawn),
        ("units", "Heads and MLPs", bool(contents.units)),
        ("profiles", "Geometry", "profiles" in drawn),
        ("scales", "Lambdas", bool(contents.moved) or "put_back" in drawn or "learning_curve" in drawn),
        ("confusion", "Confusion", confusions or "confusion" in drawn),
        ("changed", "Changed images", bool(contents.changed)),
        ("made", "How it was made", True),
    )
    return [_Section(name, short) for name, short, there in candidates if there]


def _changed_confusions(contents: ReportContents) -> list[_Confusion]:
    names = contents.class_names
    lines = [
        _Confusion(names[i], names[j], before, after)
        for i, (row_before, row_after) in enumerate(
            zip(contents.confusion_before, contents.confusion_after, strict=True)
        )
        for j, (before, after) in enumerate(zip(row_before, row_after, strict=True))
        if i != j and before != after
    ]
    return sorted(lines, key=lambda line: -abs(line.after - line.before))[:_MOST_CONFUSIONS]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _measure(value: float | None, scale: str) -> str:
    if value is None:
        return "–"
    return _percent(value) if scale == "share" else f"{value:.2f}" if scale == "ratio" else f"{value:.1f}"
