"""`residualign explain`: what heads and their components respond to, in texts and images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    METHOD,
    ComponentIndex,
    Dictionary,
    Files,
    Inputs,
    Reference,
    Split,
    Top,
    UnitLabels,
    flag,
)

if TYPE_CHECKING:
    from PIL import Image

    from residualign.data.split import ImageData
    from residualign.inputs.subject import Subject
    from residualign.spectrum import Spectra
    from residualign.store import Store
    from residualign.text.dictionary import TextDictionary
    from residualign.text.explanation import Explanation, UnitWords

__all__ = ["ExplainOutcome", "ExplainRequest", "run"]

_DEFAULT_METHOD = "somp"
_N_IMAGES = 5


@dataclass(frozen=True, kw_only=True)
class ExplainRequest(Inputs, Files):
    """Describe what heads and their principal components respond to, in texts and images.

    Takes MODEL and DATA, or a STORE. Chooses descriptions from a dictionary that reconstruct the contribution of a
    unit, and shows the texts and images at both ends of its components. Units are heads unless --unit names others;
    components are the first three unless --component names others. A model without a text tower is explained by images
    alone.
    """

    dictionary: Dictionary = None
    split: Split = "train"
    unit: UnitLabels = ()
    component: ComponentIndex = ()
    words: Annotated[
        Literal["somp", "textspan", "omp"] | None,
        flag(
            "--words",
            METHOD,
            "How to choose descriptions: somp reconstructs all images together, textspan covers their variance, omp "
            "reconstructs the first component. By default somp.",
        ),
    ] = None
    texts: Annotated[
        int, flag("--texts", METHOD, "Number of texts per unit, and per end of a component.", metavar="N", min=1)
    ] = 5
    reference: Reference = None
    top: Top = 6


@dataclass(frozen=True, repr=False, eq=False)
class ExplainOutcome(Result):
    """An explanation and what it was made from.

    components_from: the images behind the components, in words; n_reference: their number. n_unknown: descriptions
    that the text tower does not know. images: the data set that pictures for the figure come from; None for a store.
    """

    request: ExplainRequest
    model: str
    data: str
    components_from: str
    n_reference: int
    n_unknown: int
    explanation: Explanation
    skipped: tuple[str, ...]
    images: ImageData | None
    files: tuple[Path, ...] = ()

    @property
    def shown(self) -> tuple[UnitWords, ...]:
        """The units to print and draw: those whose texts explain most."""
        return self.explanation.most_telling(self.request.top)

    def to_json(self) -> dict[str, Any]:
        """What `explain --json` prints."""
        reference = {"source": self.components_from, "n_images": self.n_reference}
        head = {"model": self.model, "data": self.data, "reference": reference, "n_unknown_texts": self.n_unknown}
        skipped = {"n_skipped": len(self.skipped), "skipped": list(self.skipped)}
        files = {"files": [str(path) for path in self.files]} if self.files else {}
        return head | skipped | self.explanation.to_json() | files

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of `--out`, by file name."""
        return self.explanation.tables

    @property
    def figures(self) -> dict[str, Any]:
        """The figure of `--out`; none where there are neither texts nor pictures."""
        from residualign.figures.explain import explain_figures

        if self.explanation.dictionary is None and self.images is None:
            return {}
        shown = self.shown
        labels = [unit.label for unit in shown]
        # images are read when the figure is drawn, and only where one is asked for
        return explain_figures(
            self.tables, "", labels, lambda: _end_images(self.images, shown), self.explanation.method
        )


def run(request: ExplainRequest, progress: Progress = SILENT) -> ExplainOutcome:
    """Explain units over one split, and write tables and a figure.

    `BadInputError` for a dictionary or a method with a model that has no text tower, for units and components that do
    not exist, and as in the parts.
    """
    from residualign.inputs.store import analyzed_store
    from residualign.runs.files import check_analysis_files, with_files
    from residualign.text.dictionary import load_texts

    check_analysis_files(request.out, request.format, request.overwrite)
    if request.dictionary is not None:
        # an unusable file is refused before the pass over the images
        load_texts(request.dictionary)
    with analyzed_store(request, progress, units=request.unit) as (store, subject):
        outcome = _explained(request, store, subject, progress)
    if request.out is not None and not outcome.figures:
        progress.note("no figure: a store contains no pictures, and the model has no text tower")
    return with_files(outcome, "explain")


