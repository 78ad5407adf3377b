"""`residualign explain`: words and images of units from the command line."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import residualign as ra
from tests.cli.conftest import Ran, make_images
from tests.random_models import save_siglip

WORDS = [f"{a} {b}" for a in ("a", "the", "one") for b in ("cat", "dog", "digit", "photo")]


def width_of(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words.txt"
    file.write_text("# things\n" + "\n".join(WORDS) + "\n")
    return file


def test_a_model_and_data_in_words(run: Callable[..., Ran], clip: Path, images: Path, words: Path) -> None:
    found = run("explain", clip, images, "--dictionary", words, "--texts", 3, "--json").json
    assert found["method"] == "somp"
    assert found["dictionary"] == str(words)
    assert (found["n_texts"], found["n_images"], found["split"]) == (12, 21, "train")
    assert found["reference"] == {"source": "these images", "n_images": 21}
    assert len(found["units"]) == 15
    for unit in found["units"]:
        assert [text["text"] in WORDS for text in unit["chosen"]] == [True] * 3
        assert [component["index"] for component in unit["components"]] == [0, 1, 2]
    assert found["units"][0]["components"][0]["images_positive"][0]["key"].split("/")[0] in ("cat", "dog", "zero")


def test_what_a_person_sees(run: Callable[..., Ran], clip: Path, images: Path, words: Path) -> None:
    ran = run("explain", clip, images, "--dictionary", words, "--top", 2)
    assert ran.code == 0
    assert "2 of 15 units are shown, those whose texts explain most" in ran.out
    assert ran.out.count("5 texts explain") == 2
    assert ran.out.count(" - ") >= 4
    few = run("explain", clip, images, "--dictionary", words, "--unit", "L1.mlp", "--component", 4)
    assert "L1.mlp" in few.out
    assert "units are shown" not in few.out
    pursued = run("explain", clip, images, "--dictionary", words, "--unit", "L1.mlp", "--words", "omp")
    assert "of the first component" in pursued.out


def test_a_store_says_what_model_and_data_say(
    run: Callable[..., Ran], clip: Path, images: Path, words: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    options = ("--dictionary", words, "--unit", "L2.H1", "--words", "textspan", "--split", "test", "--json")
    first = run("explain", clip, images, "--store", store, *options).json
    again = run("explain", store, *options).json
    assert again == first
    assert (again["split"], again["n_images"], again["reference"]["n_images"]) == ("test", 6, 6)
    other = run("explain", store, *options, "--reference", images).json
    assert other["reference"]["n_images"] == 30
    assert other["units"][0]["chosen"] == first["units"][0]["chosen"]
    assert other["units"][0]["components"] != first["units"][0]["components"]


def test_tables_and_the_figure(run: Callable[..., Ran], clip: Path, images: Path, words: Path, tmp_path: Path) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    ran = run("explain", clip, images, "--store", store, "--dictionary", words, "--top", 3, "--out", out)
    assert ran.code == 0
    assert {file.name for file in out.iterdir()} == {
        "explain.json",
        "explain.png",
        "texts.csv",
        "components.csv",
        "images.csv",
    }
    with (out / "texts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15 * 5
    assert list(rows[0]) == ["unit", "rank", "text", "weight", "explained_variance_ratio", "coherence"]
    with_pictures = width_of(out / "explain.png")
    assert run("explain", store, "--dictionary", words, "--out", out, "--format", "png").code == 2
    again = run("explain", store, "--dictionary", words, "--top", 3, "--out", out, "--format", "png", "--overwrite")
    assert again.code == 0
    # a store holds no pictures: the figure is as high and narrower
    narrow = width_of(out / "explain.png")
    assert narrow < with_pictures - 500
    pdf = run("explain", store, "--dictionary", words, "--out", tmp_path / "pdf", "--format", "pdf", "--json").json
    assert [Path(file).name for file in pdf["files"]] == ["explain.pdf"]


def test_a_model_without_words_is_explained_by_images(
    run: Callable[..., Ran], vit: Path, images: Path, words: Path, tmp_path: Path
) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    ran = run("explain", vit, images, "--store", store, "--json")
    assert "has no text tower" in ran.err
    assert ran.json["dictionary"] is None
    for unit in ran.json["units"]:
        assert unit["chosen"] == []
        for component in unit["components"]:
            assert component["positive"] == component["negative"] == []
            assert component["images_positive"]
            assert component["images_negative"]
    shown = run("explain", vit, images, "--top", 1, "--out", out)
    assert "those with the largest component" in shown.out
    assert "cat/" in shown.out
    assert (out / "explain.png").is_file()
    assert (out / "texts.csv").read_text() == ""
    bare = run("explain", store, "--out", out, "--overwrite")
    assert "no figure" in bare.err
    for wish in (("--dictionary", words), ("--words", "omp")):
        for source in ((store,), (vit, images)):
            refused = run("explain", *source, *wish)
            assert refused.code == 2
            assert "has no text tower" in refused.sentence


def test_unknown_words_and_repetitions_are_told(run: Callable[..., Ran], clip: Path, images: Path, words: Path) -> None:
    words.write_text(words.read_text() + "a heron\nA CAT\nthe cat\n")
    ran = run("explain", clip, images, "--dictionary", words, "--json")
    # the tokenizer of the test's model knows no capitals, but that one is dropped before
    assert "does not know all words of 1 descriptions ('a heron'); they are left out" in ran.err
    assert "2 repeated descriptions" in ran.err
    assert (ran.json["n_texts"], ran.json["n_unknown_texts"]) == (12, 1)


def test_a_tower_that_pools_by_attention(run: Callable[..., Ran], images: Path, words: Path, tmp_path: Path) -> None:
    model = save_siglip(tmp_path / "siglip")
    found = run("explain", model, images, "--dictionary", words, "--unit", "all", "--json").json
    assert found["units"][0]["label"] == "embedding"
    assert any(unit["label"] == "pool.mlp" for unit in found["units"])


def test_names_with_markup_and_dollars_are_only_text(
    run: Callable[..., Ran], clip: Path, tmp_path: Path, words: Path
) -> None:
    data = make_images(tmp_path / "data", {"[red]a[/red] $x_y$ <script>": 9, "b": 9})
    out = tmp_path / "out"
    ran = run("explain", clip, data, "--dictionary", words, "--out", out)
    assert ran.code == 0, ran.err
    assert "<script>" in (out / "images.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unit", "L9.H0"], "no unit 'L9.H0'"),
        (["--component", "40"], "no component 40: the units to explain have at most"),
        (["--dictionary", "none.txt"], "no dictionary at 'none.txt'"),
        (["--format", "csv"], "give --out DIR too"),
        (["--reference", "nowhere"], "nowhere"),
        (["--store", "a/b", "--model", "x"], "new location"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Callable[..., Ran], clip: Path, images: Path, arguments: list[str], message: str
) -> None:
    ran = run("explain", clip, images, *arguments)
    assert ran.code == 2
    assert message in ran.sentence


def test_bad_dictionaries_are_refused(run: Callable[..., Ran], clip: Path, images: Path, words: Path) -> None:
    for content, message in ((b"cat\n", "holds 1 different"), (b"\xff\xfe\x00", "is not UTF-8"), (b"", "holds 0")):
        words.write_bytes(content)
        ran = run("explain", clip, images, "--dictionary", words)
        assert ran.code == 2
        assert message in ran.sentence


@pytest.fixture
def store(run: Callable[..., Ran], clip: Path, images: Path, tmp_path: Path) -> Path:
    ra.extract(ra.load_model(clip), ra.load_data(images), tmp_path / "own-store", workers=0)
    return tmp_path / "own-store"


def test_a_reference_beside_a_store_is_read_as_the_command_says(
    run: Callable[..., Ran], store: Path, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = make_images(tmp_path / "reference", {"a": 12})
    (reference / "a" / "broken.png").write_bytes(b"not an image")
    arguments = ("explain", store, "--reference", reference, "--dictionary", words, "--unit", "L1.H0")
    assert "broken.png" in run(*arguments).sentence
    ran = run(*arguments, "--skip-bad", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["reference"] == {"source": f"{reference}, train", "n_images": 12}
    asked = []

    def load_data(name: str, **options: Any) -> Any:
        asked.append(options["stream"])
        return ra.load_data(name, **{**options, "stream": False})

    monkeypatch.setattr("residualign.inputs.spectra.load_data", load_data)
    assert run(*arguments, "--skip-bad", "--stream").code == 0
    assert asked == [True]


def test_a_model_that_has_moved_brings_its_own_dictionary(
    run: Callable[..., Ran], clip: Path, images: Path, words: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(clip, model)
    shutil.copy(words, model / "dictionary.txt")
    ra.extract(ra.load_model(model), ra.load_data(images), tmp_path / "of-moved", workers=0)
    moved = model.rename(tmp_path / "moved")
    arguments = ("explain", tmp_path / "of-moved", "--unit", "L1.H0", "--json")
    assert run(*arguments).code == 2
    assert run(*arguments, "--model", moved).json["n_texts"] == len(WORDS)


def test_skipped_images_are_told(run: Callable[..., Ran], clip: Path, images: Path, words: Path) -> None:
    (images / "cat" / "broken.png").write_bytes(b"not an image")
    arguments = ("explain", clip, images, "--dictionary", words, "--unit", "L1.H0", "--json")
    assert run(*arguments).code == 2
    assert run(*arguments, "--skip-bad").json["skipped"] == ["cat/broken.png"]
