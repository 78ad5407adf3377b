"""The commands by name. Importing this module does not import torch or transformers: commands do when they run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from residualign.cli import models as models_view
from residualign.cli.commands import Interrupted, PlainHelp, add_command
from residualign.cli.console import Out
from residualign.cli.demo import Story
from residualign.commands.models import CheckRequest

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
_NAMES = (
    "demo",
    "extract",
    "adapt",
    "classify",
    "evaluate",
    "report",
    "decompose",
    "geometry",
    "similarity",
    "explain",
    "select",
    "sweep",
    "where",
    "lambdas",
    "data",
)
"""In the order of `--help`. `commands/NAME.py` has `NameRequest` and `run`, and `cli/NAME.py` has `show`."""

_PRINTERS = {"demo": Story}
"""Printers other than `Out`."""

REQUESTS: dict[str, type] = {}
"""The request of every command, by name."""

for _name in _NAMES:
    _command = import_module(f"residualign.commands.{_name}")
    REQUESTS[_name] = getattr(_command, f"{_name.title()}Request")
    _show = import_module(f"residualign.cli.{_name}").show
    add_command(app, _name, REQUESTS[_name], _command.run, _show, _PRINTERS.get(_name, Out))
REQUESTS["models check"] = CheckRequest
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
