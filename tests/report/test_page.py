"""The page as a file: what it holds, what it cannot hold, and how large it gets."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from residualign._messages import visible
from residualign.figures._figure import Figure
from residualign.report.contents import MEASURES
from residualign.report.page import FIGURES, MAX_BYTES, render_page
from residualign.report.report import Report
from residualign.runs.summary import MAX_BYTES as THUMBNAIL_BYTES
from tests.report.make_contents import ATTACK, make_contents


class Elements(html.parser.HTMLParser):
    """Every element with its attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def page() -> str:
    return Report(make_contents()).html


def test_the_page_holds_two_scripts_of_ours_and_nothing_that_names_brought_in(page: str) -> None:
    elements = Elements(page)
    assert len(elements.scripts) == 2
    attributes = [name for _, attrs in elements.found for name in attrs]
    assert not [name for name in attributes if name.startswith("on")]
    assert all(attrs.get("src", "").startswith("data:") for tag, attrs in elements.found if "src" in attrs)
    # whatever the names say, no element came of it
    assert not [tag for tag, attrs in elements.found if attrs.get("src") == "x"]


def test_nothing_is_fetched_and_only_our_scripts_may_run(page: str) -> None:
    elements = Elements(page)
    policy = next(attrs["content"] for _, attrs in elements.found if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    for script in elements.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    script_source = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
    assert "unsafe-inline" not in script_source
    links = [attrs.get("href", "") or "" for tag, attrs in elements.found if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:,")) for link in links)


def test_the_data_come_back_as_they_were(page: str) -> None:
    contents = make_contents()
    data = json.loads(Elements(page).scripts[0])
    assert [unit["label"] for unit in data["units"]] == [unit.label for unit in contents.units]
    assert data["units"][-1]["texts"][1] == ATTACK
    assert data["pictures"] == dict(contents.pictures)
    assert data["first_unit"] == contents.moved[0].label
    assert [measure["name"] for measure in data["measures"]] == [measure.name for measure in MEASURES]


@pytest.mark.parametrize("text", ["</script ", "<!-- <script ", "\u2028", "]]>", "&lt;"])
def test_no_text_ends_the_element_the_data_stand_in(text: str) -> None:
    contents = make_contents()
    unit = replace(contents.units[-1], texts=(text,))
    page = render_page(replace(contents, units=(*contents.units[:-1], unit)), {})
    elements = Elements(page)
    assert len(elements.scripts) == 2
    assert json.loads(elements.scripts[0])["units"][-1]["texts"] == [visible(text)]
    block = page[page.index('id="data">') + 10 :]
    assert not set("<>&\u2028\u2029") & set(block[: block.index("</script>")])


def test_what_is_not_finite_becomes_absent() -> None:
    contents = make_contents()
    broken = replace(contents.units[-1], measures={**contents.units[-1].measures, "two_nn": float("nan")})
    data = json.loads(Elements(render_page(replace(contents, units=(*contents.units[:-1], broken)), {})).scripts[0])
    assert data["units"][-1]["measures"]["two_nn"] is None


def test_numbers_are_as_long_as_anyone_can_see() -> None:
    contents = make_contents()
    one = replace(contents.units[-1], measures={**contents.units[-1].measures, "two_nn": 12.345678912345})
    page = render_page(replace(contents, units=(*contents.units[:-1], one)), {})
    assert json.loads(Elements(page).scripts[0])["units"][-1]["measures"]["two_nn"] == 12.346
    assert "12.3456" not in page


def test_a_page_of_a_vit_b_stays_below_its_size() -> None:
    # 66 components a head, 512 an MLP, and as many pictures as a run keeps: noise, which is worse than any photograph
    contents = make_contents(12, 12, n_components=66, n_pictures=700, picture_side=64, mlp_components=512)
    kept, size = {}, 0
    for name, picture in contents.pictures.items():
        size += len(picture) * 3 // 4
        if size <= THUMBNAIL_BYTES:
            kept[name] = picture
    assert size > THUMBNAIL_BYTES
    assert len(Report(replace(contents, pictures=kept)).html.encode()) < MAX_BYTES


def test_sections_without_data_are_left_out() -> None:
    bare = replace(
        make_contents(), units=(), profiles=(), moved=(), put_back=(), curve=(), changed=(), findings=(), n_test=0,
        confusion=(), methods=(), notes=(),
    )  # fmt: skip
    page = Report(bare).html
    assert set(re.findall(r'<section id="(\w+)"', page)) == {"made"}
    assert "How it was made" in page


def test_the_tables_hold_the_same_numbers() -> None:
    contents = make_contents()
    tables = Report(contents).tables
    assert [row["accuracy"] for row in tables["methods"]] == [line.accuracy for line in contents.methods]
    assert len(tables["components"]) == sum(len(unit.components) for unit in contents.units)
    assert {row["label"]: row["two_nn"] for row in tables["units"]} == {
        unit.label: unit.measures.get("two_nn") for unit in contents.units
    }
    cells = {(row["true"], row["predicted"]): (row["before"], row["after"]) for row in tables["confusion"]}
    assert len(cells) == len(contents.confusion) > 20
    assert cells["pear", "plum"][1] < 20 <= 30 <= cells["pear", "pear"][1]
    for rows in tables.values():
        assert len({tuple(row) for row in rows}) == 1


def test_it_shows_itself(tmp_path: Path) -> None:
    report = Report(make_contents())
    assert len(repr(report)) <= 200
    assert repr(report).startswith("Report(residual of mini on data")
    assert "96.9 %" in repr(report)
    assert ATTACK not in report._repr_html_()
    json.dumps(report.to_json())
    report.save(tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == report.html
    assert set(report.figures) == {
        *FIGURES, *(f"map_{measure.name}" for measure in MEASURES)
    }  # fmt: skip


def test_columns_without_a_value_are_not_there() -> None:
    """A vision-only model has no words, and a method may have no validation images."""
    contents = make_contents()
    units = tuple(replace(unit, texts=()) for unit in contents.units)
    moved = tuple(replace(line, texts=("", "")) for line in contents.moved)
    methods = tuple(replace(line, val_accuracy=None) for line in contents.methods)
    full = render_page(contents, {"accuracy": Figure(drawing)})
    bare = render_page(replace(contents, units=units, moved=moved, methods=methods), {"accuracy": Figure(drawing)})
    for column in (">words</th>", ">positive end</th>", ">validation accuracy</th>"):
        assert column in full
        assert column not in bare


def test_lambdas_without_a_scale_of_their_own_are_labeled_so() -> None:
    contents = replace(make_contents(), scale_free=True)
    page = render_page(contents, {})
    assert ">lambda / rms</th>" in page
    assert ">lambda</th>" not in page
    assert json.loads(Elements(page).scripts[0])["lambda"] == "lambda / rms"


def drawing():
    from matplotlib.figure import Figure as Drawing

    return Drawing()
