"""Which images `--quick` takes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["QUICK_EACH", "QUICK_MOST", "sample_rows"]

QUICK_EACH, QUICK_MOST = 20, 1000
"""At most this many images per class and split with `--quick`, and about this many per split."""


def sample_rows(labels: Sequence[int]) -> list[int]:
    """Equally spaced images of each class, in their order: neighbors in a folder are often similar."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    each = max(1, min(QUICK_EACH, QUICK_MOST // max(1, len(rows))))
    chosen = [own[i * len(own) // each] for own in rows.values() for i in range(min(each, len(own))) if len(own) > each]
    return sorted([*chosen, *(row for own in rows.values() if len(own) <= each for row in own)])
