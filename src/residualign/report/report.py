"""A report as one object: for a file, for a notebook, for a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._files import publish, saying_what_is_kept
from residualign.figures.charts import charts
from residualign.report.contents import MEASURES, ReportContents
from residualign.report.page import render_page

if TYPE_CHECKING:
    import altair as alt

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Everything measured of a run (`contents`), and every way to look at it."""

    contents: ReportContents

    @cached_property
    def charts(self) -> dict[str, alt.Chart]:
        """The figures by name, as altair charts: a notebook shows them, `.save(path)` writes PNG, SVG, PDF or HTML."""
        return charts(self.contents)

    @cached_property
    def tables(self) -> dict[str, Sequence[dict[str, Any]]]:
        """The tables by name, one mapping a row: `methods`, `units`, `components`, `moved`, `put_back`, `confusion`."""
        c = self.contents
        return {
            "methods": [
                {
                    "method": line.name,
                    "kind": line.kind,
                    "accuracy": line.accuracy,
                    "low": None if line.interval is None else line.interval[0],
                    "high": None if line.interval is None else line.interval[1],
                    "parameters": line.parameters,
                    "seconds": line.seconds,
                }
                for line in c.methods
            ],
            "units": [
                {"unit": unit.label, "kind": unit.kind, "layer": unit.layer, "head": unit.head}
                | {measure.name: unit.measures.get(measure.name) for measure in MEASURES}
                | {"words": "; ".join(unit.texts)}
                for unit in c.units
            ],
            "components": [
                {"unit": unit.label, "component": one.index, "share": one.share, "lambda": one.scale}
                | {
                    name: "; ".join(end.texts) if end is not None else ""
                    for name, end in (("positive", one.positive), ("negative", one.negative))
                }
                for unit in c.units
                for one in unit.components
            ],
            "moved": [
                {"unit": line.label, "component": line.index, "lambda": line.scale, "effect": line.effect}
                | {"positive": line.texts[0], "negative": line.texts[1]}
                for line in c.moved
            ],
            "put_back": [asdict(point) for point in c.put_back],
            "learning_curve": [asdict(point) for point in c.curve],
            "confusion": [
                {"true": true, "predicted": predicted, "before": before, "after": after}
                for true, row_before, row_after in zip(
                    c.class_names, c.confusion_before, c.confusion_after, strict=True
                )
                for predicted, before, after in zip(c.class_names, row_before, row_after, strict=True)
                if before or after
            ],
        }

    @cached_property
    def html(self) -> str:
        """The page: one self-contained file that opens offline."""
        return render_page(self.contents)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all; `RunError` where that fails."""
        with saying_what_is_kept(path, "nothing was written there"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            publish(path, self.html.encode())
