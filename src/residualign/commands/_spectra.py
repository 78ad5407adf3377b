"""Where the principal components come from: a reference that was named, the model's own, or the training images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from residualign._progress import Progress
from residualign.data import load_data
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum, reference_spectra
from residualign.fitting.fit import few_images
from residualign.models.bundled import bundled_file
from residualign.spectrum import Moments, Spectra
from residualign.store import Store

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = ["SHIPPED_NAME", "ChosenSpectra", "choose_spectra", "given_spectra", "shipped_spectra"]

SHIPPED_NAME = "spectra.safetensors"
"""A model directory may hold the spectra of a reference set under this name; `mini` does."""

Kind = Literal["given", "shipped", "training split"]


@dataclass(frozen=True)
class ChosenSpectra:
    """Spectra and where they are from. describe() is what the JSON says of them."""

    spectra: Spectra
    kind: Kind

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "kind": self.kind,
            "source": self.spectra.source,
            "n_images": self.spectra.n_samples,
            "fingerprint": self.spectra.fingerprint,
        }


def choose_spectra(
    store: Store,
    model: Callable[[], VisionModel],
    reference: str | None,
    *,
    shots: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 2,
    stream: bool = False,
    skip_bad: bool = False,
    progress: Progress,
) -> ChosenSpectra:
    """The spectra to fit on.

    reference: a spectra file, a store, or a data set (labels are not needed); None takes the spectra shipped with the
    model, else those of the training split (with `shots`, of the chosen images alone). model: loads the model, called
    only where images have to be looked at. `BadInputError` for a reference that cannot be used, among them spectra of
    other weights.
    """
    expected = str(store.model["fingerprint"])
    if reference is not None:
        spectra = given_spectra(reference, model, batch_size, workers, stream, skip_bad, progress)
        if spectra.model_fingerprint and spectra.model_fingerprint != expected:
            raise BadInputError(f"the reference {reference!r} was computed with other weights than the images were")
        return ChosenSpectra(spectra, "given")
    shipped = shipped_spectra(str(store.model["name"]))
    if shipped is not None:
        spectra = Spectra.load(shipped)
        if spectra.model_fingerprint == expected:
            return ChosenSpectra(spectra, "shipped")
        progress.warn(
            f"the spectra shipped with {store.model['name']!r} are those of other weights; the training split is used"
        )
    if shots is None:
        return ChosenSpectra(fit_spectrum(store), "training split")
    moments = Moments.empty(store.maps)
    moments.update(few_images(store, shots, seed).split("train").coordinates())
    source = f"{store.data['name']}, train, {shots} images a class"
    return ChosenSpectra(moments.spectra(store.maps, source=source, model_fingerprint=expected), "training split")


def shipped_spectra(model_name: str) -> Path | None:
    """The spectra file that comes with a model, if there is one."""
    return bundled_file(model_name, SHIPPED_NAME)


def given_spectra(
    reference: str,
    model: Callable[[], VisionModel],
    batch_size: int,
    workers: int,
    stream: bool,
    skip_bad: bool,
    progress: Progress,
) -> Spectra:
    """The spectra of a reference that was named: a spectra file, a store, or a data set."""
    path = Path(reference).expanduser()
    if path.suffix == ".safetensors" and os.path.exists(path):
        return Spectra.load(path)
    if (path / "manifest.json").is_file():
        return fit_spectrum(Store.open(path))
    data = load_data(reference, split=False, stream=stream)
    split = next((part for part in data.splits if len(part)), data.train)
    with progress.task(f"reference {reference}") as tick:
        return reference_spectra(
            model(),
            split,
            source=f"{data.name}, {split.name}",
            batch_size=batch_size,
            workers=workers,
            skip_bad=skip_bad,
            progress=tick,
        )