def _explained(request: ExplainRequest, store: Store, subject: Subject, progress: Progress) -> ExplainOutcome:
    from residualign.errors import BadInputError
    from residualign.inputs.store import analyzed_split, chosen_units
    from residualign.text.dictionary import no_text_sentence
    from residualign.text.explain import N_COMPONENTS, explain_units

    wanted = chosen_units(store.units, request.unit, default="heads")
    part = analyzed_split(store, request.split)
    if store.logit_scale is None and (request.dictionary is not None or request.words is not None):
        raise BadInputError(no_text_sentence(str(store.model["name"])))
    spectra = _spectra(request, store, subject, progress)
    most = max(spectra[unit.label].n_components for unit in wanted)
    if request.component and not most:
        raise BadInputError(
            f"nothing varies: the units to explain have no components over these images ({spectra.source}); name "
            "several different images"
        )
    if request.component and min(request.component) >= most:
        raise BadInputError(
            f"no component {min(request.component)}: the units to explain have at most {most}, counted from 0"
        )
    dictionary = _dictionary(request, store, subject, progress)
    with progress.task("units") as tick:
        explanation = explain_units(
            part,
            spectra,
            dictionary,
            units=wanted,
            components=request.component or N_COMPONENTS,
            n_texts=request.texts,
            n_images=_N_IMAGES,
            method=request.words or _DEFAULT_METHOD,
            progress=tick,
        )
    return ExplainOutcome(
        request,
        model=str(store.model["name"]),
        data=str(store.data["name"]),
        components_from="these images" if request.reference is None else spectra.source,
        n_reference=spectra.n_samples,
        n_unknown=0 if dictionary is None else len(dictionary.unknown),
        explanation=explanation,
        skipped=tuple(store.skipped),
        images=subject.data,
    )


def _dictionary(request: ExplainRequest, store: Store, subject: Subject, progress: Progress) -> TextDictionary | None:
    """The descriptions in the model's output space; None for a model without a text tower."""
    from residualign._messages import listed
    from residualign.text.dictionary import choose_texts, encode_dictionary

    name = str(store.model["name"])
    if store.logit_scale is None:
        progress.note(f"{name} has no text tower: units are explained by images alone")
        return None
    # the dictionary of a model that was moved is beside it
    texts = choose_texts(request.dictionary, subject.model_name)
    if texts.n_duplicates:
        progress.note(f"{texts.n_duplicates} repeated descriptions in {texts.name} were dropped")
    with progress.task("descriptions") as tick:
        encoded = encode_dictionary(subject.model(), texts, progress=tick)
    if encoded.unknown:
        progress.warn(
            f"the text tower of {name!r} does not know all words of {len(encoded.unknown)} descriptions "
            f"({listed(encoded.unknown)}); they are left out"
        )
    return encoded


def _spectra(request: ExplainRequest, store: Store, subject: Subject, progress: Progress) -> Spectra:
    from residualign.extraction import fit_spectrum
    from residualign.inputs.spectra import choose_spectra

    if request.reference is None:
        return fit_spectrum(store, split=request.split)
    return choose_spectra(store, subject, request.reference, progress).spectra


def _end_images(data: ImageData | None, units: Iterable[UnitWords]) -> dict[str, Image.Image]:
    """The images at the ends of all components of these units, by key; none for a store."""
    if data is None:
        return {}
    wanted = {
        key
        for unit in units
        for component in unit.components
        for key, _ in (*component.images_positive, *component.images_negative)
    }
    # in the order of the rows, because streams are read forward
    return {key: split.image(i) for split in data.splits for i, key in enumerate(split.keys) if key in wanted}
