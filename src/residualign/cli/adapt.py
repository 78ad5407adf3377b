"""`residualign adapt`: learn to scale a frozen model's components, and save what was learned."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.adapt import AdaptOutcome


def adapt(
    source: o.ModelOrStore,
    out: o.Out,
    data: o.OptionalData = None,
    method: o.Methods = None,
    reference: o.Reference = None,
    shots: o.Shots = None,
    mean: o.MeanOption = None,
    classifier: o.ClassifierOption = None,
    loss: o.LossOption = o.LossChoice.softmax,
    classes: o.Classes = None,
    template: o.Templates = None,
    store: o.StoreOption = None,
    model: o.ModelPath = None,
    seed: o.Seed = 0,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Fit an adapter to labelled images: MODEL DATA, or a STORE.

    Writes the adapter, its history, a summary and the store into --out. An unfinished run of the same command is
    continued.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.adapt import AdaptRequest, run_adapt

    printer = Out(json)
    outcome = run_adapt(
        AdaptRequest(
            source=source,
            data=data,
            out=out,
            methods=tuple(method or ("residual",)),
            store=store,
            reference=reference,
            shots=shots,
            mean=mean,
            classifier=classifier,
            loss=loss.value,
            classes=None if classes is None else str(classes),
            templates=None if template is None else tuple(template),
            seed=seed,
            model=model,
            stream=stream,
            skip_bad=skip_bad,
            overwrite=overwrite,
            machine=Machine(device, dtype.value, batch_size, workers),
            command=("residualign", *sys.argv[1:]),
        ),
        printer,
    )
    printer.finish(outcome.to_json())
    if not json:
        show(printer, outcome)


def show(out: Out, outcome: AdaptOutcome) -> None:
    """The outcome for people."""
    from residualign.cli.views import facts, method_line

    store, chosen = outcome.store, outcome.chosen
    splits = " · ".join(f"{name} {len(store.split(name)):,}" for name in store.splits)
    before = "class means" if chosen.classifier == "means" else "zero-shot"
    base = chosen.accuracy["zero_shot"]
    lines = [method_line(None, out.stdout), method_line((before, base, None, None), out.stdout)]
    for one in outcome.results:
        row = (one.method, one.accuracy["adapted"], one.parameters, one.seconds)
        lines.append(method_line(row, out.stdout, marked=one is chosen))
    spectra = outcome.spectra
    best = chosen.method if len(outcome.results) > 1 else None
    out.show(
        facts(
            ("model", str(store.model["name"])),
            ("data", f"{store.data['name']}: {splits}"),
            ("components", f"{spectra.kind}: {spectra.spectra.source} ({spectra.spectra.n_samples:,} images)"),
            ("sum check", f"units sum to the model's output within {store.residual_error:.0e}"),
        ),
        "",
        *lines,
        "",
        facts(
            ("adapter", f"{outcome.request.out}" + (f" (the best on validation images: {best})" if best else "")),
            ("store", f"{store.path}, kept: `residualign adapt {store.path} --out ...` fits again without the images"),
            ("next", f"residualign report {outcome.request.out}  (a page that shows what was learned)"),
            ("", f"residualign classify {outcome.request.out} IMAGE..."),
        ),
    )
