"""One self-contained HTML page from the contents of a report; it opens offline and makes no requests."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from residualign._messages import NONE, interval, minus, percent, visible
from residualign.figures._figure import Figure
from residualign.report.contents import MEASURES, ReportContents, UnitLine

__all__ = ["MAX_BYTES", "render_page"]

MAX_BYTES = 5_000_000
"""Upper bound of the page of a ViT-B adapter."""

_MOST_CONFUSIONS = 12
_DIGITS = 5

FIGURES = ("accuracy", "geometry_profiles", "put_back", "learning_curves", "confusion")
"""The figures on the page, in order; its script draws the maps."""


def render_page(contents: ReportContents, figures: Mapping[str, Figure]) -> str:
    """The page. Names, keys and words are escaped, and only our scripts may run.

    figures: of the report, by name; drawing those of the page takes about half a second each.
    """
    drawn = {name: figures[name].to_page(name) for name in FIGURES if name in figures}
    measures = [
        measure for measure in MEASURES if any(unit.measures.get(measure.name) is not None for unit in contents.units)
    ]
    script = _own("page.js")
    changed = (row for row in contents.confusion if row["true"] != row["predicted"] and row["before"] != row["after"])
    confusions = sorted(changed, key=lambda row: -abs(row["after"] - row["before"]))[:_MOST_CONFUSIONS]
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
        style=_own("page.css"),
        script=script,
        data=_data(contents, measures),
        policy=_policy(script),
    )
    return page


def _own(name: str) -> str:
    return (files("residualign.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("residualign.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        # markup of our own is of a different type
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "percent": _percent,
        "count": _count,
        "number": _number,
        "signed": _signed,
        "measure": _measure,
        "unbroken": _unbroken,
    }
    return environment


def _policy(*scripts: str) -> str:
    """Content security policy: our scripts by their hashes, and nothing from any server."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(contents: ReportContents, measures: Sequence[Any]) -> str:
    """The data for the page's script, as JSON that cannot end its script element."""
    labels = [unit.label for unit in contents.units if unit.kind == "head"]
    first = contents.moved[0].label if contents.moved else (labels[0] if labels else None)
    data = {
        "n_layers": contents.n_layers,
        "n_heads": contents.n_heads,
        "measures": [asdict(measure) for measure in measures],
        "units": [_packed(unit) for unit in contents.units],
        "lambda": "lambda / rms" if contents.scale_free else "lambda",
        "components_of": contents.components_of,
        "rest": 1 if contents.rest == "keep" else 0,
        "pictures": dict(contents.pictures),
        "first_unit": first,
    }
    text = json.dumps(_rounded(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"})


def _packed(unit: UnitLine) -> dict[str, Any]:
    """A unit with its components as two lists, and separately those with texts or pictures at their ends.

    A ViT-B has 16,000 components: with their field names they would be as large as all pictures.
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
    """Numbers to five digits; None for what is not finite; texts as they are shown."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _headline(contents: ReportContents) -> list[tuple[str, str, str]]:
    """Names, values and explanations of the numbers below the title."""
    shown = next((line for line in contents.methods if line.is_chosen), None)
    before = next((line for line in contents.methods if line.kind == "before"), None)
    numbers = []
    if before is not None and before.accuracy is not None:
        numbers.append(("before", percent(before.accuracy), contents.before_is))
    if shown is not None and shown.accuracy is not None:
        told = "" if shown.interval is None else f"95 % interval: {interval(*shown.interval)} %"
        numbers.append((f"after {contents.method}", percent(shown.accuracy), told))
    if shown is not None and shown.parameters is not None:
        numbers.append(("learned parameters", _count(shown.parameters), "the encoder stays frozen"))
    if contents.n_test:
        numbers.append(("test images", _count(contents.n_test), f"{len(contents.class_names):,} classes"))
    return numbers


def _columns(contents: ReportContents) -> dict[str, bool]:
    """Which columns to show: a vision-only model has no words, a run from a store has no pictures."""
    methods = contents.methods
    return {
        "validation": any(line.val_accuracy is not None for line in methods),
        "parameters": any(line.parameters is not None for line in methods),
        "seconds": any(line.seconds is not None for line in methods),
        "words": any(unit.texts for unit in contents.units),
        "moved_words": any(any(line.texts) for line in contents.moved),
        "pictures": bool(contents.pictures),
    }


def _sections(contents: ReportContents, drawn: Mapping[str, Any], confusions: bool) -> list[tuple[str, str]]:
    """Ids and short titles, for the navigation bar."""
    candidates = (
        ("methods", "Methods", "accuracy" in drawn),
        ("units", "Heads and MLPs", bool(contents.units)),
        ("profiles", "Geometry", "geometry_profiles" in drawn),
        ("scales", "Lambdas", bool(contents.moved) or "put_back" in drawn or "learning_curves" in drawn),
        ("confusion", "Confusion", confusions or "confusion" in drawn),
        ("changed", "Changed images", bool(contents.changed) or contents.n_test > 0),
        ("made", "How it was made", True),
    )
    return [(name, short) for name, short, there in candidates if there]


def _unbroken(sentence: str) -> str:
    """The sentence with no-break spaces before percent signs and after times signs, and with minus signs."""
    return minus(sentence).replace(" %", "\N{NO-BREAK SPACE}%").replace("× ", "×\N{NO-BREAK SPACE}")


def _percent(share: float | None) -> str:
    return _unbroken(percent(share))


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _number(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else minus(f"{value:.{digits}f}")


def _signed(value: int | float, digits: int = 0) -> str:
    return minus(f"{value:+.{digits}f}")


def _measure(value: float | None, scale: str) -> str:
    if value is None:
        return NONE
    return _percent(value) if scale == "share" else _number(value, 2 if scale == "ratio" else 1)
