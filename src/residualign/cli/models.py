"""`residualign models`: the models that have a short name; `models check`: whether a model can be taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from residualign.cli import options as o
from residualign.cli.console import Out
from residualign.cli.exits import BAD_INPUT

if TYPE_CHECKING:
    from residualign.commands.models import CheckedModel, RefusedModel
    from residualign.models.names import RegisteredModel

__all__ = ["app"]


class _Listing(TyperGroup):
    """Lists the models where no command follows."""

    def invoke(self, ctx: Any) -> Any:
        as_json = bool(ctx.params["json"])
        # `models --json check NAME` and `models check NAME --json` are one
        ctx.default_map = {name: {"json": as_json} for name in self.commands}
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            _list(Out(as_json))
        return result


app = typer.Typer(cls=_Listing, rich_markup_mode="markdown")

_BOUNDS = ("residual", "residual-heads")
"""Methods that learn at most the number given: the spectrum decides."""

_SHOWN = ("coarse", "spectral-output", "residual-heads", "residual", "linear")


@app.callback(invoke_without_command=True)
def models(json: o.Json = False) -> None:
    """The models that have a short name, their sizes, and how many numbers each method learns on them.

    `models check NAME...` loads any model, registered or not, and adds up its units.
    """


@app.command()
def check(
    names: o.ModelNames,
    dtype: o.CheckedDTypes = None,
    device: o.Device = "cpu",
    out: o.ReportFile = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Load each model (a hub model is downloaded) and check that its units sum to its output.

    A model that is refused does not keep the others from being checked; the exit code is then 2.
    """
    from residualign.commands.models import check_model, check_report_file, write_report_file

    printer = Out(json)
    if out is not None:
        check_report_file(out, overwrite)
    dtypes = [choice.value for choice in dtype or (o.DType.float32, o.DType.float64)]
    results: list[CheckedModel | RefusedModel] = []
    for name in names:
        printer.note(f"checking {name}")
        results.append(check_model(name, dtypes, device))
        _show_result(printer, results[-1])
    passed = all(result.describe()["passed"] for result in results)
    report = {"passed": passed, "models": [result.describe() for result in results]}
    if out is not None:
        write_report_file(out, report)
        printer.show("", f"  report written to {out}")
    printer.finish(report)
    if not passed:
        raise typer.Exit(BAD_INPUT)


def _list(printer: Out) -> None:
    from residualign.models.names import registered_models

    entries = list(registered_models().values())
    counts = {entry.name: _counts(entry) for entry in entries}
    printer.finish(
        {
            "models": [
                {
                    **{key: getattr(entry, key) for key in entry.__dataclass_fields__},
                    "learned": {method: counts[entry.name][method] for method in _SHOWN},
                    "learned_at_most": [method for method in _SHOWN if method in _BOUNDS],
                }
                for entry in entries
            ]
        }
    )
    if not printer.as_json:
        _show_table(printer, entries, counts)


def _counts(entry: RegisteredModel) -> dict[str, int]:
    from residualign.fitting.methods import most_parameters

    return most_parameters(
        entry.layers,
        entry.heads,
        entry.width,
        entry.dim,
        attention_pooled=entry.pooling == "attention",
        methods=_SHOWN,
    )


def _show_table(printer: Out, entries: list[RegisteredModel], counts: dict[str, dict[str, int]]) -> None:
    from residualign.cli.views import heading, paragraph, plain_table

    sizes = [
        (
            entry.name,
            entry.source,
            *(f"{size:,}" for size in (entry.layers, entry.heads, entry.width, entry.dim, entry.image_size)),
            f"{entry.parameters / 1e6:.1f} M",
        )
        for entry in entries
    ]
    titles = (("name", False), ("source", False), ("layers", True), ("heads", True), ("width", True), ("dim", True))
    learned = [
        (entry.name, *(f"{'<= ' if method in _BOUNDS else ''}{counts[entry.name][method]:,}" for method in _SHOWN))
        for entry in entries
    ]
    printer.show(
        plain_table((*titles, ("pixels", True), ("tower", True)), sizes),
        "",
        heading("learned numbers of each method"),
        "",
        plain_table((("name", False), *((method, True) for method in _SHOWN)), learned),
        "",
        paragraph(
            "joint learns the scales of residual and dim numbers a class. Any other model in transformers format, "
            "open_clip or timm has its own name: see residualign models check --help."
        ),
    )


def _show_result(printer: Out, result: CheckedModel | RefusedModel) -> None:
    from residualign.cli.views import facts, seconds
    from residualign.commands.models import RefusedModel

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
    kinds = ", ".join(f"{count} {kind}" for kind, count in result.units.items())
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
            ("pixels by", _words(result.preprocessing)),
            ("text", "yes" if result.text else "no"),
            ("seconds", seconds(result.seconds)),
            ("peak memory", memory),
        ),
        "",
    )


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
