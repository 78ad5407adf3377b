"""Units in words: from a store to an explanation, for all layouts of coordinates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import residualign as ra
from residualign.errors import BadInputError
from residualign.spectrum import Spectra
from residualign.store import Store, StoreSplit
from residualign.text.explain import METHODS, coefficients, explain, explain_units
from residualign.text.pursuit import omp, somp, text_span
from residualign.units import Units
from tests.random_models import WORDS, save_clip, save_siglip, save_two_colors, save_vit
from tests.spectrum.random_tower import DIM
from tests.store.make_store import fill, make_plan
from tests.text.make import make_dictionary


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoreSplit:
    return fill(tmp_path_factory.mktemp("stores") / "store", make_plan()).split("train")


@pytest.fixture(scope="module")
def spectra(split: StoreSplit) -> Spectra:
    return ra.fit_spectrum(split.store)


DICTIONARY = make_dictionary(atoms=31, dim=DIM)


def plain_coefficients(split: StoreSplit, spectra: Spectra, label: str) -> torch.Tensor:
    """From the contributions, in the whole space."""
    maps = split.store.maps
    values = maps.contribution(split.coordinates().to(dtype=torch.float64), maps.units.get(label))
    return (values - spectra[label].mean) @ spectra[label].components.mT


def test_every_head_in_unit_order_and_what_was_used(split: StoreSplit, spectra: Spectra) -> None:
    seen = []
    found = explain_units(split, spectra, DICTIONARY, progress=lambda done, total: seen.append((done, total)))
    assert [unit.label for unit in found.units] == [u.label for u in split.store.units.of_kind("head")]
    assert (found.method, found.dictionary, found.n_texts) == ("somp", "noise", 31)
    assert (found.split, found.n_images) == ("train", 61)
    assert seen == [(i, 6) for i in range(1, 7)]
    for unit in found.units:
        assert [component.index for component in unit.components] == [0, 1, 2]
        assert len(unit.chosen) == 5
        assert unit.coherence is not None
        ratio = spectra[unit.label].explained_variance_ratio.tolist()
        assert [component.explained_variance_ratio for component in unit.components] == ratio[:3]


@pytest.mark.parametrize("label", ["L1.H2", "L0.mlp", "embedding"])
def test_images_at_both_ends_are_those_of_the_contributions(split: StoreSplit, spectra: Spectra, label: str) -> None:
    (unit,) = explain_units(split, spectra, None, units=[label], n_images=4).units
    expected = plain_coefficients(split, spectra, label)
    for component in unit.components:
        values = expected[:, component.index]
        order = values.argsort(descending=True).tolist()
        assert [key for key, _ in component.images_positive] == [split.keys[i] for i in order[:4]]
        assert [key for key, _ in component.images_negative] == [split.keys[i] for i in order[:-5:-1]]
        np.testing.assert_allclose([v for _, v in component.images_positive], values[order[:4]].numpy(), rtol=1e-6)
        np.testing.assert_allclose([v for _, v in component.images_negative], values[order[:-5:-1]].numpy(), rtol=1e-6)
    assert unit.chosen == ()
    assert unit.coherence is None


@pytest.mark.parametrize("method", METHODS)
def test_texts_are_those_of_the_method_on_the_contributions(split: StoreSplit, spectra: Spectra, method: str) -> None:
    label, maps = "L1.H0", split.store.maps
    (unit,) = explain_units(split, spectra, DICTIONARY, units=[label], method=method, n_texts=4).units
    rows = maps.contribution(split.coordinates().to(dtype=torch.float64), maps.units.get(label))
    centered = DICTIONARY.centered
    if method == "omp":
        expected = omp(spectra[label].components[0], centered, 4)
    else:
        expected = (somp if method == "somp" else text_span)(rows, centered, 4)
    assert tuple(text.text for text in unit.chosen) == expected.texts
    np.testing.assert_allclose([text.weight for text in unit.chosen], expected.weights, rtol=1e-5)
    shares = [text.explained_variance_ratio for text in unit.chosen]
    np.testing.assert_allclose(shares, expected.explained_variance_ratio, rtol=1e-6)
    assert unit.explained == shares[-1]


def test_ends_are_texts_of_the_largest_cosine_without_the_dictionarys_mean(split: StoreSplit, spectra: Spectra) -> None:
    (unit,) = explain_units(split, spectra, DICTIONARY, units=["L0.H1"], components=[1], n_texts=3).units
    (component,) = unit.components
    apart = DICTIONARY.atoms - DICTIONARY.atoms.mean(dim=0)
    cosines = torch.nn.functional.cosine_similarity(apart, spectra["L0.H1"].components[1][None])
    order = cosines.argsort(descending=True).tolist()
    assert [match.text for match in component.positive] == [f"text {i}" for i in order[:3]]
    assert [match.text for match in component.negative] == [f"text {i}" for i in order[:-4:-1]]
    np.testing.assert_allclose([match.score for match in component.positive], cosines[order[:3]].numpy(), rtol=1e-9)
    np.testing.assert_allclose(
        [match.score for match in component.negative], -cosines[order[:-4:-1]].numpy(), rtol=1e-9
    )


def test_ends_of_a_pursuit_are_its_texts_by_sign(split: StoreSplit, spectra: Spectra) -> None:
    (unit,) = explain_units(split, spectra, DICTIONARY, units=["L0.H1"], method="omp", n_texts=3).units
    for component in unit.components:
        pursued = omp(spectra["L0.H1"].components[component.index], DICTIONARY.centered, 6)
        weights = dict(zip(pursued.texts, pursued.weights, strict=True))
        assert len(component.positive) + len(component.negative) <= 6
        for sign, end in ((1, component.positive), (-1, component.negative)):
            ranked = sorted((w * sign for w in weights.values() if w * sign > 0), reverse=True)[:3]
            np.testing.assert_allclose([match.score for match in end], ranked, rtol=1e-9)
            assert all(weights[match.text] * sign > 0 for match in end)


@pytest.mark.parametrize("method", METHODS)
def test_a_component_with_the_other_sign_swaps_its_ends(split: StoreSplit, spectra: Spectra, method: str) -> None:
    flipped = Spectra(
        spectra.units,
        tuple(replace(one, components=-one.components) for one in spectra.spectrums),
        spectra.output,
        spectra.source,
    )
    ours, theirs = (explain_units(split, s, DICTIONARY, method=method) for s in (spectra, flipped))
    for unit, other in zip(ours.units, theirs.units, strict=True):
        assert [text.text for text in unit.chosen] == [text.text for text in other.chosen]
        for a, b in zip(unit.components, other.components, strict=True):
            assert (a.positive, a.negative) == (b.negative, b.positive)
            assert a.images_positive == tuple((key, -value) for key, value in b.images_negative)
            assert a.images_negative == tuple((key, -value) for key, value in b.images_positive)


def test_one_image_and_a_unit_that_never_varies(split: StoreSplit, spectra: Spectra) -> None:
    alone = split.take(torch.tensor([7]))
    found = explain_units(alone, spectra, DICTIONARY, n_images=9)
    for unit in found.units:
        assert unit.chosen == ()
        # one image lies on one side, and never on both
        assert all(len(c.images_positive) + len(c.images_negative) == 1 for c in unit.components)
    still = replace(spectra["L0.H0"], components=torch.zeros(0, DIM), explained_variance=torch.zeros(0))
    spectrums = tuple(still for _ in spectra.units)
    for method in METHODS:
        none = Spectra(spectra.units, spectrums, spectra.output, "still")
        found = explain_units(alone, none, DICTIONARY, method=method)
        assert all(unit.components == () and unit.chosen == () and unit.explained == 0 for unit in found.units)


def test_components_that_some_units_have_not(split: StoreSplit, spectra: Spectra) -> None:
    found = explain_units(split, spectra, None, units=["embedding", "L0.mlp"], components=[5, 0, 5])
    assert [[c.index for c in unit.components] for unit in found.units] == [[0], [5, 0]]


def test_tables_and_json_hold_the_same(split: StoreSplit, spectra: Spectra) -> None:
    found = explain_units(split, spectra, DICTIONARY, components=2, n_texts=3, n_images=2)
    content = json.loads(json.dumps(found.to_json()))
    unit = content["units"][4]
    assert unit["label"] == "L1.H1"
    assert unit["chosen"][0]["text"] == found["L1.H1"].chosen[0].text
    image = unit["components"][1]["images_negative"][0]
    assert (image["key"], image["coefficient"]) == found["L1.H1"].components[1].images_negative[0]
    assert len(found.tables["texts"]) == 6 * 3
    assert len(found.tables["components"]) == 6 * 2 * 2 * 3
    assert len(found.tables["images"]) == 6 * 2 * 2 * 2
    for rows in (found.tables["texts"], found.tables["components"], found.tables["images"]):
        assert len({tuple(row) for row in rows}) == 1
    with pytest.raises(BadInputError, match=r"unit 'L9\.H9' was not explained"):
        found["L9.H9"]


def test_the_most_telling_units_come_first(split: StoreSplit, spectra: Spectra) -> None:
    found = explain_units(split, spectra, DICTIONARY)
    shares = [unit.explained for unit in found.most_telling(4)]
    assert shares == sorted((unit.explained for unit in found.units), reverse=True)[:4]
    images = explain_units(split, spectra, None)
    first = [unit.components[0].explained_variance_ratio for unit in images.most_telling(6)]
    assert first == sorted(first, reverse=True)


def test_bad_arguments_are_refused(split: StoreSplit, spectra: Spectra) -> None:
    for changes, message in (
        ({"method": "nmf"}, "method is somp, textspan, omp; got 'nmf'"),
        ({"n_texts": 0}, "n_texts is at least 1"),
        ({"components": 0}, "at least 1 component"),
        ({"n_images": -1}, "n_images is at least 0"),
        ({"components": []}, "components are indices counted from 0"),
        ({"components": [1, -1]}, "components are indices counted from 0"),
        ({"units": ["L7.H0"]}, "no unit 'L7.H0'"),
    ):
        with pytest.raises(BadInputError, match=message):
            explain_units(split, spectra, DICTIONARY, **changes)
    with pytest.raises(BadInputError, match="has no images"):
        explain_units(split.store.split("test"), spectra, DICTIONARY)
    with pytest.raises(BadInputError, match="the dictionary has 5 dimensions"):
        explain_units(split, spectra, make_dictionary(dim=5))
    other = Spectra(Units(1, 1), spectra.spectrums[:3], spectra.output, "other")
    with pytest.raises(BadInputError, match="the spectra are of 3 units"):
        explain_units(split, other, DICTIONARY)


@pytest.mark.parametrize("layout", ["token", "mean", "contributions"])
def test_all_layouts(layout: str, tmp_path: Path) -> None:
    save = {"token": save_clip, "mean": save_vit, "contributions": save_siglip}[layout]
    name = str(save(tmp_path / "model")) + ("#mean" if layout == "mean" else "")
    model = ra.load_model(name, dtype="float64")
    data = ra.load_data(save_two_colors(tmp_path / "data", n=11))
    store: Store = ra.extract(model, data, tmp_path / "store", dtype="float64")
    assert store.maps.layout == layout
    split, spectra = store.split("train"), ra.fit_spectrum(store)
    dictionary = make_dictionary(atoms=29, dim=model.dim)
    units = [*store.units.labels]
    found = explain_units(split, spectra, dictionary, units=units, n_texts=3)
    plain = ra.decompose(model, list(data.train.images()))
    assert [unit.label for unit in found.units] == units
    for label in units:
        expected = somp(plain[label], dictionary.centered, 3)
        unit = found[label]
        assert tuple(text.text for text in unit.chosen) == expected.texts
        shares = [text.explained_variance_ratio for text in unit.chosen]
        np.testing.assert_allclose(shares, expected.explained_variance_ratio, rtol=1e-8)
        if not unit.components:
            continue
        values = coefficients(split.coordinates(), store.maps, store.units.get(label), spectra[label], [0])[:, 0]
        by_hand = (plain[label] - spectra[label].mean) @ spectra[label].components[0]
        torch.testing.assert_close(values, by_hand, rtol=1e-8, atol=1e-9)
        assert unit.components[0].images_positive[0][0] == data.train.keys[int(by_hand.argmax())]


def test_further_components_of_single_units(split: StoreSplit, spectra: Spectra) -> None:
    label = "L0.H1"
    last = spectra[label].n_components - 1
    found = explain_units(split, spectra, DICTIONARY, components=2, more={label: [last, 1, 10_000]})
    for unit in found.units:
        assert [one.index for one in unit.components] == ([0, 1, last] if unit.label == label else [0, 1])
    alone = explain_units(split, spectra, DICTIONARY, units=[label], components=[last])
    among, single = found[label].components[-1], alone[label].components[0]
    assert among.index == single.index
    for end in ("positive", "negative"):
        assert [match.text for match in getattr(among, end)] == [match.text for match in getattr(single, end)]
    assert [key for key, _ in among.images_positive] == [key for key, _ in single.images_positive]
    values = [value for _, value in single.images_negative]
    assert [value for _, value in among.images_negative] == pytest.approx(values, rel=1e-9)


def test_the_public_function_takes_a_model_and_data_or_their_store(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"a {word}" for word in WORDS[:12]), encoding="utf-8")
    model = ra.load_model(save_clip(tmp_path / "clip"))
    data = ra.load_data(save_two_colors(tmp_path / "data", n=11))
    store = ra.extract(model, data, tmp_path / "store")
    direct = explain(model, data, dictionary=words, units=["L1.H1"], split="val")
    # the model is found by its recorded name
    assert explain(store, dictionary=words, units=["L1.H1"], split="val") == direct
    assert explain(model, store, dictionary=words, units=["L1.H1"], split="val") == direct
    assert direct["L1.H1"].chosen
    assert (direct.split, direct.dictionary, direct.source) == ("val", str(words), f"{data.name}, val")
    other = ra.load_model(save_clip(tmp_path / "other", seed=1))
    with pytest.raises(BadInputError, match="has other weights than the one that made the store"):
        explain(other, store, dictionary=words)


def test_a_model_without_a_text_tower_is_explained_by_images(tmp_path: Path) -> None:
    model = ra.load_model(save_vit(tmp_path / "vit"))
    store = ra.extract(model, ra.load_data(save_two_colors(tmp_path / "data", n=11)), tmp_path / "store")
    found = explain(store, units=["L1.H1"])
    assert found.dictionary is None
    assert found["L1.H1"].components[0].images_positive
    with pytest.raises(BadInputError, match="has no text tower"):
        explain(store, dictionary=tmp_path / "words.txt")


def test_the_dictionary_that_comes_with_the_model_is_taken(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    (folder / "dictionary.txt").write_text("\n".join(f"the {word}" for word in WORDS[:12]), encoding="utf-8")
    store = ra.extract(
        ra.load_model(folder), ra.load_data(save_two_colors(tmp_path / "data", n=11)), tmp_path / "store"
    )
    assert explain(store, units=["L1.H1"]).dictionary == f"the dictionary that comes with {folder}"
