"""The geometry of unit contributions: linear and intrinsic dimension, profiles by layer, separation of classes."""

from residualign.geometry.measure import measure_geometry
from residualign.geometry.result import Geometry, Hunchback, LayerProfile, Trend, UnitGeometry

__all__ = ["Geometry", "Hunchback", "LayerProfile", "Trend", "UnitGeometry", "measure_geometry"]
