"""`residualign lambdas`: which components an adapter amplified or suppressed, and what that is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from residualign.commands.lambdas import LambdasOutcome

_SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def lambdas(
    adapter: o.AdapterDir,
    store: o.StoreOption = None,
    split: o.SplitOption = o.SplitChoice.test,
    seeds: o.Seeds = 1,
    top: o.Top = 20,
    seed: o.Seed = 0,
    model: o.ModelPath = None,
    out: o.AnalysisOut = None,
    formats: o.Formats = None,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    json: o.Json = False,
) -> None:
    """Read what an adapter learned: DIR is what `adapt --out` wrote.

    Prints the components that moved the embedding most, how accuracy falls as they are put back to one, and with
    --seeds how far further fits agree.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.lambdas import run_lambdas

    printer = Out(json)
    outcome = run_lambdas(
        adapter,
        Machine(device, dtype.value),
        store=store,
        split=split.value,
        seeds=seeds,
        top=top,
        seed=seed,
        model=model,
        out=out,
        formats=None if formats is None else [one.value for one in formats],
        overwrite=overwrite,
        progress=printer,
    )
    printer.finish(outcome.to_json())
    if not json:
        _show(printer, outcome)
        if out is not None:
            printer.show("", f"  tables and figures written to {out}")


def _show(printer: Out, outcome: LambdasOutcome) -> None:
    from residualign.cli.views import bars_table, facts, plain_table

    shown = outcome.moved[: outcome.top]
    unit = "lambda / rms" if outcome.adapter.full_scaling.scale_free else "lambda"
    rows = [
        (
            one.label if one.component is None else f"{one.label} · {one.component}",
            one.effect if one.value >= 1 else -one.effect,
            (f"{one.value:.3f}", f"{one.effect:.4f}", f"{one.explained_variance or 0.0:.3g}"),
        )
        for one in shown
    ]
    printer.show(
        facts(
            ("adapter", f"{outcome.folder}: {outcome.adapter.method} on {outcome.adapter.model_info.get('name')}"),
            ("images", f"{outcome.put_back[0].n_images:,} of split {outcome.split} of {outcome.store}"),
            ("lambdas", f"{len(outcome.moved):,}; {len(shown)} moved the embedding most"),
        ),
        "",
        bars_table(("unit · component", unit, "effect", "variance"), rows, printer.stdout, largest=shown[0].effect),
        "",
        plain_table(
            (("accuracy with put back to one", False), *((f"{100 * share:.0f} %", True) for share in _SHARES)),
            _put_back_rows(outcome),
        ),
    )
    if outcome.stability:
        printer.show("", _stability_table(outcome))


def _put_back_rows(outcome: LambdasOutcome) -> list[tuple[str, ...]]:
    """Accuracy at some shares: largest first, smallest first, the mean of the random orders."""
    from residualign.cli.views import percent

    found = []
    for order, name in (("largest", "largest effect first"), ("smallest", "smallest first"), ("random", "random")):
        curves = [curve for curve in outcome.put_back if curve.order == order]
        positions = curves[0].put_back
        nearest = [
            min(range(len(positions)), key=lambda i, share=share: abs(positions[i] - share * positions[-1]))  # type: ignore[misc]
            for share in _SHARES
        ]
        found.append((name, *(percent(sum(c.accuracy[i] for c in curves) / len(curves)) for i in nearest)))
    return found


def _stability_table(outcome: LambdasOutcome) -> RenderableType:
    from residualign.cli.views import plain_table

    rows = [
        (
            f"{one.kind}{', by variance' if one.weighted else ''}",
            f"another {'start' if vary == 'start' else '80 % of the images'}",
            f"{one.n_lambdas:,}",
            f"{one.mean:.3f}",
            f"{one.low:.3f} – {one.high:.3f}",
        )
        for vary, found in outcome.stability.items()
        for one in found
    ]
    columns = (("rank correlation", False), ("between fits with", False), ("lambdas", True), ("mean", True))
    return plain_table((*columns, (f"range, {outcome.seeds} seeds", True)), rows)
