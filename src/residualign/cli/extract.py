"""`residualign extract`: the one pass, kept in a store."""

from __future__ import annotations

from residualign.cli import options as o
from residualign.cli.console import Out


def extract(
    model: o.ModelName,
    data: o.Data,
    store: o.RequiredStore,
    template: o.Templates = None,
    classes: o.Classes = None,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Run every image through the model once and keep what everything else needs.

    A store that was interrupted is continued; a finished one of the same model and data is opened as it is.
    """
    from residualign.commands._inputs import Machine, load_subject, make_store

    out = Out(json)
    machine = Machine(device, dtype.value, batch_size, workers)
    subject = load_subject(model, data, machine, classes=classes, templates=template, stream=stream, progress=out)
    made, seconds = make_store(subject, store, skip_bad=skip_bad, overwrite=overwrite, progress=out)
    sizes = {f"n_{name}": len(made.split(name)) for name in made.splits}
    assert subject.data is not None
    skipped = [*made.skipped, *subject.data.strays]
    out.finish(
        {
            "model": model,
            "data": data,
            "store": made.path,
            "classes": len(made.class_names),
            **sizes,
            "n_skipped": len(skipped),
            "skipped": skipped,
            "split_rule": made.data.get("split_rule"),
            "residual_error": made.residual_error,
            "fingerprint": made.fingerprint,
            "seconds": {"extract": seconds},
        }
    )
    out.show(
        f"{sum(sizes.values()):,} images of {len(made.class_names)} classes in {made.path} ({seconds:.1f} s)",
        f"the units of {model} sum to its output within {made.residual_error:.0e}",
    )
