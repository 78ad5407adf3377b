"""Terminal output of `residualign classify`: a line per image, with the heads that decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from residualign._messages import percent, whole_percent
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.adapter.verdict import Decision
    from residualign.commands.classify import ClassifyOutcome


def show(out: Out, outcome: ClassifyOutcome) -> None:
    """Print label, probability and the heads that decided, image by image."""
    from residualign.cli.views import plain_table

    columns = (
        ("image", False),
        ("label", False),
        ("", True),
        ("all heads", True),
        ("heads that decided, %", False),
    )
    verdicts = outcome.verdicts
    names = _short_names([verdict.image for verdict in verdicts]) if out.stdout.is_terminal else None
    rows = [
        (
            verdict.image if names is None else names[i],
            verdict.label,
            percent(verdict.probability),
            whole_percent(verdict.kinds["heads"]),
            decided(verdict.decided_by, sign=""),
        )
        for i, verdict in enumerate(verdicts)
    ]
    out.show(plain_table(columns, rows))


def decided(by: Sequence[Decision], sign: str = " %") -> str:
    """The heads that decided, with their shares: `L5.H2 +41 %, L3.H0 -9 %`."""
    shares = ((one.head, "" if one.share is None else f" {100 * one.share:+.0f}{sign}") for one in by)
    return ", ".join(head + share for head, share in shares)


def _short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the folder that all of them share, because a terminal is narrow."""
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [min(path, os.path.relpath(path, common), key=len) for path in paths]
