"""The shape of what residual units represent: dimensions, linear and intrinsic, by layer; how classes lie in it."""

from residualign.geometry.measure import measure_geometry
from residualign.geometry.result import Geometry, Hunchback, LayerProfile, Trend, UnitGeometry

__all__ = ["Geometry", "Hunchback", "LayerProfile", "Trend", "UnitGeometry", "measure_geometry"]
