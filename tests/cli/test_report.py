"""`residualign report`: from a finished run to a page, its tables, and every way it can be refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import residualign as ra
from residualign._messages import percent
from residualign.classification.evaluation import wilson_interval
from residualign.report.build import build_report
from tests.cli.conftest import Ran, make_images
from tests.report.test_page import Elements

Run = Callable[..., Ran]
ATTACK = "<script>window.attacked = true<"  # a file's name holds no slash
WORDS = [
    f"{article} {thing}" for article in ("a photo of", "the", "two of the") for thing in ("cat", "dog", "zero", "digit")
]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("# things\n" + "\n".join(WORDS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two methods; one class and one file have names that try to break out."""
    from residualign.cli import main

    folder = tmp_path_factory.mktemp("run")
    data = make_images(folder / "images", {"cat": 20, "dog": 20, ATTACK: 20})
    (data / "cat" / "00.png").rename(data / "cat" / f"{ATTACK}.png")
    out = folder / "out"
    arguments = ["adapt", str(clip), str(data), "--out", str(out), "--method", "residual", "--method", "linear"]
    assert main([*arguments, "--workers", "0"]) == 0
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def data_of(page: Path) -> dict[str, object]:
    content = json.loads(Elements(page.read_text(encoding="utf-8")).scripts[0])
    assert isinstance(content, dict)
    return content


def test_a_page_with_everything_the_run_has(run: Run, copy: Path, words: Path) -> None:
    ran = run("report", copy, "--dictionary", words, "--json")
    assert ran.code == 0, ran.err
    page = copy / "report.html"
    assert ran.json["page"] == str(page)
    assert ran.json["bytes"] == page.stat().st_size
    summary = json.loads((copy / "summary.json").read_text())
    units = ra.load_adapter(copy).maps.units
    assert [unit["label"] for unit in ran.json["units"]] == list(units.labels)
    lines = {line["name"]: line for line in ran.json["methods"]}
    assert set(lines) == {"zero-shot", "residual", "linear", "linear probe"}
    assert lines["zero-shot"]["val_accuracy"] == summary["results"][0]["accuracy"]["zero_shot_val"] is not None
    assert lines["linear probe"]["seconds"] == summary["linear_probe"]["seconds"] > 0
    assert lines["residual"]["accuracy"] == summary["results"][0]["accuracy"]["adapted"]
    assert lines["linear"]["parameters"] == summary["results"][1]["parameters"]
    assert lines[summary["chosen"]]["is_chosen"]
    assert sum(row["after"] for row in ran.json["confusion"]) == ran.json["n_test"] == 12
    accuracy, n = lines["residual"]["accuracy"], ran.json["n_test"]
    chosen = next(one for one in summary["results"] if one["method"] == summary["chosen"])
    said = f"from {percent(chosen['accuracy']['zero_shot'])} to {percent(chosen['accuracy']['adapted'])} with"
    scaled = [one for one in summary["results"][0]["units"] if one["label"] != "output"]
    before, after = (sum(one[f"variance_{when}"] for one in scaled) for when in ("before", "after"))
    gains = {one["label"]: one["variance_after"] / after / (one["variance_before"] / before) for one in scaled}
    found = {unit["label"]: unit["measures"]["change"] for unit in ran.json["units"]}
    assert {
        "interval": lines["residual"]["interval"],
        "accuracies said": said in ran.json["findings"][0],
        "changes": {label: value for label, value in found.items() if value is not None},
    } == {
        "interval": pytest.approx(wilson_interval(round(accuracy * n), n)),
        "accuracies said": True,
        "changes": pytest.approx(gains, rel=1e-4),
    }
    heads = [unit for unit in ran.json["units"] if unit["kind"] == "head"]
    for unit in heads:
        assert unit["texts"]
        assert set(unit["texts"]) <= set(WORDS)
        assert unit["components"][0]["scale"] is not None
        assert unit["components"][0]["positive"]["pictures"]
        assert 0 < unit["measures"]["evr_first"] <= 1
    shares = sum(unit["measures"]["energy"] or 0 for unit in ran.json["units"])
    assert shares == pytest.approx(1, abs=1e-6)
    facts = {fact["name"]: fact["value"] for fact in ran.json["made"]}
    assert facts["model fingerprint"] == summary["fingerprints"]["model"]
    assert facts["seed"] == "0"
    assert ran.json["class_names"] == summary["class_names"]
    assert set(data_of(page)["pictures"]) <= set(summary["pictures"].values())  # type: ignore[call-overload]
    assert "<script>window" not in page.read_text(encoding="utf-8")


