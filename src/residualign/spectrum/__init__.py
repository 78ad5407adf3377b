"""Principal components of every residual unit, from one pass and in bounded memory."""

from residualign.spectrum.moments import Moments
from residualign.spectrum.spectrum import Spectra, Spectrum, truncate

__all__ = ["Moments", "Spectra", "Spectrum", "truncate"]
