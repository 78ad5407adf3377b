"""The shape of what residual units represent: dimensions, linear and intrinsic, by layer; how classes lie in it."""

from residualign.geometry.measure import Geometry, UnitGeometry, measure_geometry
from residualign.geometry.profile import Hunchback, LayerProfile, Trend

__all__ = ["Geometry", "Hunchback", "LayerProfile", "Trend", "UnitGeometry", "measure_geometry"]
