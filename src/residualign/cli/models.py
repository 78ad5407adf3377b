"""Terminal output of `residualign models` and `models check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from residualign.cli.commands import JSON, PlainHelp, add_command
from residualign.cli.console import Out
from residualign.commands import models

if TYPE_CHECKING:
    from residualign.commands.models import CheckOutcome, ModelsOutcome
    from residualign.model_check import CheckedModel, RefusedModel

__all__ = ["app"]


class _Listing(PlainHelp, TyperGroup):
    """Lists the models if no subcommand is given."""

    def invoke(self, ctx: Any) -> Any:
        as_json = bool(ctx.params["json"])
        # `models --json check NAME` and `models check NAME --json` mean the same
        ctx.default_map = {name: {"json": as_json} for name in self.commands}
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            printer = Out(as_json)
            outcome = models.run(models.ModelsRequest(), printer)
            printer.finish(outcome.to_json())
            if not as_json:
                show(printer, outcome)
        return result


app = typer.Typer(cls=_Listing, rich_markup_mode="markdown", help=models.ModelsRequest.__doc__)


@app.callback(invoke_without_command=True)
def _models(json: JSON = False) -> None:
    pass


class _EachModel(Out):
    """Shows a model as soon as it is checked."""

    def done(self, result: object, seconds: float) -> None:
        """Show what was found of one model."""
        from residualign.model_check import CheckedModel, RefusedModel

        if isinstance(result, CheckedModel | RefusedModel):
            _show_result(self, result)


def show_check(printer: Out, outcome: CheckOutcome) -> None:
    """Print the path of the file; each model has been shown already."""
    if outcome.request.out is not None:
        printer.show("", f"  written to {outcome.request.out}")


add_command(app, "check", models.CheckRequest, models.check, show_check, _EachModel)


def show(printer: Out, outcome: ModelsOutcome) -> None:
    """Print the registered models: their sizes, and how many parameters methods learn on them."""
    from residualign.cli.views import heading, paragraph, plain_table

    sizes = [
        (
            entry.name,
            *(f"{size:,}" for size in (entry.layers, entry.heads, entry.width, entry.dim, entry.image_size)),
            f"{entry.parameters / 1e6:.1f} M",
        )
        for entry in outcome.entries
    ]
    titles = ("layers", "heads", "width", "dim", "pixels", "tower")
    learned = [
        (
            entry.name,
            *(
                f"{'<= ' if method in models.BOUNDS else ''}{outcome.learned[entry.name][method]:,}"
                for method in models.METHODS
            ),
        )
        for entry in outcome.entries
    ]
    printer.show(
        plain_table((("name", False), ("source", False)), [(entry.name, entry.source) for entry in outcome.entries]),
        "",
        heading("  Image towers: width of the residual stream, dim of the embedding, parameters"),
        plain_table((("name", False), *((title, True) for title in titles)), sizes),
        "",
        heading("  Parameters that each method learns"),
        plain_table((("name", False), *((method, True) for method in models.METHODS)), learned),
        "",
        paragraph(
            "joint learns the scales of residual and dim parameters per class. Any other model in transformers format, "
            "open_clip or timm is given by its own name: see residualign models check --help."
        ),
    )


def _show_result(printer: Out, result: CheckedModel | RefusedModel) -> None:
    from residualign.cli.views import facts, seconds
    from residualign.model_check import RefusedModel

    sums = [
        (f"sum, {check.dtype}", f"error {check.error:.1e}, at most {check.tolerance:.0e} allowed")
        for check in result.sums
    ]
    if isinstance(result, RefusedModel):
        printer.error(result.reason)
        if sums:
            printer.show(facts(("model", result.name), *sums))
        return
    for phrase in result.differs:
        printer.warn(f"{result.name} is not what the registry says: {phrase}")
    names = {"head": "heads", "mlp": "MLPs"}
    kinds = ", ".join(f"{count} {names.get(kind, kind)}" for kind, count in result.units.items())
    memory = "unknown" if result.peak_memory is None else f"{result.peak_memory / 2**30:.2f} GiB of this process so far"
    printer.show(
        facts(
            ("model", result.name),
            ("source", result.source),
            ("revision", result.revision or "unknown"),
            ("family", f"{result.family} of {result.library}"),
            ("fingerprint", result.fingerprint),
            ("units", f"{sum(result.units.values())}: {kinds}"),
            ("sizes", f"width {result.width}, dim {result.dim}, {result.parameters:,} parameters of the tower"),
            *sums,
            ("preprocessing", _words(result.preprocessing)),
            ("text", "yes" if result.text else "no"),
            ("time", seconds(result.seconds)),
            ("peak memory", memory),
        ),
        "",
    )


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
