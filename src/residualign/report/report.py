"""A report as one object: its page, tables and figures; it shows itself in a notebook."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from residualign._files import publish, saying_what_is_kept
from residualign._messages import percent
from residualign._result import Result, Row
from residualign.figures._figure import Figure
from residualign.figures.fitting import lambda_figures
from residualign.figures.geometry import geometry_figures
from residualign.figures.report import map_figures, report_figures
from residualign.report.contents import MEASURES, End, ReportContents
from residualign.report.page import render_page

__all__ = ["Report"]


@dataclass(frozen=True, repr=False, eq=False)
class Report(Result):
    """Everything that was measured of a run, as a page, tables and figures.

    Attributes
    ----------
    contents
        All that the page shows, as plain data.
    """

    contents: ReportContents

    def _summary(self) -> str:
        c = self.contents
        chosen = next((line for line in c.methods if line.is_chosen), None)
        accuracy = "" if chosen is None else f", {percent(chosen.accuracy)} on {c.n_test:,} test images"
        return f"{c.method} of {c.model} on {c.data}{accuracy}"

    @cached_property
    def tables(self) -> dict[str, Sequence[Row]]:
        """The tables by name, one dictionary per row, ready for `pandas.DataFrame`."""
        c = self.contents
        return {
            "methods": _methods(c),
            "units": _units(c),
            "components": _components(c),
            "geometry_profiles": c.profiles,
            "moved": _moved(c),
            "put_back": c.put_back,
            "learning_curves": c.curve,
            "confusion": c.confusion,
            "changed": _changed(c),
        }

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures by name. A notebook shows them; `.save(path)` writes PNG, SVG or PDF."""
        c, tables = self.contents, self.tables
        curves = {name: tables[name] for name in ("put_back", "learning_curves")}
        geometry = geometry_figures({"geometry_units": tables["units"], "geometry_profiles": c.profiles}, "")
        # the map of the intrinsic dimension shows the same
        geometry.pop("geometry_heads", None)
        return {
            **report_figures(tables, c.n_test, c.class_names),
            **geometry,
            **lambda_figures(curves, n_images=c.n_test, scale_free=c.scale_free),
            **map_figures(tables["units"], [(one.name, one.title, one.scale) for one in MEASURES]),
        }

    @cached_property
    def html(self) -> str:
        """The page: one self-contained HTML file that opens offline."""
        return render_page(self.contents, self.figures)

    def to_json(self) -> dict[str, Any]:
        """Everything on the page except the pictures, as JSON types."""
        return self.contents.to_json()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page.

        Parameters
        ----------
        path
            A file name; folders that do not exist are made.

        Raises
        ------
        RunError
            If the file cannot be written. It appears whole or not at all.
        """
        with saying_what_is_kept(path, "nothing was written there"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            publish(path, self.html.encode())


def _methods(c: ReportContents) -> list[Row]:
    return [
        {
            "method": line.name,
            "kind": line.kind,
            "val_accuracy": line.val_accuracy,
            "accuracy": line.accuracy,
            "low": None if line.interval is None else line.interval[0],
            "high": None if line.interval is None else line.interval[1],
            "parameters": line.parameters,
            "seconds": line.seconds,
            "chosen": line.is_chosen,
        }
        for line in c.methods
    ]


def _units(c: ReportContents) -> list[Row]:
    return [
        {"label": unit.label, "kind": unit.kind, "layer": unit.layer, "head": unit.head}
        | {measure.name: unit.measures.get(measure.name) for measure in MEASURES}
        | {"words": "; ".join(unit.texts)}
        for unit in c.units
    ]


def _components(c: ReportContents) -> list[Row]:
    return [
        {"label": unit.label, "component": one.index, "share": one.share, "lambda": one.scale}
        | {"positive": _said(one.positive), "negative": _said(one.negative)}
        for unit in c.units
        for one in unit.components
    ]


def _said(end: End | None) -> str:
    return "" if end is None else "; ".join(end.texts)


def _moved(c: ReportContents) -> list[Row]:
    return [
        {"label": line.label, "component": line.index, "lambda": line.scale, "effect": line.effect}
        | {"positive": line.texts[0], "negative": line.texts[1]}
        for line in c.moved
    ]


def _changed(c: ReportContents) -> list[Row]:
    names = ("key", "kind", "label", "before", "after", "probability", "change")
    return [{name: getattr(image, name) for name in names} for image in c.changed]
