"""`residualign evaluate`: how good an adapter is, beside the classifier it started from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.classification.evaluation import Comparison

_SHOWN = 20


def evaluate(
    adapter: o.AdapterDir,
    data: o.Data,
    model: o.ModelPath = None,
    classes: o.Classes = None,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Evaluate an adapter on the test images of DATA (or of a store), before and after adapting.

    Accuracy with 95 % interval, mean over classes, calibration error, and every class.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.evaluate import run_evaluate
    from residualign.runs.summary import BEFORE

    out = Out(json)
    machine = Machine(device, dtype.value, batch_size, workers)
    outcome = run_evaluate(
        adapter, data, machine, model=model, classes=classes, stream=stream, skip_bad=skip_bad, progress=out
    )
    kind = outcome.adapter.classifier.kind
    compared = outcome.comparison.describe()
    before, after = compared.pop("before"), compared.pop("after")
    payload: dict[str, Any] = {
        "adapter": str(adapter),
        "model": outcome.adapter.model_info.get("name"),
        "data": data,
        "method": outcome.adapter.method,
        "classifier": kind,
        "zero_shot_is": BEFORE[kind],
        "split": "test",
        "split_rule": outcome.split_rule,
        "n_images": outcome.comparison.after.n,
        "n_skipped": len(outcome.skipped),
        "skipped": list(outcome.skipped),
        "accuracy": {"zero_shot": before["accuracy"], "adapted": after["accuracy"]},
        **compared,
        "zero_shot": before,
        "adapted": after,
    }
    out.finish(payload)
    if not json:
        _show(out, payload, outcome.comparison, "class means" if kind == "means" else "zero-shot")


def _show(out: Out, payload: dict[str, Any], comparison: Comparison, before_name: str) -> None:
    from residualign.cli.views import facts, percent, plain_table

    rows = []
    for name, one in ((before_name, comparison.before), (str(payload["method"]), comparison.after)):
        low, high = one.interval
        interval = f"{100 * low:.1f} – {100 * high:.1f}"
        rows.append(
            (name, percent(one.accuracy), interval, percent(one.macro_accuracy), percent(one.calibration_error))
        )
    low, high = comparison.interval
    gained = f"{100 * comparison.difference:+.1f} points, 95 % between {100 * low:+.1f} and {100 * high:+.1f}"
    per_class = list(zip(comparison.before.per_class, comparison.after.per_class, strict=True))
    ranked = sorted(per_class, key=lambda pair: 2.0 if pair[1].accuracy is None else pair[1].accuracy)
    shown = ranked[:_SHOWN]
    columns = (("accuracy", True), ("95 %", True), ("mean of classes", True), ("calibration error", True))
    out.show(
        facts(
            ("adapter", f"{payload['adapter']} on {payload['model']}"),
            ("images", f"{payload['n_images']:,} test images of {payload['data']} ({payload['split_rule']})"),
            ("change", gained),
        ),
        "",
        plain_table((("", False), *columns), rows),
        "",
        plain_table(
            (("class, worst first", False), ("images", True), (before_name, True), ("adapted", True)),
            [(new.name, f"{new.n:,}", percent(old.accuracy), percent(new.accuracy)) for old, new in shown],
        ),
    )
    if len(ranked) > len(shown):
        out.show("", f"  {len(ranked) - len(shown)} further classes; --json lists all")
