"""Measurements behind docs/benchmarks.md: `python -m benchmarks NAME|all --json FILE [size flags]`."""
