"""Stores and spectra for the studies, extracted once and kept in a scratch folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import residualign as ra
from residualign.data import ImageData, Split
from residualign.extraction import reference_spectra
from residualign.inputs.spectra import bundled_spectra
from residualign.spectrum import Spectra

__all__ = ["Subject", "open_subjects"]


@dataclass(frozen=True)
class Subject:
    """One model on one data set: its store, and the spectra of its components."""

    name: str
    store: ra.Store
    spectra: Spectra


def open_subjects(
    model_name: str,
    sources: list[str],
    reference: str | None,
    sizes: tuple[int, int, int],
    scratch: Path,
    say: Callable[[str], None],
) -> list[Subject]:
    """A store per data source, extracted into scratch if it is missing, and the spectra to go with it.

    sizes: the maximum number of train, val and test images, drawn with seed 0. Spectra come from the reference's
    training split; without a reference, from the model if it has spectra, else from each source's training split.
    """
    shipped = None if reference is not None else bundled_spectra(model_name)
    model, spectra, subjects = None, None if shipped is None else Spectra.load(shipped), []
    label = Path(model_name).name
    for source in sources:
        path = scratch / f"{label}-{Path(source).name}-{'-'.join(map(str, sizes))}"
        if not (path / "manifest.json").exists():
            model = model or ra.load_model(model_name)
            say(f"extracting {source} with {label} to {path}")
            ra.extract(model, _subset(ra.load_data(source), sizes), path, batch_size=50, workers=1)
        store = ra.Store.open(path)
        if reference is not None and spectra is None:
            file = scratch / f"{label}-{Path(reference).name}.safetensors"
            if not file.exists():
                model = model or ra.load_model(model_name)
                say(f"spectra of {reference} with {label} to {file}")
                data = ra.load_data(reference)
                reference_spectra(model, data.train, source=f"{data.name}, train", batch_size=50).save(file)
            spectra = Spectra.load(file)
        subjects.append(Subject(f"{label} {Path(source).name}", store, spectra or ra.fit_spectrum(store)))
    return subjects


def _subset(data: ImageData, sizes: tuple[int, int, int]) -> ImageData:
    """At most `sizes` images of each split."""

    def take(split: Split, size: int) -> Split:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:size]
        return split.take(order.sort().values.tolist())

    parts = {split.name: take(split, size) for split, size in zip(data.splits, sizes, strict=True)}
    return replace(data, **parts)
