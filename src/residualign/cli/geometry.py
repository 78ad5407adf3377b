"""Terminal output of `residualign geometry`: a table per kind of unit, and what changes with depth in a sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.geometry import GeometryOutcome
    from residualign.geometry import Geometry, LayerProfile, UnitGeometry

_NAMES = {"head": "heads", "mlp": "MLPs"}
_COLUMNS = tuple((title, True) for title in ("L", "N", "95 %", "L/N", "PC 1", "PR"))


def show(printer: Out, outcome: GeometryOutcome) -> None:
    """Print the geometry of the layers, or of the units that were named."""
    from residualign.cli.views import facts

    found, request = outcome.geometry, outcome.request
    duplicates = max(one.n_duplicates for one in found.units)
    printer.show(
        facts(
            ("model", outcome.model),
            ("images", f"{found.n_images:,} of {outcome.data} ({request.split})"),
            ("components of", str(found.source)),
            *((("duplicates", f"up to {duplicates:,} per unit, dropped"),) if duplicates else ()),
        )
    )
    if request.unit:
        _show_units(printer, found.units)
    else:
        _show_profiles(printer, found)
    if outcome.files:
        printer.show("", f"  {plural(len(outcome.files), 'file')} in {request.out}")


def _show_units(printer: Out, units: tuple[UnitGeometry, ...]) -> None:
    from residualign.cli.views import plain_table

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
    printer.show("", plain_table((("unit", False), *_COLUMNS), rows))


def _show_profiles(printer: Out, found: Geometry) -> None:
    from residualign.cli.views import plain_table

    for kind, name in _NAMES.items():
        of_kind = {one.quantity: one for one in found.profiles if one.kind == kind}
        if not of_kind:
            continue
        dimension = of_kind["two_nn"]
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
        printer.show("", plain_table(((f"layer, {name}", True), *_COLUMNS), rows))
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
        told = "holds" if bump.holds else "not significant" if math.isfinite(bump.rise_interval[0]) else "no interval"
        sentences.append(
            f"hunchback of N: {told}; peak in layer {bump.peak}, rise {bump.rise:.1f} "
            f"({_interval(bump.rise_interval)}), fall {bump.fall:.1f} ({_interval(bump.fall_interval)})"
        )
    if growth is not None:
        told = "holds" if growth.grows else "not significant" if math.isfinite(growth.interval[0]) else "no interval"
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
    from residualign._messages import percent

    return percent(value) if math.isfinite(value) else percent(None)
