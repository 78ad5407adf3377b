"""A figure that is drawn when it is first looked at, the same for a file, the page and a notebook."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Figure"]

_DPI = 200


@dataclass(frozen=True, repr=False)
class Figure:
    """One figure. `draw` makes the chart; nothing is drawn, and no drawing library imported, before that."""

    draw: Callable[[], Any]

    def to_bytes(self, format: str) -> bytes:
        """The figure as a file in the format "png", "svg" or "pdf". The same figure gives the same bytes."""
        figure = self.draw()
        buffer = io.BytesIO()
        if not hasattr(figure, "savefig"):
            # an altair chart; on white, for its own ground is whatever the page has
            figure = figure.copy()
            figure.config.background = "white"
            figure.save(buffer, format=format, **({"scale_factor": 2} if format == "png" else {}))
            return buffer.getvalue()
        # without the clock and the library's version the same figure gives the same bytes
        metadata = {"Software": None} if format == "png" else {"CreationDate": None, "Producer": None, "Creator": None}
        figure.savefig(buffer, format=format, dpi=_DPI, bbox_inches="tight", metadata=metadata)
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure; the ending of the name, .png, .svg or .pdf, says in which format."""
        Path(path).write_bytes(self.to_bytes(Path(path).suffix.removeprefix(".").lower()))

    def __repr__(self) -> str:
        return "Figure(.save('name.png|svg|pdf'))"

    def _repr_png_(self) -> bytes:
        return self.to_bytes("png")
