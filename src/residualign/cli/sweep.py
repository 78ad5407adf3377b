"""`residualign ablate`: how much each choice of the method matters, from one store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.sweep import AblateOutcome
    from residualign.fitting.sweep import SettingSummary

_SHOWN = 10


def ablate(
    source: o.ModelOrStore,
    data: o.OptionalData = None,
    components: o.KeptComponents = None,
    scaled: o.ScaledKinds = None,
    basis: o.Bases = None,
    start: o.Starts = None,
    learning_rate: o.LearningRates = None,
    repeats: o.Repeats = None,
    seed: o.Seed = 0,
    mean: o.MeanOption = None,
    rest: o.RestOption = o.RestChoice.keep,
    shots: o.Shots = None,
    reference: o.Reference = None,
    classifier: o.ClassifierOption = None,
    classes: o.Classes = None,
    template: o.Templates = None,
    store: o.StoreOption = None,
    model: o.ModelPath = None,
    quick: o.Quick = False,
    out: o.AnalysisOut = None,
    formats: o.Formats = None,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Fit a grid of settings, every one from the same store: MODEL DATA, or a STORE.

    With --out each run is kept as it ends: the same command goes on, and a larger grid goes on from a smaller one.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.sweep import AblateRequest, run_ablate

    printer = Out(json)
    outcome = run_ablate(
        AblateRequest(
            source=source,
            data=data,
            components=tuple(components or ()),
            scaled=tuple(one.value for one in scaled or ()),
            bases=tuple(one.value for one in basis or ()),
            starts=tuple(one.value for one in start or ()),
            learning_rates=tuple(learning_rate or ()),
            repeats=repeats,
            seed=seed,
            mean="keep" if mean is None else mean.value,
            rest=rest.value,
            shots=shots,
            reference=reference,
            classifier=classifier,
            classes=None if classes is None else str(classes),
            templates=None if template is None else tuple(template),
            store=store,
            model=model,
            quick=quick,
            out=out,
            formats=tuple(one.value for one in formats) if formats else None,
            stream=stream,
            skip_bad=skip_bad,
            overwrite=overwrite,
            machine=Machine(device, dtype.value, batch_size, workers),
        ),
        printer,
    )
    printer.finish(outcome.to_json())
    if not json:
        _show(printer, outcome)


def _show(out: Out, outcome: AblateOutcome) -> None:
    from residualign.cli.views import facts, percent, plain_table, seconds

    sizes = " · ".join(f"{name} {size:,}" for name, size in outcome.sizes.items())
    before = "class means" if outcome.classifier == "means" else "zero-shot"
    resumed = f", {outcome.resumed} of them from before" if outcome.resumed else ""
    out.show(
        facts(
            ("model", outcome.model),
            ("data", f"{outcome.data}: {sizes}"),
            ("components", "; ".join(f"{name}: {source}" for name, source in outcome.bases.items())),
            ("before", f"{before} {percent(outcome.zero_shot)}"),
            ("runs", f"{len(outcome.runs)} in {seconds(outcome.seconds)}{resumed}"),
        )
    )
    ranked = sorted(outcome.summaries, key=lambda one: (-one.val, one.parameters))
    columns = (("components", False), ("scaled", False), ("basis", False), ("start", False), ("rate", False))
    figures = (("parameters", True), ("seeds", True), ("val", True), ("test", True))
    rows = [(*one.factors, f"{one.parameters:,}", str(one.n_seeds), *_accuracies(one)) for one in ranked[:_SHOWN]]
    out.show("", plain_table((*columns, *figures), rows))
    if len(ranked) > _SHOWN:
        out.show("", f"  {len(ranked) - _SHOWN} further settings, best on validation first; --json lists all")
    levels = [
        (one.factor.replace("_", " "), one.level, percent(one.test), percent(one.best.test), " ".join(one.best.factors))
        for one in outcome.levels
    ]
    titles = (("factor", False), ("level", False), ("mean test", True), ("best", True), ("which is", False))
    out.show("", plain_table(titles, levels))
    if outcome.request.out is not None:
        out.show("", f"  runs, tables and figures in {outcome.request.out}")


def _accuracies(one: SettingSummary) -> tuple[str, str]:
    def told(value: float | None, sd: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if sd is None else f"{100 * value:.1f} ± {100 * sd:.1f}"

    return told(one.val, one.val_sd), told(one.test, one.test_sd)
