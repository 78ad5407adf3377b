"""`residualign classify`: labels for images, and which heads decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from residualign.cli import options as o
from residualign.cli.console import Out

if TYPE_CHECKING:
    from residualign.commands.classify import Decision


def classify(
    adapter: o.AdapterDir,
    images: o.Images,
    model: o.ModelPath = None,
    skip_bad: o.SkipBad = False,
    device: o.Device = "cpu",
    dtype: o.DTypeOption = o.DType.float32,
    batch_size: o.BatchSize = 32,
    json: o.Json = False,
) -> None:
    """Label images with an adapter.

    Beside label and probability stand the heads that decided, each with its share of the margin between the first two
    classes; a share below zero spoke for the second. The column `heads` is the share of all heads together.
    """
    from residualign.commands._inputs import Machine
    from residualign.commands.classify import run_classify

    out = Out(json)
    outcome = run_classify(
        adapter, images, Machine(device, dtype.value, batch_size), model=model, skip_bad=skip_bad, progress=out
    )
    out.finish(
        {
            "adapter": str(adapter),
            "model": outcome.adapter.model_info.get("name"),
            "method": outcome.adapter.method,
            "n_images": len(outcome.verdicts),
            "n_skipped": len(outcome.skipped),
            "skipped": list(outcome.skipped),
            "images": [verdict.to_json() for verdict in outcome.verdicts],
        }
    )
    if not json:
        from residualign.cli.views import percent, plain_table, whole_percent

        columns = (
            ("image", False),
            ("label", False),
            ("", True),
            ("all heads", True),
            ("heads that decided, %", False),
        )
        names = _short_names([verdict.image for verdict in outcome.verdicts]) if out.stdout.is_terminal else None
        rows = [
            (
                verdict.image if names is None else names[i],
                verdict.label,
                percent(verdict.probability),
                whole_percent(verdict.kinds["heads"]),
                decided(verdict.decided_by, sign=""),
            )
            for i, verdict in enumerate(outcome.verdicts)
        ]
        out.show(plain_table(columns, rows))


def decided(by: Sequence[Decision], sign: str = " %") -> str:
    """The heads that decided, with their shares: `L5.H2 +41 %, L3.H0 -9 %`."""
    shares = ((one.head, "" if one.share is None else f" {100 * one.share:+.0f}{sign}") for one in by)
    return ", ".join(head + share for head, share in shares)


def _short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the folder that all of them share; its end tells them apart, and a terminal is narrow."""
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [min(path, os.path.relpath(path, common), key=len) for path in paths]
