"""Dictionaries: their files, what is refused, and what a text tower makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import residualign as ra
from residualign.errors import BadInputError
from residualign.models.vision_model import VisionModel
from residualign.text.dictionary import (
    MIN_TEXTS,
    OWN_NAME,
    Coherence,
    Texts,
    encode_dictionary,
    from_vectors,
    load_texts,
    mean_cosine,
)
from tests.random_models import WORDS, save_clip, save_siglip, save_vit
from tests.text.make import make_dictionary

NUMBERS = "\n".join(f"number {i}" for i in range(MIN_TEXTS))


def test_own_dictionary_is_there_and_clean() -> None:
    texts = load_texts()
    assert texts.name == OWN_NAME
    assert len(texts) >= 30
    assert len({text.casefold() for text in texts.texts}) == len(texts)
    assert all(text == text.strip() and not text.startswith("#") for text in texts.texts)
    assert "" not in texts.sections


def test_lines_headings_and_repetitions(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    lines = "\ufefffirst  of\tall \n\n# a comment\n## colors \nred\n  blue\nRed\n# things\r\nblue\nhôtel ☂\n" + NUMBERS
    file.write_bytes(lines.encode())
    texts = load_texts(file)
    assert texts.name == str(file)
    assert texts.texts[:4] == ("first of all", "red", "blue", "hôtel ☂")
    assert texts.sections[:5] == ("", "colors", "colors", "things", "things")
    assert texts.n_duplicates == 2
    assert len(texts) == 4 + MIN_TEXTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds 0 different descriptions; expected at least 10"),
        (b"# only\n# headings\n", "holds 0 different"),
        (b"red\n" * 50, "holds 1 different"),
        ("rot\nwei\xdf\n".encode("latin-1"), r"is not UTF-8 text \(byte 7\)"),
        (b"\xff\xfer\x00e\x00d\x00", "is not UTF-8"),
    ],
)
def test_files_that_are_no_dictionary(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        load_texts(tmp_path / "words.txt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(BadInputError, match="no dictionary at"):
            load_texts(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    return ra.load_model(save_clip(tmp_path_factory.mktemp("models") / "clip"))


def texts_of(*more: str) -> Texts:
    found = [f"{a} {b}" for a in ("a", "the", "one") for b in ("cat", "dog", "digit", "photo")]
    return Texts("known", (*found, *more), tuple(WORDS[0] for _ in (*found, *more)))


def test_atoms_are_the_text_towers_own_at_unit_length(model: VisionModel) -> None:
    seen = []
    texts = texts_of("a photo of the cat .")
    dictionary = encode_dictionary(model, texts, progress=lambda done, total: seen.append((done, total)))
    assert dictionary.texts == texts.texts
    assert dictionary.sections == texts.sections
    expected = torch.nn.functional.normalize(model.encode_text(list(texts.texts)).double(), dim=1)
    torch.testing.assert_close(dictionary.atoms, expected, rtol=0, atol=1e-6)
    assert dictionary.atoms.dtype == torch.float64
    assert dictionary.dim == model.dim
    assert seen[-1] == (13, 13)


def test_texts_with_unknown_words_are_left_out_and_named(model: VisionModel) -> None:
    dictionary = encode_dictionary(model, texts_of("a heron", "the zero"))
    assert dictionary.unknown == ("a heron",)
    assert dictionary.texts[-1] == "the zero"
    assert len(dictionary) == len(dictionary.sections) == 13
    with pytest.raises(BadInputError, match="knows all words of 0 of 11 descriptions"):
        encode_dictionary(model, Texts("f", tuple(f"heron {i}" for i in range(11)), ("",) * 11))


def test_batches_of_texts_change_nothing(model: VisionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode_dictionary(model, texts_of())
    monkeypatch.setattr("residualign.text.dictionary._BATCH", 5)
    torch.testing.assert_close(encode_dictionary(model, texts_of()).atoms, whole.atoms, rtol=0, atol=1e-6)


def test_siglip_has_words_and_a_vit_has_none(tmp_path: Path) -> None:
    siglip = ra.load_model(save_siglip(tmp_path / "siglip"))
    assert encode_dictionary(siglip, texts_of()).dim == siglip.dim
    vit = ra.load_model(save_vit(tmp_path / "vit"))
    with pytest.raises(BadInputError, match="no text tower, so no text has a place in its output space"):
        encode_dictionary(vit, texts_of())


def test_centered_atoms_share_no_direction() -> None:
    dictionary = make_dictionary(offset=3.0)
    centered = dictionary.centered
    # a narrow cone before, none after
    assert float(mean_cosine(dictionary.atoms)) > 0.8
    assert abs(float(mean_cosine(centered.atoms))) < 0.05
    torch.testing.assert_close(centered.atoms.norm(dim=1), torch.ones(len(centered), dtype=torch.float64))
    apart = dictionary.atoms - dictionary.atoms.mean(dim=0)
    torch.testing.assert_close((centered.atoms * apart).sum(dim=1), apart.norm(dim=1))
    assert centered.texts == dictionary.texts


def test_a_text_that_says_what_all_say_has_no_atom_of_its_own() -> None:
    vectors = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    vectors[2] = vectors[:2].mean(dim=0) / vectors[:2].mean(dim=0).norm()
    same = from_vectors("same", ["x"] * 3, vectors[[2, 2, 2]]).centered
    assert torch.equal(same.atoms, torch.zeros(3, 2, dtype=torch.float64))


def test_taking_some_texts() -> None:
    some = make_dictionary().take(torch.tensor([5, 2]))
    assert some.texts == ("text 5", "text 2")
    assert torch.equal(some.atoms, make_dictionary().atoms[[5, 2]])


def test_vectors_without_direction_are_refused() -> None:
    for value in (0.0, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match="no direction"):
            from_vectors("bad", ["x", "y"], torch.tensor([[1.0, 2.0], [value, 0.0]]))


def test_mean_cosine_is_that_of_all_pairs() -> None:
    atoms = make_dictionary(atoms=7).atoms
    pairs = [float(atoms[i] @ atoms[j]) for i in range(7) for j in range(i)]
    assert float(mean_cosine(atoms)) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_coherence_tells_alike_texts_from_random_ones() -> None:
    generator = torch.Generator().manual_seed(3)
    centers = torch.randn(10, 19, generator=generator, dtype=torch.float64)
    vectors = centers.repeat_interleave(7, dim=0) + 0.3 * torch.randn(70, 19, generator=generator, dtype=torch.float64)
    dictionary = from_vectors("groups", [str(i) for i in range(70)], vectors)
    coherence = Coherence(dictionary)
    alike, apart = coherence((21, 22, 23, 24)), coherence((0, 7, 14, 21))
    assert alike is not None
    assert apart is not None
    assert alike > 3 > abs(apart)
    assert Coherence(dictionary)((21, 22, 23, 24)) == alike
    assert coherence((4,)) is None
    assert coherence(()) is None
    drawn = [coherence(tuple(torch.randperm(70, generator=generator)[:4].tolist())) for _ in range(300)]
    values = torch.tensor(drawn)
    assert abs(float(values.mean())) < 0.2
    assert 0.8 < float(values.std()) < 1.2
    same = from_vectors("same", ["x"] * 12, vectors[[0] * 12])
    assert Coherence(same)((0, 1)) is None
