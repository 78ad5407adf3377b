"""The page in a real browser: it opens without complaint, a click opens a head, keys do too, names do nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from residualign.report.report import Report
from tests.report.make_contents import ATTACK, make_contents

COMPLAINTS = ("SEVERE", "WARNING")


@pytest.fixture(scope="module")
def page() -> str:
    return Report(make_contents()).html


def complaints(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in COMPLAINTS]


def color(browser, selector: str, name: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    return str(browser.execute_script(script, selector, name))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_complaints_and_every_chart_is_drawn(show, page, scheme) -> None:
    browser = show(page, scheme)
    assert complaints(browser) == []
    figures = browser.find_elements("css selector", "figure.chart")
    assert len(figures) == 6
    for figure in figures:
        shown = [svg for svg in figure.find_elements("css selector", "svg") if svg.is_displayed()]
        assert len(shown) == 1, figure.get_attribute("aria-label")


def test_names_with_markup_do_nothing(show, page) -> None:
    browser = show(page)
    assert browser.execute_script("return window.attacked") is None
    assert ATTACK in browser.find_element("css selector", "h1").text
    assert browser.execute_script("return document.querySelectorAll('img[src=\"x\"]').length") == 0
    assert browser.execute_script("return document.scripts.length") == 2


def test_even_markup_that_got_in_could_not_run(show, page) -> None:
    """The second line of defense: the page's own policy."""
    broken = page.replace(
        "<main", "<img src=x onerror='window.attacked = true'><script>window.attacked = 1</script><main"
    )
    browser = show(broken)
    assert browser.execute_script("return window.attacked") is None
    assert any("Content Security Policy" in message for message in complaints(browser))


def test_a_click_opens_a_head(show, page) -> None:
    browser = show(page)
    browser.find_element("css selector", "button[data-unit='L2.H1']").click()
    panel = browser.find_element("id", "panel")
    assert panel.find_element("css selector", "h3").text.startswith("L2.H1")
    assert "words of L2.H1" in panel.text
    assert ATTACK in panel.text
    components = browser.find_element("id", "components")
    assert ATTACK in components.text
    assert len(components.find_elements("css selector", ".component")) == 3
    pictures = components.find_elements("css selector", ".strip img")
    assert len(pictures) == 18
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) == 24 for picture in pictures)
    assert browser.execute_script("return location.hash") == "#L2.H1"
    chosen = browser.find_elements("css selector", "#map button[aria-selected=true]")
    assert [button.get_attribute("data-unit") for button in chosen] == ["L2.H1"]
    assert complaints(browser) == []


def test_components_show_their_ends_and_their_shares_before_and_after(show, page) -> None:
    browser = show(page)
    browser.find_element("css selector", "button[data-unit='L2.H1']").click()
    (unit,) = (unit for unit in make_contents().units if unit.label == "L2.H1")
    after = [one.share * one.scale**2 for one in unit.components]
    lines = browser.find_elements("css selector", "#components .component")
    for k, (line, one) in enumerate(zip(lines, unit.components, strict=False)):
        shares = f"{100 * one.share:.1f} % of the unit’s variance before, {100 * after[k] / sum(after):.1f} % after"
        assert line.text.startswith(f"Component {k} · {shares} · lambda {one.scale:.2f}")
        ends = [end.text for end in line.find_elements("css selector", ".ends > div")]
        for end, name, texts in zip(ends, ("positive", "negative"), (one.positive, one.negative), strict=True):
            assert end.startswith(f"{name} end\n{texts.texts[0]}; ")


def test_colors_of_the_map_say_which_way_and_how_far(show, page) -> None:
    browser = show(page)
    units = {unit.label: unit.measures for unit in make_contents().units if unit.layer is not None}
    against = {one.get_attribute("data-unit") for one in browser.find_elements("css selector", "#map button.against")}
    assert against == {label for label, measures in units.items() if measures["change"] < 1}
    browser.execute_script("document.querySelector('input[value=two_nn]').click()")
    values = {label: measures["two_nn"] for label, measures in units.items() if measures["two_nn"] is not None}
    low, high = min(values.values()), max(values.values())
    legend = browser.execute_script(
        "return [...document.getElementById('legend').childNodes].map((x) => x.textContent)"
    )
    assert legend == [f"{low:.1f}", "", f"{high:.1f}"]
    script = "return document.querySelector(`button[data-unit='${arguments[0]}']`).style.getPropertyValue('--v')"
    for label, value in values.items():
        assert float(browser.execute_script(script, label)) == pytest.approx((value - low) / (high - low), abs=2e-3)


