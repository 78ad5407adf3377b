"""The commands by name. Importing this module does not import torch or transformers: commands do when they run."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from residualign.cli import models as models_view
from residualign.cli.adapt import show as show_adapt
from residualign.cli.classify import show as show_classify
from residualign.cli.commands import Interrupted, PlainHelp, add_command
from residualign.cli.data import show as show_data
from residualign.cli.decompose import show as show_decompose
from residualign.cli.demo import Story
from residualign.cli.demo import show as show_demo
from residualign.cli.evaluate import show as show_evaluate
from residualign.cli.explain import show as show_explain
from residualign.cli.extract import show as show_extract
from residualign.cli.geometry import show as show_geometry
from residualign.cli.lambdas import show as show_lambdas
from residualign.cli.report import show as show_report
from residualign.cli.select import show as show_select
from residualign.cli.similarity import show as show_similarity
from residualign.cli.sweep import show as show_sweep
from residualign.cli.where import show as show_where
from residualign.commands import (
    adapt,
    classify,
    data,
    decompose,
    demo,
    evaluate,
    explain,
    extract,
    geometry,
    lambdas,
    models,
    report,
    select,
    similarity,
    sweep,
    where,
)

__all__ = ["REQUESTS", "app"]


class _Group(PlainHelp, TyperGroup):
    """Leaves Ctrl-C to `main`: typer would print its own message and exit with its own code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None


app = typer.Typer(
    cls=_Group,
    name="residualign",
    help="Spectral alignment of vision-language models: one pass over your images, one small adapter.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("demo", demo.DemoRequest, demo.run, show_demo, Story),
    ("extract", extract.ExtractRequest, extract.run, show_extract),
    ("adapt", adapt.AdaptRequest, adapt.run, show_adapt),
    ("classify", classify.ClassifyRequest, classify.run, show_classify),
    ("evaluate", evaluate.EvaluateRequest, evaluate.run, show_evaluate),
    ("report", report.ReportRequest, report.run, show_report),
    ("decompose", decompose.DecomposeRequest, decompose.run, show_decompose),
    ("geometry", geometry.GeometryRequest, geometry.run, show_geometry),
    ("similarity", similarity.SimilarityRequest, similarity.run, show_similarity),
    ("explain", explain.ExplainRequest, explain.run, show_explain),
    ("select", select.SelectRequest, select.run, show_select),
    ("sweep", sweep.SweepRequest, sweep.run, show_sweep),
    ("where", where.WhereRequest, where.run, show_where),
    ("lambdas", lambdas.LambdasRequest, lambdas.run, show_lambdas),
    ("data", data.DataRequest, data.run, show_data),
)
"""Name, request, function, view, and the printer if it is not `Out`."""

for _name, _request, _run, _show, *_printer in _COMMANDS:
    add_command(app, _name, _request, _run, _show, *_printer)
app.add_typer(models_view.app, name="models")


def _version(wanted: bool) -> bool:
    if wanted:
        from residualign import __version__

        typer.echo(f"residualign {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", metavar=" ", callback=_version, is_eager=True
    ),
) -> None:
    pass


REQUESTS: dict[str, type] = {row[0]: row[1] for row in _COMMANDS} | {"models check": models.CheckRequest}
"""The request of every command, by name."""
