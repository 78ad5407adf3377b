"""One self-contained HTML page from the contents of a report. It opens offline and sends no request to any server."""

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

from residualign._messages import NONE, interval, percent
from residualign.figures._figure import Figure
from residualign.report.contents import MEASURES, ReportContents, UnitLine

__all__ = ["MAX_BYTES", "render_page"]

MAX_BYTES = 5_000_000
"""What a page of a ViT-B adapter stays below."""

_MOST_CONFUSIONS = 12
_DIGITS = 5

FIGURES = ("accuracy", "geometry_profiles", "put_back", "learning_curves", "confusion")
"""The figures on the page, in its order; those of maps are drawn by its script."""


@dataclass(frozen=True)
class _Headline:
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


def render_page(contents: ReportContents, figures: Mapping[str, Figure]) -> str:
    """The page. Whatever names, keys and words hold is escaped; scripts that are not ours are forbidden to run.

    figures: of the report, by name; those of the page are drawn, which takes about half a second each.
    """
    drawn = {name: _Raw(figures[name].to_page(name)) for name in FIGURES if name in figures}
    measures = [
        measure for measure in MEASURES if any(unit.measures.get(measure.name) is not None for unit in contents.units)
    ]
    script = _own("page.js")
    confusions = _changed_confusions(contents)
    template = _environment().get_template("page.html.j2")
    page: str = template.render(
        c=contents,
        measures=measures,
        figures=drawn,
        headline=_headline(contents),
        sections=_sections(contents, drawn, bool(confusions)),
        confusions=confusions,
        has=_columns(contents),
        interval=interval,
        lambda_name="lambda / rms" if contents.scale_free else "lambda",
        kinds=list(dict.fromkeys(image.kind for image in contents.changed)),
        classes=sorted({image.label for image in contents.changed}),
        style=_Raw(_own("page.css")),
        script=_Raw(script),
        data=_Raw(_data(contents, measures)),
        policy=_policy(script),
    )
    return page


class _Raw(str):
    """Text of our own that goes into the page as it is."""

    def __html__(self) -> str:
        return str(self)


def _own(name: str) -> str:
    return (files("residualign.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("residualign.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "count": _count,
        "number": _number,
        "measure": _measure,
        "unbroken": _unbroken,
    }
    return environment


def _policy(*scripts: str) -> str:
    """Content security policy: our scripts by their hashes, and nothing from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(contents: ReportContents, measures: Sequence[Any]) -> str:
    """What the page's script reads, as JSON that cannot end the element it stands in."""
    labels = [unit.label for unit in contents.units if unit.kind == "head"]
    first = contents.moved[0].label if contents.moved else (labels[0] if labels else None)
    data = {
        "n_layers": contents.n_layers,
        "n_heads": contents.n_heads,
        "measures": [asdict(measure) for measure in measures],
        "units": [_packed(unit) for unit in contents.units],
        "lambda": "lambda / rms" if contents.scale_free else "lambda",
        "rest": 1 if contents.rest == "keep" else 0,
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
    """A unit with its components as two lists, and separately those that have something at their ends.

    A ViT-B has 16,000 components: with the names of their fields they would take as much room as all pictures.
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
    """Numbers to five digits, which is more than anyone can see; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _headline(contents: ReportContents) -> list[_Headline]:
    shown = next((line for line in contents.methods if line.is_chosen), None)
    before = next((line for line in contents.methods if line.kind == "before"), None)
    figures = []
    if before is not None and before.accuracy is not None:
        figures.append(_Headline("before", percent(before.accuracy), contents.before_is))
    if shown is not None and shown.accuracy is not None:
        told = "" if shown.interval is None else f"95 % interval: {interval(*shown.interval)} %"
        figures.append(_Headline(f"after {contents.method}", percent(shown.accuracy), told))
    if shown is not None and shown.parameters is not None:
        figures.append(_Headline("learned parameters", _count(shown.parameters), "the encoder stays frozen"))
    if contents.n_test:
        figures.append(_Headline("test images", _count(contents.n_test), f"{len(contents.class_names):,} classes"))
    return figures


def _columns(contents: ReportContents) -> dict[str, bool]:
    """Which columns have values: a vision-only model has no words, a run from a store has no pictures."""
    methods = contents.methods
    return {
        "validation": any(line.val_accuracy is not None for line in methods),
        "parameters": any(line.parameters is not None for line in methods),
        "seconds": any(line.seconds is not None for line in methods),
        "words": any(unit.texts for unit in contents.units),
        "moved_words": any(any(line.texts) for line in contents.moved),
        "pictures": bool(contents.pictures),
    }


def _sections(contents: ReportContents, drawn: Mapping[str, Any], confusions: bool) -> list[_Section]:
    candidates = (
        ("methods", "Methods", "accuracy" in drawn),
        ("units", "Heads and MLPs", bool(contents.units)),
        ("profiles", "Geometry", "geometry_profiles" in drawn),
        ("scales", "Lambdas", bool(contents.moved) or "put_back" in drawn or "learning_curves" in drawn),
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


def _unbroken(sentence: str) -> str:
    """The sentence with its figures kept on one line: no break before a percent sign or after a times sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%").replace("× ", "×\N{NO-BREAK SPACE}")


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _number(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _measure(value: float | None, scale: str) -> str:
    if value is None:
        return NONE
    return percent(value) if scale == "share" else f"{value:.2f}" if scale == "ratio" else f"{value:.1f}"
