"""Fit one scale per principal component with the encoder frozen: methods, coefficients, objective, solvers."""
