"""The commands by name. Importing this imports no model library: commands do that when they run."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from residualign.cli.adapt import adapt
from residualign.cli.classify import classify
from residualign.cli.data import data
from residualign.cli.decompose import decompose
from residualign.cli.demo import demo
from residualign.cli.evaluate import evaluate
from residualign.cli.explain import explain
from residualign.cli.extract import extract
from residualign.cli.geometry import geometry
from residualign.cli.lambdas import lambdas
from residualign.cli.models import app as models
from residualign.cli.report import report
from residualign.cli.select import select
from residualign.cli.similarity import similarity
from residualign.cli.sweep import ablate
from residualign.cli.where import where

__all__ = ["Interrupted", "app"]


class Interrupted(Exception):  # noqa: N818  (not an error: the user asked for it)
    """Ctrl-C while a command ran."""


class _Group(TyperGroup):
    """Keeps Ctrl-C for `main`, which knows how the command can go on."""

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
for _command in (
    demo,
    extract,
    adapt,
    classify,
    evaluate,
    report,
    decompose,
    geometry,
    similarity,
    explain,
    select,
    ablate,
    where,
    lambdas,
    data,
):
    app.command()(_command)
app.add_typer(models, name="models")


def _version(wanted: bool) -> bool:
    if wanted:
        from residualign import __version__

        typer.echo(f"residualign {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    pass