def test_the_map_is_walked_with_arrow_keys(show, page) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = show(page)
    browser.find_element("css selector", "button[data-unit='L0.H0']").click()
    browser.execute_script("document.querySelector(\"button[data-unit='L0.H0']\").focus()")
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT):
        browser.switch_to.active_element.send_keys(key)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("data-unit") == "L1.H1"
    # of the whole map one cell is a stop of the tab key: the one that was left
    stops = browser.find_elements("css selector", "#map button[tabindex='0']")
    assert [stop.get_attribute("data-unit") for stop in stops] == ["L1.H1"]
    focused.send_keys(Keys.ENTER)
    assert browser.find_element("css selector", "#panel h3").text.startswith("L1.H1")
    assert browser.switch_to.active_element.text.startswith("L1.H1")


def test_measures_change_the_map_and_hovering_shows_numbers(show, page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser = show(page)
    cell = browser.find_element("css selector", "button[data-unit='L1.H2']")
    before = cell.text, cell.get_attribute("aria-label")
    browser.execute_script("document.querySelector('input[value=two_nn]').click()")
    after = cell.text, cell.get_attribute("aria-label")
    assert before != after
    assert "Intrinsic dimension" in after[1]
    # an MLP has no such number here
    assert "absent" in browser.find_element("css selector", "button[data-unit='L1.mlp']").get_attribute("class")
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    ActionChains(browser).move_to_element(cell).perform()
    assert tip.is_displayed()
    assert "L1.H2" in tip.text
    assert ATTACK in tip.text


def test_an_address_with_a_unit_opens_it_and_links_do(show, page) -> None:
    browser = show(page)
    browser.execute_script("location.hash = '#L3.H0'")
    assert browser.find_element("css selector", "#panel h3").text.startswith("L3.H0")
    link = browser.find_element("css selector", "table.moved a")
    browser.execute_script("arguments[0].click()", link)
    assert browser.find_element("css selector", "#panel h3").text.startswith(link.text)


def test_dark_and_light_have_their_own_colors(show, page) -> None:
    paper, ink = {}, {}
    for scheme in ("light", "dark"):
        browser = show(page, scheme)
        paper[scheme] = color(browser, "body", "backgroundColor")
        ink[scheme] = color(browser, "figure.chart svg text", "fill")
    assert paper["light"] != paper["dark"]
    assert ink["light"] != ink["dark"]


TOO_WIDE = """
const wide = (one) => one.getBoundingClientRect().width > 0 && one.getBoundingClientRect().right > innerWidth + 0.5;
// a table that is too wide scrolls in its own box
return [...document.querySelectorAll("body *")].filter((one) => wide(one) && !one.closest(".scroll > *"))
  .map((one) => one.tagName + "." + one.className);
"""
CUT = """
const cut = [];
for (const svg of document.querySelectorAll("figure.chart svg")) {
  const box = svg.getBoundingClientRect();
  for (const part of box.width ? svg.querySelectorAll("text, path, use, rect") : []) {
    const own = part.getBoundingClientRect();
    if (!part.closest("defs") && !part.closest("[clip-path]") && (own.left < box.left - 2 || own.right > box.right + 2)) cut.push(part.textContent);
  }
}
return cut;
"""  # noqa: E501


@pytest.fixture
def phone(browser):
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("layers", [5, 12, 24])
def test_nothing_is_wider_than_a_phone_and_no_chart_is_cut(show, phone, layers) -> None:
    browser = show(Report(make_contents(n_layers=layers)).html)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.execute_script(TOO_WIDE) == []
    assert browser.execute_script(CUT) == []
    # letters stay letters
    script = """
        const boxes = [...document.querySelectorAll(".on-narrow text")].map((one) => one.getBoundingClientRect());
        return Math.min(...boxes.filter((box) => box.width).map((box) => Math.max(box.height, box.width)));"""
    assert browser.execute_script(script) > 6


def test_numbers_stay_in_one_piece_on_a_phone(show, phone, page) -> None:
    browser = show(page)
    found = browser.find_elements("css selector", "#methods td, #units td, .headline dd")
    cells = [cell.get_property("textContent") for cell in found]
    assert sum("\u00a0%" in cell for cell in cells) > 20
    assert not [cell for cell in cells if " %" in cell]
    heights = "return [...document.querySelectorAll('#methods td')].map((one) => one.clientHeight)"
    assert len(set(browser.execute_script(heights))) == 1


def test_a_unit_is_named_amplified_or_suppressed_and_minus_signs_are_such(show, page) -> None:
    browser = show(page)
    for unit in make_contents().units:
        if unit.kind != "head":
            continue
        browser.execute_script(f"location.hash = '#{unit.label}'")
        said = "amplified" if (unit.measures["change"] or 0) > 1 else "suppressed"
        facts = browser.find_element("css selector", "#panel .facts").text
        assert facts.startswith(f"{said} × ")
        assert "first component of the training images" in facts
        told = browser.find_element("css selector", "#components > .told").text
        assert told.startswith("Principal components of 8192 generated images (comes with the model); ")
    assert "−0.25" in browser.find_element("id", "cards").text
    assert not re.search(r"(^|\s)-\d", browser.find_element("tag name", "body").text)


@pytest.mark.parametrize(("changes", "ends"), [((0.1, 9.0), "≤ × 0.25|≥ × 4.0"), ((0.5, 3.0), "× 0.33|× 3.0")])
def test_the_legend_says_where_cells_go_beyond_its_ends(show, changes, ends) -> None:
    contents = make_contents()
    heads = [
        replace(unit, measures={**unit.measures, "change": changes[unit.head % 2]})
        for unit in contents.units
        if unit.kind == "head"
    ]
    browser = show(Report(replace(contents, units=tuple(heads))).html)
    said = "return [...document.getElementById('legend').childNodes].filter((n) => n.data).map((n) => n.data).join('|')"
    assert browser.execute_script(said).replace("\u00a0", " ") == ends


def test_a_line_says_that_no_image_changed_class(show) -> None:
    browser = show(Report(replace(make_contents(), changed=(), n_changed=0)).html)
    told = browser.find_element("id", "changed").text
    assert "None: all 359 test images have the same predicted class before and after." in told
    assert complaints(browser) == []


def test_nothing_is_blank_beside_the_selected_unit(show, page) -> None:
    """The panel stands beside the map, the components across the whole width below."""
    boxes = show(page).execute_script("""
        return ["map", "panel", "components"].map((id) => document.getElementById(id).getBoundingClientRect())
          .map((box) => [box.left, box.top, box.right, box.bottom])""")
    on_map, panel, components = boxes
    assert panel[0] > on_map[2]
    assert abs(panel[1] - on_map[1]) < 20
    assert components[1] >= max(on_map[3], panel[3])
    assert abs(components[2] - panel[2]) < 1
    assert components[0] <= on_map[0] + 1


def cards(browser) -> list[str]:
    """The keys of the images that can be seen, in order."""
    shown = browser.find_elements("css selector", "#cards .card")
    return [card.find_element("css selector", ".key").get_attribute("title") for card in shown if card.is_displayed()]


def test_changed_images_are_sorted_and_filtered_by_keyboard(show, page) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    browser = show(page)
    first = f"test/{ATTACK}.png"
    given = [first, "test/2.png", "test/3.png", "test/4.png"]
    assert cards(browser) == given
    sort = browser.find_element("id", "changed-sort")
    sort.send_keys(Keys.ARROW_DOWN)
    # 10.5 before 9.25: numbers, not texts
    assert cards(browser) == ["test/2.png", "test/3.png", "test/4.png", first]
    sort.send_keys(Keys.ARROW_DOWN)
    assert cards(browser) == ["test/2.png", "test/3.png", first, "test/4.png"]
    sort.send_keys(Keys.ARROW_DOWN)
    # by class, in the order of their names: the one with markup, apple, plum
    assert cards(browser) == ["test/2.png", first, "test/3.png", "test/4.png"]
    kinds = browser.find_elements("css selector", "#changed-controls input")
    assert [kind.get_attribute("value") for kind in kinds] == ["all", "corrected", "newly wrong", "still wrong"]
    kinds[0].send_keys(Keys.ARROW_RIGHT)
    assert cards(browser) == [first, "test/4.png"]
    Select(browser.find_element("id", "changed-class")).select_by_visible_text("plum")
    assert cards(browser) == ["test/4.png"]
    assert browser.find_element("id", "changed-told").text == "1 of 4 images"
    kinds[1].send_keys(Keys.ARROW_LEFT)
    Select(browser.find_element("id", "changed-class")).select_by_visible_text(ATTACK)
    assert cards(browser) == ["test/2.png"]
    assert complaints(browser) == []


def test_cells_without_a_value_are_explained(show, page) -> None:
    browser = show(page)
    told = browser.find_element("id", "absent-told")
    assert told.text == ""
    browser.execute_script("document.querySelector('input[value=two_nn]').click()")
    assert told.text == "Dashed cells: 5 units have no value, because too few of their images differ."


def test_the_axis_of_lambdas_says_that_it_is_logarithmic(show, page) -> None:
    browser = show(page)
    chart = browser.find_element("css selector", "#panel svg")
    assert "lambda, symmetric logarithmic axis" in chart.text
    assert chart.get_dom_attribute("viewBox").split()[2] == str(round(chart.rect["width"]))


def test_it_prints(show, page) -> None:
    browser = show(page)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 20_000
