"""Units in words and images: texts for a whole unit, and what both ends of its components say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.errors import BadInputError
from residualign.spectrum import Spectra, Spectrum
from residualign.store import StoreSplit
from residualign.text.dictionary import TextDictionary
from residualign.text.explanation import ChosenText, ComponentWords, Explanation, TextMatch, UnitWords
from residualign.text.pursuit import Chosen, Coherence, omp_each, somp, text_span
from residualign.text.samples import Samples
from residualign.units import Unit

__all__ = ["METHODS", "WordMethod", "coefficients", "explain_units"]

WordMethod = Literal["somp", "textspan", "omp"]
METHODS: tuple[WordMethod, ...] = ("somp", "textspan", "omp")

_Ends = tuple[tuple[TextMatch, ...], tuple[TextMatch, ...]]


def explain_units(
    split: StoreSplit,
    spectra: Spectra,
    dictionary: TextDictionary | None,
    *,
    units: Sequence[Unit | str] | None = None,
    components: Sequence[int] | None = None,
    more: Mapping[str, Sequence[int]] | None = None,
    n_components: int = 3,
    n_texts: int = 5,
    method: WordMethod | str = "somp",
    n_images: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Describe units (None: all heads) over the images of a split.

    dictionary: None where the model has no text tower; texts are then empty. components: which, by index (those a unit
    has not are passed over); None takes the first `n_components`. more: further components of single units, by label.
    n_texts: for the whole unit, and for each end of a
    component. n_images: at each end.

    The dictionary's mean is taken off all its atoms first (`TextDictionary.centred`). The whole unit is described by
    `somp` or `text_span`, whose explained variance is that of the unit over these images, or by `omp` on its first
    component, whose explained variance is that component's alone. What an end of a component says: the texts of the
    largest cosine with it (`somp`, `textspan`), because each score can then be read by itself and the other end is the
    same question with the other sign; with `omp`, the texts of one signed pursuit of `2 n_texts` texts by the sign of
    their weight, where later texts speak of what earlier ones left.

    `BadInputError` for spectra of another tower, an unknown method, and counts below one (`n_images` below zero).
    Costs a unit: that of the method, and O(image x coordinate x component). The split's coordinates are in memory.
    """
    _check(split, spectra, dictionary, method, n_components, n_texts, n_images, components)
    maps, tower = split.store.maps, split.store.units
    chosen_units = tower.of_kind("head") if units is None else tuple(tower.get(unit) for unit in units)
    wanted = tuple(range(n_components)) if components is None else tuple(dict.fromkeys(components))
    words = None if dictionary is None else _Words(dictionary.centred, method, n_texts)
    coordinates, keys = split.coordinates(), split.keys
    found = []
    for done, unit in enumerate(chosen_units, 1):
        spectrum = spectra[unit.label]
        asked = dict.fromkeys((*wanted, *(more or {}).get(unit.label, ())))
        kept = [index for index in asked if index < spectrum.n_components]
        values = coefficients(coordinates, maps, unit, spectrum, kept)
        ends: Sequence[_Ends] = [((), ())] * len(kept)
        texts, coherence = Chosen((), (), (), ()), None
        if words is not None:
            ends = words.ends(spectrum.components[kept])
            texts = words.whole(lambda unit=unit: Samples.of_unit(coordinates, maps, unit), spectrum)  # type: ignore[misc]
            coherence = words.coherence(texts.indices)
        ratio = spectrum.explained_variance_ratio.tolist()
        found.append(
            UnitWords(
                unit.label,
                tuple(map(ChosenText, texts.texts, texts.weights, texts.explained_variance_ratio)),
                coherence,
                tuple(
                    ComponentWords(
                        index,
                        ratio[index],
                        *ends[i],
                        _furthest(values[:, i], keys, n_images),
                        _furthest(-values[:, i], keys, n_images, -1.0),
                    )
                    for i, index in enumerate(kept)
                ),
            )
        )
        if progress is not None:
            progress(done, len(chosen_units))
    name, size = (None, 0) if dictionary is None else (dictionary.name, len(dictionary))
    return Explanation(method, name, size, split.name, len(split), tuple(found))


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
    """A centred dictionary and the method that chooses from it."""

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


def _check(
    split: StoreSplit,
    spectra: Spectra,
    dictionary: TextDictionary | None,
    method: str,
    n_components: int,
    n_texts: int,
    n_images: int,
    components: Sequence[int] | None,
) -> None:
    if method not in METHODS:
        raise BadInputError(f"method is {', '.join(METHODS)}; got {method!r}")
    for name, value, least in (("n_components", n_components, 1), ("n_texts", n_texts, 1), ("n_images", n_images, 0)):
        if value < least:
            raise BadInputError(f"{name} is at least {least}; got {value}")
    if components is not None and (not components or min(components) < 0):
        raise BadInputError(f"components are numbers from 0 on; got {list(components)}")
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
