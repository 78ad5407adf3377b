"""`residualign geometry`: how many dimensions every head and MLP fills, and how that changes with depth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.geometry import Geometry, LayerProfile, UnitGeometry

_NAMES = {"head": "heads", "mlp": "MLPs"}


def geometry(
    source: o.ModelOrStore,
    data: o.OptionalData = None,
    split: o.SplitOption = o.SplitChoice.train,
    unit: o.UnitLabels = None,
    threshold: o.Threshold = 0.99,
    fraction: o.Fraction = 0.9,
    subsamples: o.Subsamples = 100,
    reference: o.Reference = None,
    seed: o.Seed = 0,
    store: o.StoreOption = None,
    model: o.ModelPath = None,
    out: o.AnalysisOut = None,
    format: o.Formats = None,
    stream: o.Stream = False,
    skip_bad: o.SkipBad = False,
    overwrite: o.Overwrite = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    workers: o.Workers = 2,
    json: o.Json = False,
) -> None:
    """Linear and intrinsic dimension of every unit, and how they change with depth: MODEL with DATA, or a STORE.

    L: principal components that hold 0.99 of the variance. N: intrinsic dimension (TwoNN). Intervals are 95 %, from
    half samples of the images.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.geometry import run_geometry

    printer = Out(json)
    outcome = run_geometry(
        source,
        data,
        Machine(device, dtype.value, batch_size, workers),
        split=split.value,
        units=unit,
        reference=reference,
        threshold=threshold,
        fraction=fraction,
        subsamples=subsamples,
        seed=seed,
        store=store,
        model=model,
        stream=stream,
        skip_bad=skip_bad,
        out=out,
        formats=[one.value for one in format] if format else None,
        overwrite=overwrite,
        progress=printer,
    )
    printer.finish(outcome.payload)
    if json:
        return
    found, payload = outcome.geometry, outcome.payload
    from residualign.cli.views import facts

    duplicates = max(one.n_duplicates for one in found.units)
    printer.show(
        facts(
            ("model", str(payload["model"])),
            ("images", f"{found.n_images:,} of {payload['data']}, {split.value}"),
            ("components of", str(found.source)),
            *((("duplicates", f"up to {duplicates:,} of a unit, dropped"),) if duplicates else ()),
        )
    )
    if unit:
        _show_units(printer, found.units)
    else:
        _show_profiles(printer, found)
    if outcome.files:
        printer.show("", f"  {len(outcome.files)} files in {out}")


def _show_units(printer: Out, units: tuple[UnitGeometry, ...]) -> None:
    from residualign.cli.views import plain_table

    columns = (
        ("unit", False),
        ("L", True),
        ("N", True),
        ("95 %", True),
        ("L/N", True),
        ("first comp.", True),
        ("particip.", True),
    )
    rows = [
        (
            one.label,
            f"{one.linear_dimension:,}",
            _number(one.two_nn),
            _interval(one.two_nn_interval),
            _number(one.ratio, 2),
            _share(one.evr_first),
            _number(one.participation_ratio),
        )
        for one in units
    ]
    printer.show("", plain_table(columns, rows))


def _show_profiles(printer: Out, found: Geometry) -> None:
    from residualign.cli.views import plain_table

    for kind, name in _NAMES.items():
        of_kind = {one.quantity: one for one in found.profiles if one.kind == kind}
        if not of_kind:
            continue
        dimension = of_kind["two_nn"]
        columns = (
            (f"layer, {name}", True),
            ("L", True),
            ("N", True),
            ("95 %", True),
            ("L/N", True),
            ("first comp.", True),
            ("particip.", True),
        )
        rows = [
            (
                str(layer),
                _number(of_kind["linear_dimension"].mean[i]),
                _number(dimension.mean[i]),
                _interval(dimension.intervals[i]),
                _number(of_kind["ratio"].mean[i], 2),
                _share(of_kind["evr_first"].mean[i]),
                _number(of_kind["participation_ratio"].mean[i]),
            )
            for i, layer in enumerate(dimension.layers)
        ]
        printer.show("", plain_table(columns, rows))
        for sentence in _verdicts(dimension, of_kind["ratio"]):
            printer.show(f"  {sentence}")
    rest = [one for one in (*found.units, found.output) if one is not None and one.layer is None]
    if rest:
        _show_units(printer, tuple(rest))


def _verdicts(dimension: LayerProfile, ratio: LayerProfile) -> list[str]:
    """The hunchback of N and the growth of L/N, each in one sentence."""
    sentences = []
    bump, growth = dimension.hunchback, ratio.trend
    if bump is not None:
        told = "holds" if bump.holds else "not shown" if math.isfinite(bump.rise_interval[0]) else "no interval"
        sentences.append(
            f"hunchback of N: {told}; largest in layer {bump.peak}, rise {bump.rise:.1f} "
            f"({_interval(bump.rise_interval)}), fall {bump.fall:.1f} ({_interval(bump.fall_interval)})"
        )
    if growth is not None:
        told = "holds" if growth.grows else "not shown" if math.isfinite(growth.interval[0]) else "no interval"
        sentences.append(
            f"L/N grows with depth: {told}; rank correlation {growth.spearman:.2f} ({_interval(growth.interval, 2)})"
        )
    return sentences


def _number(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _interval(interval: tuple[float, float], digits: int = 1) -> str:
    low, high = interval
    return f"{low:.{digits}f} to {high:.{digits}f}" if math.isfinite(low) else "–"


def _share(value: float) -> str:
    from residualign.cli.views import percent

    return percent(value) if math.isfinite(value) else percent(None)
