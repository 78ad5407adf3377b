"""Which components a page speaks of: those an adapter scales, with the variance they have on the images at hand."""

from __future__ import annotations

import torch

from residualign.adapter.adapter import Adapter
from residualign.spectrum import Spectra, Spectrum

__all__ = ["shown_spectra"]


def shown_spectra(adapter: Adapter, own: Spectra) -> Spectra:
    """Of every unit the components the adapter scales one by one, else those of `own`.

    own: spectra of the images whose variance counts; means, total variances and the output are theirs. The variance
    along an adapter's component phi is sum_j v_j (phi . phi_j)^2 over their components phi_j of variance v_j. In the
    order of the adapter, whose lambdas count the same way, so not necessarily falling. Costs O(component^2 x dim) a
    unit.
    """
    scaled = {unit.label: unit.components for unit in adapter.full_scaling.units}
    spectrums = []
    for label, spectrum in own.items():
        components = scaled.get(label)
        if components is None:
            spectrums.append(spectrum)
            continue
        components = components.to("cpu", torch.float64)
        along = (components @ spectrum.components.double().T).square() @ spectrum.explained_variance.double()
        spectrums.append(Spectrum(spectrum.mean, components, along, spectrum.total_variance, spectrum.n_samples))
    return Spectra(own.units, tuple(spectrums), own.output, own.source, own.model_fingerprint)
