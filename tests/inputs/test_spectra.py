"""What comes with a model is found there, and what was named wins."""

from __future__ import annotations

from pathlib import Path

from residualign.inputs.spectra import BUNDLED_NAME
from residualign.models.names import bundled_file
from residualign.text.dictionary import OWN_NAME, choose_texts

LINES = [f"a thing of kind {i}" for i in range(11)]


def test_mini_has_spectra_and_a_dictionary() -> None:
    assert bundled_file("mini", BUNDLED_NAME) is not None
    texts = choose_texts(None, "mini")
    assert texts.name == "the dictionary that comes with mini"
    assert 400 < len(texts) < 600


def test_a_model_directory_may_have_its_own_and_others_take_the_packages(tmp_path: Path) -> None:
    assert bundled_file(str(tmp_path), "dictionary.txt") is None
    assert choose_texts(None, str(tmp_path)).name == choose_texts(None, "org/name").name == OWN_NAME
    (tmp_path / "dictionary.txt").write_text("# kinds\n" + "\n".join(LINES), encoding="utf-8")
    assert choose_texts(None, str(tmp_path)).texts == tuple(LINES)


def test_what_was_named_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    texts = choose_texts(path, "mini")
    assert (texts.name, texts.texts) == (str(path), tuple(LINES))
