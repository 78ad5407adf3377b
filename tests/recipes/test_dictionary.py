"""The shipped dictionary: what the recipe makes, large, clean, and sayable."""

import re
from collections import Counter
from pathlib import Path

import pytest
from recipes.dictionary.__main__ import PATH
from recipes.dictionary.phrases import article, fill, group, sections, text
from recipes.mini import attributes
from recipes.mini.dictionary import text as mini_text
from transformers import AutoTokenizer

SECTIONS = {
    "colors", "shapes", "textures", "materials", "sizes", "counts", "digits", "letters", "writing", "positions",
    "backgrounds", "image quality", "light", "weather", "sky", "seasons and times", "styles", "composition",
    "landscapes", "buildings", "indoor places", "animals", "plants", "people", "actions", "emotions and moods",
    "food and drink", "household objects", "vehicles", "clothing",
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, list[str]]:
    return sections()


@pytest.fixture(scope="module")
def phrases(made: dict[str, list[str]]) -> list[str]:
    return [phrase for section in made.values() for phrase in section]


def test_the_file_is_what_the_recipe_makes() -> None:
    assert PATH.read_bytes().decode() == text(), "run `python -m recipes.dictionary`"


def test_the_file_reads_back_as_sections(made: dict[str, list[str]]) -> None:
    read: dict[str, list[str]] = {}
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            current = read.setdefault(line.removeprefix("# "), [])
        elif line:
            current.append(line)
    assert read == made
    assert read.keys() >= SECTIONS


def test_it_is_large_and_repeats_nothing(phrases: list[str], made: dict[str, list[str]]) -> None:
    assert len(phrases) >= 2000
    assert len({" ".join(phrase.lower().split()) for phrase in phrases}) == len(phrases)
    assert min(len(section) for section in made.values()) >= 25
    assert max(len(section) for section in made.values()) < len(phrases) / 10


def test_phrases_are_short_and_plain(phrases: list[str]) -> None:
    for phrase in phrases:
        assert phrase == " ".join(phrase.split()), phrase
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ,'-]*[A-Za-z0-9]", phrase), phrase
        assert 3 <= len(phrase) <= 60, phrase
        assert len(phrase.split()) <= 10, phrase


def test_articles_agree(phrases: list[str]) -> None:
    spoken_with_a_vowel = {"x-ray", "hourglass"}
    for phrase in phrases:
        for given, word in re.findall(r"\b(an?) ([\w-]+)", phrase.lower()):
            vowel = (word[0] in "aeiou" and not re.match("uni|one|euro", word)) or word in spoken_with_a_vowel
            assert given == ("an" if vowel else "a"), phrase
        assert not re.search(r"\b(an?|the) (an?|the)\b(?! \w+ed)", phrase.lower().replace("letter a", "")), phrase


def test_phrasing_varies(phrases: list[str]) -> None:
    starts = Counter(" ".join(phrase.split()[:3]) for phrase in phrases)
    assert len(starts) > 1000
    assert starts.most_common(1)[0][1] < 0.12 * len(phrases)


def test_what_mini_was_taught_is_in_it(made: dict[str, list[str]]) -> None:
    def says(section: str, word: str) -> bool:
        return any(re.search(rf"\b{re.escape(word)}(es|s)?\b", phrase.lower()) for phrase in made[section])

    section_of = {
        "digit": "digits", "letter": "letters", "shape": "shapes", "color": "colors", "texture": "textures",
        "size": "sizes", "count": "counts", "position": "positions", "background": "backgrounds",
        "ground": "backgrounds", "quality": "image quality", "relation": "positions", "script": "digits",
        "font": "writing", "weight": "writing", "slant": "writing",
    }  # fmt: skip
    for name, section in section_of.items():
        for value in attributes.VALUES[name]:
            assert says(section, "monospace" if value == "mono" else value), (name, value)


def test_minis_tokenizer_tells_all_of_them_apart(phrases: list[str]) -> None:
    folder = Path(attributes.__file__).parents[2] / "src/residualign/models/mini"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(phrases)["input_ids"]
    assert max(len(row) for row in ids) <= tokenizer.model_max_length
    assert len({tuple(row) for row in ids}) == len(phrases)
    assert not any(tokenizer.unk_token_id in row for row in ids)


@pytest.mark.parametrize(
    ("frame", "word", "said"),
    [("{a} on a table", "apple", "an apple on a table"), ("a {} surface", "old", "an old surface"),
     ("{a}", "~scissors", "scissors"), ("{a}", "the sea", "the sea"), ("{a}", "uniform", "a uniform"),
     ("{} above {1}", "a dot | a line", "a dot above a line"), ("{a}", "x-ray image", "an x-ray image"),
     ("a photo of {a} circle", "orange", "a photo of an orange circle"), ("{a}", "hourglass", "an hourglass")],
)  # fmt: skip
def test_frames(frame: str, word: str, said: str) -> None:
    assert fill(frame, word) == said


def test_articles_of_what_begins_with_a_silent_or_a_spoken_letter() -> None:
    assert [article(word) for word in ("one-way sign", "owl", "unicorn")] == ["a one-way sign", "an owl", "a unicorn"]


def test_groups_say_everything_or_take_turns() -> None:
    assert list(group({"say": ["{}", "two {}"], "of": "x, y"})) == ["x", "y", "two x", "two y"]
    turns = list(group({"turn": ["{}", "two {}", "six {}"], "of": "x, y", "times": 2}))
    assert turns == ["x", "two y", "two x", "six y"]
    assert list(group({"lines": "a b\nc\n"})) == ["a b", "c"]


def test_a_phrase_that_comes_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("first:\n  - lines: |\n      a dot\nsecond:\n  - say: ['A {}']\n    of: dot\n")
    monkeypatch.setattr("recipes.dictionary.phrases.WORDS", tmp_path)
    monkeypatch.setattr("recipes.dictionary.phrases.FILES", ("one",))
    with pytest.raises(ValueError, match="'A dot' occurs twice, in 'first' and 'second'"):
        sections()


def test_mini_ships_what_its_captions_say() -> None:
    path = PATH.parents[1] / "models" / "mini" / "dictionary.txt"
    assert path.read_text(encoding="utf-8") == mini_text(), "run `python -m recipes.mini.dictionary` on its folder"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert {"a circle", "a handwritten digit 9", "a photo of a rectangle"} <= set(lines)
    assert set(lines) < {phrase for phrases in sections().values() for phrase in phrases}
    words = {word for line in lines for word in re.findall(r"[\w-]+", line.lower())}
    assert not words & {"dog", "kite", "church"}
