"""Each figure from tables alone: as every kind of file, the same bytes twice, whatever names hold."""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from residualign.errors import BadInputError
from residualign.figures._figure import IMAGE_FORMATS, Figure
from residualign.figures._style import shown
from residualign.figures.report import MOST_CLASSES, report_figures
from residualign.report.page import MAX_BYTES
from tests.figures.make_figures import HOSTILE, all_figures, bare_figures

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
FIGURES = all_figures()
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", FIGURES)
def test_every_kind_of_file_and_the_same_bytes_twice(name: str) -> None:
    again = all_figures()[name]
    for format in IMAGE_FORMATS:
        content = FIGURES[name].to_bytes(format)
        assert content.startswith(STARTS[format])
        assert content == again.to_bytes(format), format


@pytest.mark.parametrize("name", FIGURES)
def test_on_a_page_ids_are_its_own_and_nothing_can_be_markup(name: str) -> None:
    drawn = FIGURES[name].to_page("f1")
    tree = ElementTree.fromstring(f"<div>{drawn}</div>")
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(one.startswith("f1-") for one in ids)
    assert {element.tag for element in tree.iter()} <= {
        "div", *(SVG + tag for tag in ("svg", "g", "path", "use", "defs", "clipPath", "rect", "text", "title",
                               "image", "linearGradient", "stop", "tspan"))
    }  # fmt: skip
    assert "#1b1e23" not in drawn


def texts(figure: Figure) -> str:
    return html.unescape(
        " ".join("".join(one.itertext()) for one in ElementTree.fromstring(figure.to_bytes("svg")).iter(f"{SVG}text"))
    )


def test_names_are_drawn_as_they_are() -> None:
    names = texts(FIGURES["report/accuracy"])
    assert "$x_{1$ \\frac{" in names
    assert "_underscore first" in texts(FIGURES["lambdas/learning_curves"])
    assert "猫 кошка" in names
    assert "50%" in names


def test_marks_say_what_they_are_while_pointed_at() -> None:
    tree = ElementTree.fromstring(FIGURES["geometry/geometry_profiles"].to_bytes("svg"))
    titles = [one.text for one in tree.iter(f"{SVG}title")]
    # of twelve heads one has no intrinsic dimension, in the second panel
    assert len(titles) == 4 * 12 - 1
    assert titles[0].startswith("L0.H0: ")


@pytest.mark.parametrize("name", BARE := bare_figures())
def test_nothing_measured_is_drawn_without_a_warning(name: str) -> None:
    assert BARE[name].to_bytes("svg").startswith(STARTS["svg"])
    assert BARE[name].to_bytes("pdf").startswith(STARTS["pdf"])


def test_a_confusion_of_many_classes_leaves_room_on_the_page() -> None:
    names = [f"class {i}" for i in range(MOST_CLASSES)]
    cells = [{"true": a, "predicted": b, "before": 3, "after": 2} for a in names for b in names]
    made = report_figures({"methods": [], "confusion": cells}, 1, names)
    assert len(made["confusion"].to_page("f").encode()) < MAX_BYTES / 2
    more = [*names, "one more"]
    assert report_figures({"methods": [], "confusion": cells}, 1, more) == {}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_shown_name_is_short_printable_and_on_one_line(name: str) -> None:
    text = shown(name)
    assert 0 < len(text) <= 40
    assert text.isprintable()
    text.encode()


def test_nothing_is_imported_before_a_figure_is_drawn() -> None:
    code = (
        "import sys; from tests.figures.make_figures import all_figures; "
        "all_figures(); assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_notebook_shows_it_and_a_wrong_ending_is_refused(tmp_path: Path) -> None:
    figure = FIGURES["sweep/factors"]
    assert figure._repr_mimebundle_()["image/svg+xml"].encode() == figure.to_bytes("svg")
    figure.save(tmp_path / "f.PDF")
    assert (tmp_path / "f.PDF").read_bytes() == figure.to_bytes("pdf")
    with pytest.raises(BadInputError, match="png, svg, pdf; got 'jpg'"):
        figure.save(tmp_path / "f.jpg")
