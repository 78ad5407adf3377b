"""Terminal output of `residualign lambdas`: the components that moved most, and accuracy as lambdas are reset to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from residualign.commands.lambdas import LambdasOutcome

_SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def show(printer: Out, outcome: LambdasOutcome) -> None:
    """Print what moved, what it carries, and how well fits agree."""
    from residualign.cli.views import bars_table, facts, heading, plain_table

    shown, request = outcome.moved[: outcome.request.top], outcome.request
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
            ("adapter", f"{request.adapter}: {outcome.adapter.method} on {outcome.adapter.model_info.get('name')}"),
            ("images", f"{plural(outcome.put_back[0].n_images, 'image')} of {outcome.store} ({request.split})"),
            ("lambdas", f"{len(outcome.moved):,}; the {len(shown)} that moved the embedding most are listed"),
        ),
        "",
        bars_table(("unit · component", unit, "effect", "variance"), rows, printer.stdout, largest=shown[0].effect),
        "",
        heading("  Accuracy as lambdas are reset to 1, by share of lambdas"),
        plain_table(
            (("effect", False), *((f"{100 * share:.0f} %", True) for share in _SHARES)), _put_back_rows(outcome)
        ),
    )
    if outcome.stability:
        title = f"  Rank correlation of lambdas between {request.seeds} fits with different seeds"
        printer.show("", heading(title), _stability_table(outcome))
    if outcome.files:
        printer.show("", f"  {plural(len(outcome.files), 'file')} in {request.out}")


def _put_back_rows(outcome: LambdasOutcome) -> list[tuple[str, ...]]:
    """Accuracy at some shares: largest first, smallest first, the mean of the random orders."""
    from residualign._messages import percent

    found = []
    for order, name in (("largest", "largest first"), ("smallest", "smallest first"), ("random", "random")):
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
            "start" if vary == "start" else "80 % of the images",
            f"{one.n_lambdas:,}",
            f"{one.mean:.3f}",
            f"{one.low:.3f} – {one.high:.3f}",
        )
        for vary, found in outcome.stability.items()
        for one in found
    ]
    titles = (("lambdas of", False), ("random", False), ("lambdas", True), ("mean", True), ("range", True))
    return plain_table(titles, rows)
