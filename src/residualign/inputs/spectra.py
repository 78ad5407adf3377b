"""Where principal components come from: a given reference, the model's own, or the training images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from residualign._progress import Progress
from residualign.data import load_data
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum, reference_spectra
from residualign.fitting.fit import few_images
from residualign.inputs.options import LoadingOptions
from residualign.inputs.subject import Subject
from residualign.models.names import bundled_file
from residualign.spectrum import Moments, Spectra
from residualign.store import Store

if TYPE_CHECKING:
    from residualign.models.vision_model import VisionModel

__all__ = [
    "BUNDLED_NAME",
    "ChosenSpectra",
    "SpectraKind",
    "bundled_spectra",
    "choose_spectra",
    "given_spectra",
    "spectra_of_bases",
]

BUNDLED_NAME = "spectra.safetensors"
"""A model directory may contain the spectra of a reference set under this name; `mini` does."""


SpectraKind = Literal["given", "shipped", "training split"]


@dataclass(frozen=True)
class ChosenSpectra:
    """Spectra and their source."""

    spectra: Spectra
    kind: SpectraKind

    def describe(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "kind": self.kind,
            "source": self.spectra.source,
            "n_images": self.spectra.n_samples,
            "fingerprint": self.spectra.fingerprint,
        }


def choose_spectra(
    store: Store,
    subject: Subject,
    reference: str | None,
    progress: Progress,
    *,
    shots: int | None = None,
    seed: int = 0,
) -> ChosenSpectra:
    """The spectra to fit on.

    subject: what the store was made of, and how to read images. reference: a spectra file, a store, or a data set
    (labels are not needed); None takes the spectra that come with the model, or else those of the training split (with
    `shots`, of the chosen images alone). `BadInputError` for a reference that cannot be used, such as spectra of
    different weights.
    """
    expected = str(store.model["fingerprint"])
    if reference is not None:
        spectra = given_spectra(reference, subject.model, subject.loading, progress)
        if spectra.model_fingerprint and spectra.model_fingerprint != expected:
            raise BadInputError(f"the reference {reference!r} was computed with different weights than the images were")
        return ChosenSpectra(spectra, "given")
    # the files of a model that was moved are beside it, so its present name counts
    bundled = bundled_spectra(subject.model_name)
    if bundled is not None:
        spectra = Spectra.load(bundled)
        if spectra.model_fingerprint == expected:
            return ChosenSpectra(spectra, "shipped")
        progress.warn(
            f"the spectra that come with {subject.model_name!r} were computed with different weights; the training "
            "split is used instead"
        )
    if shots is None:
        return ChosenSpectra(fit_spectrum(store), "training split")
    moments = Moments.empty(store.maps)
    moments.update(few_images(store, shots, seed).split("train").coordinates())
    source = f"{store.data['name']}, train, {shots} images per class"
    return ChosenSpectra(moments.spectra(store.maps, source=source, model_fingerprint=expected), "training split")


def spectra_of_bases(
    wanted: Sequence[str], store: Store, subject: Subject, reference: str | None, progress: Progress, *, seed: int = 0
) -> dict[str, Spectra]:
    """Spectra by basis: "target", those of the training images, and "reference", those of `choose_spectra`.

    Without any wanted, both, or the target alone for a model without spectra; `BadInputError` if those were wanted.
    """
    spectra = {}
    for name in dict.fromkeys(wanted or ("target", "reference")):
        if name == "target":
            spectra[name] = fit_spectrum(store)
            continue
        chosen = choose_spectra(store, subject, reference, progress, seed=seed)
        if chosen.kind != "training split":
            spectra[name] = chosen.spectra
        elif wanted:
            raise BadInputError(
                "the model comes without spectra; name the images of the reference basis with --reference"
            )
    return spectra


def bundled_spectra(model_name: str) -> Path | None:
    """The spectra file that comes with a model, if it has one."""
    return bundled_file(model_name, BUNDLED_NAME)


def given_spectra(
    reference: str, model: Callable[[], VisionModel], loading: LoadingOptions, progress: Progress
) -> Spectra:
    """The spectra of a given reference: a spectra file, a store, or a data set."""
    path = Path(reference).expanduser()
    if path.suffix == ".safetensors" and os.path.exists(path):
        return Spectra.load(path)
    if (path / "manifest.json").is_file():
        return fit_spectrum(Store.open(path))
    data = load_data(reference, split=False, stream=loading.stream, skip_bad=loading.skip_bad)
    split = next((part for part in data.splits if len(part)), data.train)
    with progress.task(f"reference {reference}") as tick:
        return reference_spectra(
            model(),
            split,
            source=f"{data.name}, {split.name}",
            batch_size=loading.batch_size,
            workers=loading.workers,
            skip_bad=loading.skip_bad,
            progress=tick,
        )
