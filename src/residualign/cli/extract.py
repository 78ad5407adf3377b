"""Terminal output of `residualign extract`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residualign._messages import plural
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.extract import ExtractOutcome


def show(out: Out, outcome: ExtractOutcome) -> None:
    """Print what is in the store, and the sum check."""
    from residualign.cli.views import facts, seconds

    store = outcome.store
    splits = " · ".join(f"{name} {size:,}" for name, size in outcome.sizes.items())
    out.show(
        facts(
            ("store", store.path),
            ("images", f"{splits}; {plural(len(store.class_names), 'class', 'classes')}"),
            ("sum check", f"the units of {outcome.request.model} sum to its output within {store.residual_error:.0e}"),
            ("time", seconds(outcome.seconds)),
        )
    )