def test_two_runs_give_the_same_page(copy: Path, words: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = build_report(copy, dictionary=words).html
    assert build_report(copy, dictionary=words, progress=lambda done, total: steps.append((done, total))).html == first
    # the last step of each task: texts of the dictionary, dimensions, words
    assert sum(done == total for done, total in steps) == 3


def test_lambdas_are_those_of_the_method_that_scales_heads(copy: Path, words: Path) -> None:
    contents = build_report(copy, dictionary=words).contents
    adapter = ra.load_adapter(copy / "methods" / "residual")
    assert contents.scales_of == "residual"
    for unit in contents.units:
        if unit.kind == "head":
            scales = [component.scale for component in unit.components]
            assert scales == pytest.approx(adapter.lambdas[unit.label].tolist(), rel=1e-6)
    assert contents.moved[0].effect == max(line.effect for line in contents.moved)


def test_images_that_changed_are_counted_and_explained(copy: Path, words: Path) -> None:
    contents = build_report(copy, dictionary=words).contents
    adapter = ra.load_adapter(copy)
    store = ra.Store.open(copy / "store")
    adapter.attach_store(store)
    test = store.split("test").coordinates()
    before = adapter.base_classifier.logits(test.output).argmax(dim=1)
    after = adapter.logits(test).argmax(dim=1)
    assert contents.n_changed == int((before != after).sum())
    for image in contents.changed:
        i = store.split("test").keys.index(image.key)
        assert image.before == adapter.class_names[int(before[i])]
        assert image.after == adapter.class_names[int(after[i])]
        assert image.change > 0
        assert image.picture is not None
        sizes = [abs(value) for _, value in image.parts]
        assert sizes == sorted(sizes, reverse=True)
    for kind in ("corrected", "newly wrong", "still wrong"):
        # all have a picture
        changes = [image.change for image in contents.changed if image.kind == kind]
        assert changes == sorted(changes, reverse=True)


def test_tables_and_figures_for_papers(run: Run, copy: Path, words: Path, tmp_path: Path) -> None:
    out = tmp_path / "paper"
    ran = run(
        "report", copy, "--dictionary", words, "--out", out, "--format", "csv", "--format", "json", "--format", "png"
    )
    assert ran.code == 0, ran.err
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "report.json", "units.csv", "methods.csv", "accuracy.png", "map_change.png"} <= names
    with open(out / "methods.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((out / "report.json").read_text())
    assert [float(row["accuracy"]) for row in rows] == [line["accuracy"] for line in content["methods"]]
    assert not (copy / "report.html").exists()


def test_a_page_that_is_there_is_kept(run: Run, copy: Path, words: Path) -> None:
    (copy / "report.html").write_text("mine")
    ran = run("report", copy, "--dictionary", words)
    assert (ran.code, "--overwrite" in ran.sentence) == (2, True)
    assert (copy / "report.html").read_text() == "mine"
    assert run("report", copy, "--dictionary", words, "--overwrite").code == 0
    assert (copy / "report.html").read_text() != "mine"


def test_a_run_that_begins_again_takes_its_page_with_it(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("adapt", clip, images, "--out", out).code == 0
    (out / "report.html").write_text("of the first run")
    assert run("adapt", clip, images, "--out", out, "--overwrite").code == 0
    assert not (out / "report.html").exists()


def test_a_model_without_text_is_shown_by_images_alone(
    run: Run, vit: Path, images: Path, tmp_path: Path, words: Path
) -> None:
    out = tmp_path / "out"
    assert run("adapt", vit, images, "--out", out).code == 0
    ran = run("report", out, "--json")
    assert ran.code == 0, ran.err
    assert any("no text tower" in note for note in ran.json["notes"])
    heads = [unit for unit in ran.json["units"] if unit["kind"] == "head"]
    assert not any(unit["texts"] for unit in heads)
    assert all(unit["components"][0]["positive"]["pictures"] for unit in heads)
    refused = run("report", out, "--dictionary", words, "--overwrite")
    assert (refused.code, "no text tower" in refused.sentence) == (2, True)


def test_a_run_from_a_store_has_no_pictures_and_says_so(run: Run, copy: Path, words: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("adapt", copy / "store", "--out", out).code == 0
    ran = run("report", out, "--dictionary", words, "--json")
    assert ran.code == 0, ran.err
    assert any("no pictures" in note for note in ran.json["notes"])
    assert data_of(out / "report.html")["pictures"] == {}


def test_without_its_model_a_page_has_no_words(
    run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch, words: Path
) -> None:
    config = copy / "adapter_config.json"
    config.write_text(config.read_text().replace(str(ra.load_adapter(copy).model_info["name"]), "/nowhere/model"))
    ran = run("report", copy, "--json")
    assert ran.code == 0, ran.err
    assert "no words" in ran.err
    assert any("no words" in note for note in ran.json["notes"])
    refused = run("report", copy, "--dictionary", words, "--overwrite")
    assert refused.code == 2


def test_what_cannot_be_shown_is_refused(run: Run, copy: Path, clip: Path, images: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, said in ((empty, "holds no run"), (tmp_path / "absent", "is not a folder")):
        ran = run("report", folder)
        assert (ran.code, said in ran.sentence) == (2, True), ran.err
    assert "--out DIR" in run("report", copy, "--format", "csv").sentence
    other = tmp_path / "other"
    assert run("extract", clip, images, "--store", other).code == 0
    assert "not that of the run" in run("report", copy, "--store", other).sentence
    shutil.move(copy / "store", tmp_path / "moved")
    summary = json.loads((copy / "summary.json").read_text())
    # what was copied from may still be there, and is found
    (copy / "summary.json").write_text(json.dumps({**summary, "store": str(copy / "store")}))
    assert "--store PATH" in run("report", copy).sentence
    (copy / "summary.json").write_text("{}")
    assert "damaged" in run("report", copy, "--store", tmp_path / "moved").sentence


def test_a_moved_store_is_found_by_name(run: Run, copy: Path, words: Path, tmp_path: Path) -> None:
    shutil.move(copy / "store", tmp_path / "moved")
    assert run("report", copy, "--store", tmp_path / "moved", "--dictionary", words).code == 0
