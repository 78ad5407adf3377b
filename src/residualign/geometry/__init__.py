"""How many dimensions the contributions of each residual unit fill: linear, intrinsic, and by layer."""

from residualign.geometry.measure import Geometry, UnitGeometry, measure_geometry
from residualign.geometry.profile import Hunchback, LayerProfile, Trend

__all__ = ["Geometry", "Hunchback", "LayerProfile", "Trend", "UnitGeometry", "measure_geometry"]
