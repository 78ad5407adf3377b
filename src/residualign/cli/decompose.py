"""`residualign decompose`: what every head and MLP adds to the embeddings of some images."""

from __future__ import annotations

from residualign.cli import options as o
from residualign.cli.console import Out

_SHOWN = 12


def decompose(
    source: o.ModelOrStore,
    images: o.OptionalImages = None,
    out: o.OutFile = None,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Take embeddings apart, exactly: MODEL with DATA or IMAGES, or a STORE.

    Prints how long each unit's contribution is and which share of the embedding's variance it carries. --out writes the
    contributions themselves.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.decompose import run_decompose

    printer = Out(json)
    machine = Machine(device, dtype.value, batch_size, workers)
    outcome = run_decompose(
        source, images or [], machine, out=out, stream=stream, skip_bad=skip_bad, overwrite=overwrite, progress=printer
    )
    statistics = outcome.statistics
    columns = zip(
        statistics.units,
        statistics.norm.tolist(),
        statistics.variance.tolist(),
        statistics.variance_share.tolist(),
        strict=True,
    )
    units = [
        {"label": unit.label, "kind": unit.kind, "norm": norm, "variance": variance, "variance_share": share}
        for unit, norm, variance, share in columns
    ]
    printer.finish(
        {
            "model": outcome.model,
            "data": outcome.data,
            "n_images": statistics.n_images,
            "n_skipped": len(outcome.skipped),
            "skipped": list(outcome.skipped),
            "residual_error": statistics.residual_error,
            "units": units,
            "out": None if out is None else str(out),
        }
    )
    if not json:
        _show(printer, outcome.model, units, statistics.n_images, statistics.residual_error)
        if out is not None:
            printer.show("", f"  contributions written to {out}")


def _show(printer: Out, model: str, units: list[dict[str, object]], n_images: int, error: float) -> None:
    from residualign.cli.views import bars_table, facts, percent

    def share(unit: dict[str, object]) -> float:
        return float(str(unit["variance_share"]))

    ranked = sorted(units, key=share, reverse=True)
    shown = ranked if len(ranked) <= _SHOWN else ranked[:_SHOWN]
    rows = [(str(unit["label"]), share(unit), (percent(share(unit)), f"{unit['norm']:.2f}")) for unit in shown]
    printer.show(
        facts(
            ("model", model),
            ("images", f"{n_images:,}"),
            ("sum check", f"{len(units)} units sum to the model's output within {error:.0e}"),
        ),
        "",
        bars_table(("unit", "share of variance", "length"), rows, printer.stdout, largest=max(map(share, ranked))),
    )
    left = ranked[len(shown) :]
    if left:
        printer.show(
            "", f"  {len(left)} further units carry {percent(sum(map(share, left)))} together; --json lists all"
        )
