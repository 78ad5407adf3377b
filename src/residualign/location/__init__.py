"""Where in the image: the parts of a head's contribution that came from each patch."""

from __future__ import annotations

from residualign.location.locate import locate
from residualign.location.result import Location

__all__ = ["Location", "locate"]
