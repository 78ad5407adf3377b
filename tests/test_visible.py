"""Names from files of strangers: what reaches a terminal, a sentence, a card, a page and a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
import pickle
import unicodedata

import pytest
import yaml
from rich.text import Text

from residualign._messages import sentence, visible
from residualign._result import html_table, one_line
from residualign.adapter.card import escape, model_card
from residualign.cli.console import Out
from residualign.cli.views import bars_table, facts, heading, paragraph, plain_table, share_bars
from residualign.data.images import BadImageError
from residualign.errors import BadInputError, RunError
from residualign.runs.files import _csv

EVIL = "cat\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066\u200b\ufeff\u2028\r\nerror: fine\udc80"


def hidden(text: str) -> set[str]:
    """The characters of a text, other than line breaks, that show nothing but change what is shown."""
    return {sign for sign in text if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def test_everything_hidden_is_shown_and_everything_else_stays() -> None:
    assert not hidden(visible(EVIL))
    assert visible(EVIL).startswith(r"cat\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp")
    for name in ("naïve", "猫 犬", "كتاب", "कक्षा", "a\u3000b", "C:\\new", "👨\u200d👩\u200d👧 family", "می\u200cخواهم"):
        assert visible(name) == name
    assert visible("ad\u200dmin\u200c") == r"ad\u200dmin\u200c"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x2000, 0x2070), *range(0xE0000, 0xE0080), 0x61C, 0xD800):
        assert visible(visible(chr(code))) == visible(chr(code))
        assert not hidden(visible(chr(code)))


@pytest.mark.parametrize("error", [BadInputError, RunError])
def test_sentences_are_one_line_without_hidden_characters_and_never_long(error: type[Exception]) -> None:
    told = str(error(f"class {EVIL} is unknown"))
    assert "\n" not in told
    assert not hidden(told)
    told = str(error(f"unknown class {'x' * 39_000_000}; choose another with --classes"))
    assert len(told) < 2_100
    assert told.startswith("unknown class xxx")
    assert "characters] ... " in told
    assert told.endswith("choose another with --classes")
    assert str(pickle.loads(pickle.dumps(error(told)))) == told
    assert sentence(told) == told
    assert not hidden(str(BadImageError(EVIL, EVIL)))


def test_nothing_hidden_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = Out(as_json=False)
    out.show(
        facts((EVIL, EVIL)),
        paragraph(EVIL),
        heading(EVIL),
        plain_table([("name", False), (EVIL, True)], [[EVIL, Text(EVIL)], ["b", "c"]]),
        bars_table(["name"], [(EVIL, 0.5, [])], out.stdout, 1.0),
        share_bars([(EVIL, 0.5, 0.1)], out.stdout, EVIL),
        EVIL,
    )
    for say in (out.note, out.warn, out.error):
        say(EVIL)
    streams = capsys.readouterr()
    assert not hidden(streams.out), hidden(streams.out)
    assert not hidden(streams.err), hidden(streams.err)
    assert len(streams.err.splitlines()) == 3
    assert r"\x1b[2J" in streams.out


def test_colors_still_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Out(as_json=False).show(heading(f"Results of {EVIL}"))
    shown = capsys.readouterr().out
    assert shown.startswith("\x1b[1;36mResults of cat\\x1b]0;")
    assert shown.count("\x1b") == 2


def test_names_in_notebooks_and_cards() -> None:
    for shown in (one_line(EVIL), html_table([{"name": EVIL}]), escape(EVIL)):
        assert not hidden(shown)
        assert "\n" not in shown


FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"]


def test_cells_that_would_be_formulas_are_texts_in_a_spreadsheet() -> None:
    rows = [
        {"name": name, "value": -0.5, "whole": -3, "none": None} for name in (*FORMULAS, "a=b", "cat\rdog", "x\udc80")
    ]
    read = list(csv.DictReader(io.StringIO(_csv(rows).decode(), newline="")))
    assert [row["name"] for row in read] == [
        *(f"'{name}".replace("\r", r"\r") for name in FORMULAS),
        "a=b",
        r"cat\rdog",
        r"x\udc80",
    ]
    assert {(row["value"], row["whole"], row["none"]) for row in read} == {("-0.5", "-3", "")}
    assert next(csv.reader(io.StringIO(_csv([{"=1": 2}]).decode()))) == ["'=1"]


def test_front_matter_stays_yaml() -> None:
    config = {
        "class_names": [EVIL, "---", "a | b\n---\n"],
        "model": {"name": "hf:org/name"},
        "method": "linear",
        "parameters": 1,
        "accuracy": {},
        "settings": {},
        "spectra": {"source": EVIL},
        "classifier": "text",
        **dict.fromkeys(("logit_scale", "mean", "rest", "epochs", "learning_rate")),
    }
    card = model_card(config)
    assert not hidden(card)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == "org/name"
    assert front["tags"] == ["residualign", "image-classification", "linear"]
    assert card.count("\n---\n") == 1
