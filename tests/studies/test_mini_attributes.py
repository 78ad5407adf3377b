"""The proof on generated images: its labels, its captions, its judgment of words, and one small run."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recipes.dictionary.phrases import sections
from recipes.mini.attribute_dictionary import Dictionary, of_words, taught_words, value_vectors
from recipes.mini.attribute_truth import MAIN, OTHERS, Attribute, attribute, captions_of, names_value
from recipes.mini.attributes import COLUMN, UNDEFINED, VALUES, empty
from recipes.mini.generate import generate
from studies.mini_attributes import __main__ as attribute_proof
from studies.mini_attributes.figures import figures
from studies.mini_attributes.measure import UnitScore, coefficients, score, spectra_of, trace
from studies.mini_attributes.results import AttributeProof, AttributeResult
from studies.mini_attributes.scores import LinearScore
from studies.mini_attributes.tables import markdown
from studies.mini_attributes.words import (
    Candidate,
    ComponentAgreement,
    End,
    EndWords,
    WordAgreement,
    WordRates,
    agreement,
    p_value,
)

import residualign as ra
from residualign.units import Unit

N = 331


@pytest.fixture(scope="module")
def views() -> torch.Tensor:
    return torch.cat([generate(811, index, 499, size=8).views for index in range(3)])


@pytest.fixture(scope="module")
def proof() -> AttributeProof:
    return attribute_proof.prove(N, names=("family", "digit", "position"), min_images=5)


def values_of(name: str) -> tuple[str, ...]:
    return VALUES["count" if name == "several" else name]


@pytest.mark.parametrize("name", [*MAIN, *OTHERS])
def test_labels_are_what_both_views_say(name: str, views: torch.Tensor) -> None:
    found = attribute(name, views, min_images=3)
    for row, label in zip(views.tolist(), found.labels.tolist(), strict=True):
        said = {view[COLUMN["count" if name == "several" else name]] for view in row}
        if label >= 0:
            assert said == {values_of(name).index(found.values[label])}
            assert name != "several" or said != {0}
    assert found.shown.sum() >= 6
    assert min(np.bincount(found.labels[found.shown])) >= 3
    assert set(found.values).isdisjoint(found.left_out)


def test_an_image_that_shows_two_values_has_no_label() -> None:
    views = empty(6).view(3, 2, -1).clone()
    views[:, :, COLUMN["digit"]] = torch.tensor([[3, 3], [3, 5], [3, UNDEFINED]], dtype=torch.int16)
    assert attribute("digit", views, min_images=1).labels.tolist() == [0, -1, -1]


def test_rare_values_are_left_out_and_named() -> None:
    views = empty(2 * 9).view(9, 2, -1).clone()
    views[:, :, COLUMN["digit"]] = torch.tensor([7, 2, 7, 2, 7, 2, 4, 2, 7], dtype=torch.int16)[:, None]
    found = attribute("digit", views, min_images=2)
    assert found.values == ("2", "7")
    assert found.left_out == ("4",)
    assert found.labels.tolist() == [1, 0, 1, 0, 1, 0, -1, 0, 1]


def test_colors_are_those_of_shapes_alone(views: torch.Tensor) -> None:
    """Half of the characters are white on black: there the background would tell the color."""
    shown = attribute("color", views).shown
    family = views[:, :, COLUMN["family"]]
    assert (family[torch.from_numpy(shown)] == VALUES["family"].index("shape")).all()


@pytest.mark.parametrize("name", [*MAIN, *OTHERS])
def test_captions_name_their_value_and_no_other(name: str) -> None:
    groups = {value: captions_of(name, value) for value in values_of(name)}
    assert len({len(group) for group in groups.values()} - {8}) <= 1
    texts = [text for group in groups.values() for text in group]
    assert len(set(texts)) == len(texts)
    for value, group in groups.items():
        word = {"sans": "sans-serif", "mono": "(monospace|typewriter)"}.get(value, value)
        if (name, value) in {("texture", "plain"), ("warp", "straight"), ("count", "one"), ("several", "one")}:
            continue
        if name not in ("digit", "case"):
            assert all(re.search(rf"\b{word}(es|s)?\b", text) for text in group), (value, group)
        assert not any(re.search(r"\ba [aeio]", text.replace("a one", "")) for text in group if name != "letter"), group


@pytest.mark.parametrize(
    ("name", "value", "text", "section", "expected"),
    [
        ("color", "red", "a photo of a red circle", "shapes", True),
        ("color", "red", "a red background", "backgrounds", False),
        ("background", "red", "a red background", "backgrounds", True),
        ("digit", "3", "the number three", "digits", True),
        ("digit", "3", "three objects", "counts", False),
        ("digit", "1", "the number 10", "digits", False),
        ("count", "three", "three triangles", "counts", True),
        ("count", "one", "a single shape", "counts", True),
        ("shape", "cross", "two crosses", "counts", True),
        ("position", "top", "an object in the top left", "positions", False),
        ("position", "top left", "an object in the top left", "positions", True),
        ("position", "left", "an object in the top left", "positions", False),
        ("position", "left", "a circle to the left of a square", "positions", False),
        ("position", "left", "an object on the left side of the image", "positions", True),
        ("position", "center", "an object in the middle", "positions", True),
        ("position", "center", "an empty center", "positions", False),
        ("letter", "a", "the letter b", "letters", False),
        ("letter", "a", "a capital letter A", "letters", True),
        ("quality", "clear", "a sharp photo", "image quality", True),
        ("font", "mono", "a typewriter font", "writing", True),
    ],
)  # fmt: skip
def test_what_a_text_of_the_dictionary_names(name: str, value: str, text: str, section: str, expected: bool) -> None:
    assert names_value(name, value, text, section) is expected


@pytest.mark.parametrize("name", MAIN)
def test_every_value_can_be_named_by_the_dictionary(name: str) -> None:
    texts = [(text, section) for section, part in sections().items() for text in part]
    for value in VALUES[name]:
        assert any(names_value(name, value, text, section) for text, section in texts), value


def encode(texts: list[str]) -> torch.Tensor:
    """A text tower in which every color has its own direction, and all texts a common part."""
    colors = VALUES["color"]
    rows = torch.zeros(len(texts), 17)
    rows[:, 16] = 3.0
    for row, text in zip(rows, texts, strict=True):
        for i, color in enumerate(colors):
            row[i] = float(bool(re.search(rf"\b{color}\b", text)))
    return rows


TEXTS = {
    "colors": [*(f"something {color}" for color in VALUES["color"]), "a red thing"],
    "light": ["bright light", "dim light"],
}


def judged(direction: np.ndarray, means: np.ndarray) -> WordAgreement:
    of = Attribute("color", VALUES["color"], np.arange(12), ())
    candidate = Candidate("L1.H2", 3, 0.25, 0.5, 0.75, direction, means)
    light = Dictionary.encode(
        "no colors", {"light": TEXTS["light"], "sky": ["a gray sky", "a cloud", "the sun"]}, encode
    )
    dictionaries = (Dictionary.encode("all", TEXTS, encode), light)
    return agreement(of, [candidate], value_vectors(of, encode), dictionaries, seed=0)


def test_words_that_agree_and_words_that_do_not() -> None:
    means = np.random.default_rng(0).normal(size=12)
    direction = np.append(means, np.zeros(5)) / np.linalg.norm(means)
    right = judged(direction, means)
    assert right.correlation == pytest.approx(1.0)
    assert right.p < 0.001
    assert (right.captions_right, right.captions_chance) == (1.0, pytest.approx(1 / 12))
    rates, others = right.rates
    assert (rates.dictionary, rates.texts, rates.first, rates.top, rates.on_topic) == ("all", 15, 1.0, 1.0, 1.0)
    assert VALUES["color"].index("red") not in (means.argmax(), means.argmin())  # the only one with two texts
    assert rates.first_chance == pytest.approx(1 / 15)
    assert rates.top_chance == pytest.approx(1 - (14 / 15) ** 5)
    assert rates.on_topic_chance == pytest.approx(13 / 15)
    # "a gray sky" stands in a section where a color is not that of an object
    assert (others.dictionary, others.texts, others.first, others.top, others.on_topic) == ("no colors", 5, 0, 0, 0)
    assert right.components[0].means == pytest.approx(means)
    assert np.argmax(right.components[0].captions) == means.argmax()
    plus, minus = right.components[0].ends
    colors = VALUES["color"]
    assert (plus.sign, plus.value, plus.words[0].texts[0]) == ("+", colors[means.argmax()], f"something {plus.value}")
    assert (minus.sign, minus.value, minus.caption) == ("-", colors[means.argmin()], colors[means.argmin()])
    assert minus.words[0].named == (True, False, False, False, False)
    wrong = judged(-direction, means)
    assert wrong.correlation == pytest.approx(-1.0)
    assert (wrong.captions_right, wrong.rates[0].first, wrong.p) == (0.0, 0.0, 1.0)
    assert wrong.rates[0].on_topic == 1.0


def test_atoms_are_unit_rows_without_what_all_texts_share() -> None:
    atoms = Dictionary.encode("all", TEXTS, encode).atoms
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1.0)
    vectors = encode([text for part in TEXTS.values() for text in part]).double().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    apart = vectors - vectors.mean(0)
    np.testing.assert_allclose(atoms, apart / np.linalg.norm(apart, axis=1, keepdims=True), atol=1e-7)


def test_texts_of_known_words() -> None:
    texts = {"shapes": ["a Red circle", "a teal circle", "a close-up"], "light": ["dim light"]}
    assert of_words(texts, {"a", "red", "circle", "close-up"}) == {
        "shapes": ["a Red circle", "a close-up"],
        "light": [],
    }


def test_the_captions_words_are_minis_world() -> None:
    words = taught_words(1000)
    assert words >= {*VALUES["color"], *VALUES["digit"], "circle", "circles", "handwritten", "left"}
    assert words.isdisjoint({"cat", "sky", "wooden", "teal"})


def test_coefficients_are_products_with_the_contribution() -> None:
    model = ra.load_model("mini")
    traced = trace(model, 13, seed=5)
    spectra = spectra_of(attribute_proof.MODEL)
    unit = Unit("head", 4, 1)
    found = coefficients(traced, unit, spectra[unit.label])
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in generate(5, 0, 13).images]
    decomposed = ra.decompose(model, pictures)
    value = decomposed.values[:, decomposed.units.index(unit)].double()
    expected = (value - spectra[unit.label].mean.double()) @ spectra[unit.label].components.double().T
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_a_component_of_next_to_no_variance_is_nobodys_best() -> None:
    labels = np.arange(60) % 3
    noise = np.random.default_rng(1).normal(size=60)
    found = score(np.stack([noise, 1e-3 * labels], axis=1), np.array([0.999, 0.001]), "L0.H0",
                  Attribute("font", ("sans", "serif", "mono"), labels, ()), seed=0)  # fmt: skip
    assert found.best_component == 0
    assert found.best_eta_squared < 0.3
    assert found.best_auc < 0.8
    assert found.linear.balanced_accuracy == 1  # together with the others it counts


def test_images_are_not_those_of_training_or_of_the_spectra() -> None:
    from recipes.mini.spectra import SEED

    assert attribute_proof.SEED not in {0, SEED, 2**20}


def test_too_few_images_are_refused_in_one_sentence() -> None:
    with pytest.raises(ra.BadInputError, match="no attribute has two values with 30 images each among 40 images"):
        attribute_proof.prove(40, min_images=30)


def test_a_small_run(proof: AttributeProof) -> None:
    # of positions only the center has five images
    assert [result.attribute.name for result in proof.attributes] == ["family", "digit"]
    result = proof.attributes[0]
    assert len(result.heads) == 36
    assert len(result.units) == 42
    assert result.embedding.balanced_accuracy > 0.5
    assert max(head.linear.balanced_accuracy for head in result.heads) > 0.5
    for unit in result.units:
        assert 0.5 <= unit.best_auc <= 1
        assert 0 <= unit.best_eta_squared <= 1
    etas = [component.eta_squared for component in result.words.components]
    assert etas == sorted(etas, reverse=True)
    assert etas[0] == max(head.best_eta_squared for head in result.heads)
    assert len(etas) == attribute_proof.TOP_COMPONENTS
    assert result.first.component == 0
    assert result.first.unit == max(result.heads, key=lambda head: head.variance_share).unit


def made_up() -> AttributeProof:
    """Two layers of two heads; L0.H1 belongs to color alone, L1.H0 shares two attributes, the others tell little."""
    shares = {"color": [0.1, 0.6, 0.5, 0.0], "digit": [0.09, 0.1, 0.4, 0.01]}
    results = []
    for name, row in shares.items():
        values = VALUES[name]
        units = [
            UnitScore(label, name, LinearScore(0.5 + share / 3, 0.01, 1 / len(values)), share, share, 0, 0.9, values[0])
            for label, share in zip(("L0.H0", "L0.H1", "L1.H0", "L1.H1"), row, strict=True)
        ]
        labels = np.arange(len(values) * 2) % len(values)
        ends = tuple(
            End(sign, values[0], values[i], (EndWords(("a thing", "a dot"), (sign == "+", False), (True, False)),))
            for i, sign in enumerate("+-")
        )
        component = ComponentAgreement("L0.H1", 0, 0.5, 0.4, 0.9, 0.8, (), (), ends)
        rates = WordRates("made up", 2, 0.5, 0.1, 0.6, 0.2, 0.7, 0.3)
        words = WordAgreement(name, (component,), 0.8, 0.01, 0.5, 0.1, (rates,))
        of = Attribute(name, values, labels, ())
        results.append(AttributeResult(of, LinearScore(0.9, 0.01, 0.1), tuple(units), words, component))
    return AttributeProof(24, 1, "general", "made up", tuple(results))


def test_specialized_heads_have_the_largest_share_by_far() -> None:
    proof = made_up()
    assert proof.specialized() == {"color": ("L0.H1",), "digit": ()}
    index = proof.concentrations()
    assert index.argmax() == 3  # little, but all of it one attribute
    assert index[1] > index[2]
    assert "| color | L0.H1 |" in markdown(proof)
    assert "| digit | none |" in markdown(proof)
    assert "| L0.H1.0 + | color 0.60 | 0.50 | 0.40 | 0.80 | red | red | **a thing**, a dot |" in markdown(proof)
    assert "| - |  |  |  |  | red | *green* | a thing, a dot |" in markdown(proof)


def test_too_few_values_have_no_p() -> None:
    of = made_up().attributes[0].words
    assert p_value(of) == "0.010"
    assert p_value(dataclasses.replace(of, p=1e-4)) == "< 0.001"
    assert p_value(dataclasses.replace(of, captions_chance=1 / 3)) == ""


def test_attributes_that_specialization_is_not_judged_by() -> None:
    of = Attribute("family", ("digit",), np.zeros(3, dtype=int), ())
    proof = dataclasses.replace(made_up(), attributes=(dataclasses.replace(made_up().attributes[0], attribute=of),))
    assert proof.specialized() == {}
    assert proof.concentrations().tolist() == [0.0] * 4
    assert "| family | 1 | 3 |" in markdown(proof)
    assert set(figures(proof)) == {"attribute_words"}


def test_tables_and_json(proof: AttributeProof) -> None:
    text = json.dumps(proof.to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["images"] == N
    assert read["attributes"][0]["units"][0]["attribute"] == "family"
    assert len(read["attributes"][0]["words"]["components"]) == attribute_proof.TOP_COMPONENTS
    assert "| family | 3 |" in markdown(proof)


def test_figures_have_a_map_for_every_main_attribute() -> None:
    drawn = figures(made_up())
    titles = [axis.get_title() for axis in drawn["attribute_variance"].axes]
    assert titles[:2] == ["color", "digit"]
    (frame,) = drawn["attribute_variance"].axes[0].patches
    assert (round(frame.get_x() + 0.47), round(frame.get_y() + 0.47)) == (1, 0)  # L0.H1: column 1, row 0
    assert not drawn["attribute_accuracy"].axes[0].patches


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []

    def prove(*arguments: object) -> AttributeProof:
        asked.extend(arguments)
        return made_up()

    monkeypatch.setattr(attribute_proof, "prove", prove)
    json_file, folder = tmp_path / "new" / "proof.json", tmp_path / "figures"
    arguments = f"--images 97 --seed 7 --json {json_file} --out {folder} --attributes digit".split()
    monkeypatch.setattr(sys, "argv", ["attribute_proof", *arguments])
    attribute_proof.main()
    assert asked == [97, 7, "general", ["digit"]]
    assert json.loads(json_file.read_text())["images"] == 24
    assert {path.name for path in folder.iterdir()} == {
        "attribute_accuracy.png", "attribute_variance.png", "attribute_words.png",
    }  # fmt: skip
    assert "### Specialized heads" in capsys.readouterr().out
