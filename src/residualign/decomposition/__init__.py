"""Exact decomposition of an image embedding into residual units."""
