"""Units in words and images: spectra, dictionary and explanation of a store's split, and pictures for its figure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from residualign._progress import Progress
from residualign.commands._inputs import Subject, analysed_split, chosen_units
from residualign.commands._spectra import choose_spectra
from residualign.data.split import ImageData
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.store import Store
from residualign.text.dictionary import TextDictionary, choose_texts, encode_dictionary, no_text_sentence
from residualign.text.explain import explain_units
from residualign.text.explanation import Explanation, UnitWords

__all__ = ["ExplainOutcome", "end_images", "run_explain"]

DEFAULT_METHOD = "somp"


@dataclass(frozen=True)
class ExplainOutcome:
    """An explanation and what it was made from. components_from: the images behind the components, in words."""

    model: str
    data: str
    components_from: str
    n_reference: int
    n_unknown: int
    explanation: Explanation

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        reference = {"source": self.components_from, "n_images": self.n_reference}
        head = {"model": self.model, "data": self.data, "reference": reference, "n_unknown_texts": self.n_unknown}
        return head | self.explanation.to_json()


def run_explain(
    store: Store,
    subject: Subject,
    *,
    split: str = "train",
    reference: str | None = None,
    dictionary: str | os.PathLike[str] | None = None,
    units: Sequence[str] | None = None,
    components: Sequence[int] | None = None,
    n_texts: int = 5,
    n_images: int = 5,
    method: str | None = None,
    progress: Progress,
) -> ExplainOutcome:
    """Explain units (heads where none is named) over one split.

    reference: whose components; None takes those of the split itself. method None is `DEFAULT_METHOD`, and images alone
    where the model has no text tower. `BadInputError` for a dictionary or a method with such a model, for units and
    components that do not exist, and as in the parts.
    """
    wanted = chosen_units(store.units, units, default="heads")
    chosen_split = analysed_split(store, split)
    machine = subject.machine
    if store.logit_scale is None and (dictionary is not None or method is not None):
        raise BadInputError(no_text_sentence(str(store.model["name"])))
    # read before the long work begins
    texts = choose_texts(dictionary, str(store.model["name"])) if store.logit_scale is not None else None
    if reference is None:
        spectra = fit_spectrum(store, split=split)
    else:
        spectra = choose_spectra(
            store, subject.model, reference, batch_size=machine.batch_size, workers=machine.workers, progress=progress
        ).spectra
    most = max(spectra[unit.label].n_components for unit in wanted)
    if components is not None and min(components) >= most:
        raise BadInputError(f"no unit asked for has a component {min(components)}; the most one has is {most}, from 0")
    encoded: TextDictionary | None = None
    if texts is None:
        progress.note(f"{store.model['name']} has no text tower: units are explained by images alone")
    else:
        if texts.n_duplicates:
            progress.note(f"{texts.n_duplicates} repeated descriptions in {texts.name} were dropped")
        with progress.task("descriptions") as tick:
            encoded = encode_dictionary(subject.model(), texts, progress=tick)
        if encoded.unknown:
            progress.warn(_unknown_sentence(encoded, str(store.model["name"])))
    with progress.task("units") as tick:
        explanation = explain_units(
            chosen_split,
            spectra,
            encoded,
            units=wanted,
            components=components,
            n_texts=n_texts,
            n_images=n_images,
            method=method or DEFAULT_METHOD,
            progress=tick,
        )
    return ExplainOutcome(
        str(store.model["name"]),
        str(store.data["name"]),
        "these images" if reference is None else spectra.source,
        spectra.n_samples,
        0 if encoded is None else len(encoded.unknown),
        explanation,
    )


def end_images(data: ImageData | None, units: Iterable[UnitWords]) -> dict[str, Image.Image]:
    """The images at the ends of all components of these units, by key; none where only a store is at hand."""
    if data is None:
        return {}
    wanted = {
        key
        for unit in units
        for component in unit.components
        for key, _ in (*component.images_positive, *component.images_negative)
    }
    # in the order of the rows, which a stream wants
    return {key: split.image(i) for split in data.splits for i, key in enumerate(split.keys) if key in wanted}


def _unknown_sentence(dictionary: TextDictionary, model: str) -> str:
    shown = ", ".join(map(repr, dictionary.unknown[:3])) + (", ..." if len(dictionary.unknown) > 3 else "")
    n = len(dictionary.unknown)
    return f"the text tower of {model!r} does not know all words of {n} descriptions ({shown}); they are left out"
