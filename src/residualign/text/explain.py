"""Describe units in words and images: texts for a whole unit, and what both ends of its components say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

from jaxtyping import Float
from torch import Tensor

from residualign._progress import Tick
from residualign.data.split import ImageData
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError, refuse_bare_text
from residualign.extraction import Reading, spectra_of_split, split_of, stored
from residualign.load import load_named_by_file
from residualign.models.vision_model import VisionModel
from residualign.spectrum import Spectra, Spectrum
from residualign.store import Store, StoreSplit
from residualign.text.dictionary import Coherence, TextDictionary, choose_texts, encode_dictionary, no_text_sentence
from residualign.text.explanation import ChosenText, ComponentWords, Explanation, TextMatch, UnitWords
from residualign.text.pursuit import Chosen, Samples, omp_each, somp, text_span
from residualign.units import Unit

__all__ = ["METHODS", "N_COMPONENTS", "WordMethod", "coefficients", "explain", "explain_units"]

WordMethod = Literal["somp", "textspan", "omp"]
METHODS: tuple[WordMethod, ...] = ("somp", "textspan", "omp")

N_COMPONENTS = 3
"""Number of components of each unit that are described, unless told otherwise."""

_Ends = tuple[tuple[TextMatch, ...], tuple[TextMatch, ...]]


def explain(
    source: Store | StoreSplit | VisionModel,
    data: ImageData | Store | StoreSplit | None = None,
    *,
    split: str | None = None,
    units: Sequence[Unit | str] | None = None,
    spectra: Spectra | None = None,
    dictionary: TextDictionary | str | os.PathLike[str] | None = None,
    method: WordMethod = "somp",
    components: int | Sequence[int] = N_COMPONENTS,
    n_texts: int = 5,
    n_images: int = 5,
    **reading: Unpack[Reading],
) -> Explanation:
    """Describe units by texts of a dictionary and by images.

    Parameters
    ----------
    source : Store, StoreSplit or VisionModel
        A store, some images of one, or a model, followed by `data`. The model of a store given alone is loaded by the
        name that the store recorded, for its text tower.
    data : ImageData, Store or StoreSplit, optional
        Where `source` is a model, its images, which pass through it once; or a store that was made with it.
    split : {"train", "val", "test"}, optional
        The images to look at, by default "train".
    units : sequence of Unit or str, optional
        The units to describe, by default all heads.
    spectra : Spectra, optional
        Where the principal components are from, by default the images looked at.
    dictionary : TextDictionary or path, optional
        The texts to choose from: encoded ones, or a text file with one description per line. By default those that come
        with the model, else those of the package. A model without a text tower is explained by images alone.
    method : {"somp", "textspan", "omp"}
        How texts are chosen, see Notes.
    components : int or sequence of int
        How many components of each unit to describe, from the first; or their indices, counted from 0. Those that a
        unit does not have are left out.
    n_texts : int
        Number of texts for each unit, and for each end of a component.
    n_images : int
        Number of images at each end of a component.
    **reading
        `batch_size`, `workers`, `skip_bad` and `progress`, as in `extract`. With a store only `progress` is used,
        called with (units done, units in all).

    Returns
    -------
    Explanation
        The chosen texts of every unit, and how much of it they explain.

    Raises
    ------
    BadInputError
        For a split without images, unknown units, spectra of a different tower, a dictionary for a model without a text
        tower, a model of other weights than the store's, and counts out of range.

    Notes
    -----
    The mean of the dictionary is subtracted from all texts first. "somp" and "textspan" describe a whole unit; "omp"
    describes its first component. The ends of a component show the texts of the largest cosine with it; with "omp", the
    texts of one signed pursuit of `2 n_texts` texts.

    The coordinates of the split are held in memory. Cost per unit: that of the method (docs/explain.md), and
    O(image x coordinate x component).

    References
    ----------
    SOMP: Tropp, Gilbert and Strauss 2006, as used in ResiDual, arXiv 2411.00246. TextSpan: Gandelsman et al.,
    arXiv 2310.05916, algorithm 1. OMP: Pati, Rezaiifar and Krishnaprasad 1993.
    """
    model = source if isinstance(source, VisionModel) else None
    if model is not None and isinstance(data, Store | StoreSplit):
        source, data = data, None
    assert not isinstance(data, Store | StoreSplit)
    with stored(source, data, **reading) as store:
        part = split_of(store, split)
        words = _dictionary(part.store, dictionary, model)
        return explain_units(
            part,
            spectra_of_split(part) if spectra is None else spectra,
            words,
            units=units,
            components=components,
            n_texts=n_texts,
            n_images=n_images,
            method=method,
            progress=reading.get("progress"),
        )


def _dictionary(
    store: Store, dictionary: TextDictionary | str | os.PathLike[str] | None, model: VisionModel | None
) -> TextDictionary | None:
    """The dictionary to explain a store with; None for a model without a text tower."""
    if isinstance(dictionary, TextDictionary):
        return dictionary
    name = str(store.model["name"])
    if store.logit_scale is None:
        if dictionary is not None:
            raise BadInputError(no_text_sentence(name))
        return None
    texts = choose_texts(dictionary, name)
    model = model or load_named_by_file(name, "the store")
    if model.fingerprint != store.model["fingerprint"]:
        raise BadInputError(
            f"model {model.name!r} has other weights than the one that made the store; give the right one: "
            "explain(model, store)"
        )
    return encode_dictionary(model, texts)


def explain_units(
    split: StoreSplit,
    spectra: Spectra,
    dictionary: TextDictionary | None,
    *,
    units: Sequence[Unit | str] | None = None,
    components: int | Sequence[int] = N_COMPONENTS,
    more: Mapping[str, Sequence[int]] | None = None,
    n_texts: int = 5,
    method: WordMethod | str = "somp",
    n_images: int = 5,
    progress: Tick | None = None,
) -> Explanation:
    """`explain` for images of a store, with everything at hand. dictionary: None describes by images alone.

    more: further components of single units, by label.
    """
    refuse_bare_text("units", units)
    wanted = _indices(components)
    _check_counts(n_texts, n_images)
    _check_parts(split, spectra, dictionary, method)
    store = split.store
    chosen_units = store.units.of_kind("head") if units is None else tuple(store.units.get(unit) for unit in units)
    words = None if dictionary is None else _Words(dictionary.centered, method, n_texts)
    images = _Images(split.coordinates(), store.maps, split.keys, n_images)
    found = []
    for done, unit in enumerate(chosen_units, 1):
        asked = dict.fromkeys((*wanted, *(more or {}).get(unit.label, ())))
        found.append(_explain_unit(unit, spectra[unit.label], tuple(asked), images, words))
        if progress is not None:
            progress(done, len(chosen_units))
    return Explanation(
        model=str(store.model["name"]),
        data=str(store.data["name"]),
        split=split.name,
        n_images=len(split),
        source=spectra.source,
        method=method,
        dictionary=None if dictionary is None else dictionary.name,
        n_texts=0 if dictionary is None else len(dictionary),
        n_unknown_texts=0 if dictionary is None else len(dictionary.unknown),
        units=tuple(found),
    )


@dataclass(frozen=True, eq=False)
class _Images:
    """The images looked at. count: how many are shown at each end."""

    coordinates: Coordinates
    maps: UnitMaps
    keys: Sequence[str]
    count: int


def _explain_unit(
    unit: Unit, spectrum: Spectrum, asked: Sequence[int], images: _Images, words: _Words | None
) -> UnitWords:
    """One unit and those of the components asked for that it has."""
    kept = [index for index in asked if index < spectrum.n_components]
    values = coefficients(images.coordinates, images.maps, unit, spectrum, kept)
    ends: Sequence[_Ends] = [((), ())] * len(kept)
    texts, coherence = Chosen((), (), (), ()), None
    if words is not None:
        ends = words.ends(spectrum.components[kept])
        texts = words.whole(lambda: Samples.of_unit(images.coordinates, images.maps, unit), spectrum)
        coherence = words.coherence(texts.indices)
    ratio = spectrum.explained_variance_ratio.tolist()
    components = tuple(
        ComponentWords(
            index,
            ratio[index],
            *ends[i],
            _furthest(values[:, i], images.keys, images.count),
            _furthest(-values[:, i], images.keys, images.count, -1.0),
        )
        for i, index in enumerate(kept)
    )
    chosen = map(ChosenText, texts.texts, texts.weights, texts.explained_variance_ratio)
    return UnitWords(unit.label, tuple(chosen), coherence, components)


def coefficients(
    coordinates: Coordinates, maps: UnitMaps, unit: Unit, spectrum: Spectrum, components: Sequence[int]
) -> Float[Tensor, "image component"]:
    """Where images lie along some components of a unit, from the spectrum's mean, in float64.

    `(y B + c - mean) phi`, without the (image, dim) contribution: O(image x coordinate x component).
    """
    directions = spectrum.components[list(components)].double().mT
    offset = (maps.bias(unit).double() - spectrum.mean.double()) @ directions
    return coordinates.of(unit).double() @ (maps.weight(unit).double() @ directions) + offset


class _Words:
    """A centered dictionary and the method that chooses from it."""

    def __init__(self, dictionary: TextDictionary, method: str, n_texts: int) -> None:
        self._dictionary, self._method, self._n_texts = dictionary, method, n_texts
        self.coherence = Coherence(dictionary)

    def whole(self, samples: Callable[[], Samples], spectrum: Spectrum) -> Chosen:
        if self._method == "omp":
            first = spectrum.components[:1]
            return omp_each(first, self._dictionary, self._n_texts)[0] if len(first) else Chosen((), (), (), ())
        choose = somp if self._method == "somp" else text_span
        return choose(samples(), self._dictionary, self._n_texts)

    def ends(self, components: Float[Tensor, "component dim"]) -> list[_Ends]:
        if self._method == "omp":
            pursued = omp_each(components, self._dictionary, 2 * self._n_texts)
            return [self._of(list(zip(chosen.texts, chosen.weights, strict=True))) for chosen in pursued]
        texts = self._dictionary.texts
        cosines = components.to(self._dictionary.atoms.dtype) @ self._dictionary.atoms.mT
        return [self._of(list(zip(texts, row, strict=True))) for row in cosines.tolist()]

    def _of(self, scored: list[tuple[str, float]]) -> _Ends:
        up = sorted((pair for pair in scored if pair[1] > 0), key=lambda pair: -pair[1])
        down = sorted((pair for pair in scored if pair[1] < 0), key=lambda pair: pair[1])
        positive, negative = (
            tuple(TextMatch(text, abs(score)) for text, score in end[: self._n_texts]) for end in (up, down)
        )
        return positive, negative


def _furthest(
    values: Float[Tensor, " image"], keys: Sequence[str], count: int, sign: float = 1.0
) -> tuple[tuple[str, float], ...]:
    order = values.argsort(descending=True, stable=True)[:count]
    pairs = zip(order.tolist(), values[order].tolist(), strict=True)
    return tuple((keys[i], sign * value) for i, value in pairs if value > 0)


def _indices(components: int | Sequence[int]) -> tuple[int, ...]:
    """Indices of the components to describe, from their number or one by one."""
    if isinstance(components, int):
        if components < 1:
            raise BadInputError(f"components: at least 1 component is described; got {components}")
        return tuple(range(components))
    if not components or min(components) < 0:
        raise BadInputError(f"components are indices counted from 0; got {list(components)}")
    return tuple(components)


def _check_counts(n_texts: int, n_images: int) -> None:
    for name, value, least in (("n_texts", n_texts, 1), ("n_images", n_images, 0)):
        if value < least:
            raise BadInputError(f"{name} is at least {least}; got {value}")


def _check_parts(split: StoreSplit, spectra: Spectra, dictionary: TextDictionary | None, method: str) -> None:
    if method not in METHODS:
        raise BadInputError(f"method is {', '.join(METHODS)}; got {method!r}")
    if not len(split):
        raise BadInputError(f"split {split.name!r} has no images to explain units with")
    maps = split.store.maps
    if spectra.units != maps.units or spectra.dim != maps.dim:
        raise BadInputError(
            f"the spectra are of {len(spectra.units)} units in {spectra.dim} dimensions, the store's tower has "
            f"{len(maps.units)} in {maps.dim}"
        )
    if dictionary is not None and dictionary.dim != maps.dim:
        raise BadInputError(f"the dictionary has {dictionary.dim} dimensions, the store's tower {maps.dim}")
