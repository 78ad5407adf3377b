"""`residualign where`: tables, JSON and sheets; the maps of an adapter are parts of its margins."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import residualign as ra
from residualign.adapter import attribution
from residualign.adapter.attribution import decision_directions
from residualign.fitting.methods import METHODS
from residualign.location.result import shown_pixels
from tests.adapter.make_adapter import coordinates_of, random_adapter
from tests.cli.conftest import make_images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = make_images(tmp_path_factory.mktemp("where") / "pics", {"a": 2})
    Image.fromarray(np.full((9, 30, 3), 200, np.uint8)).save(folder / "a" / "$wide_$<b>.png")
    return folder


def test_lengths_as_json_and_as_a_sheet(run, vit, pictures, tmp_path):
    ran = run("where", vit, pictures, "--unit", "L0.H1", "--unit", "L2.H0", "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["kind"], found["n_images"], found["grid"]) == ("norm", 3, [2, 2])
    assert [one["label"] for one in found["targets"]] == ["L0.H1", "L2.H0"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"where.json", "where.csv", "where.png"}
    assert (tmp_path / "out" / "where.csv").read_text().startswith("image,target,total,patches,prefix,constant,peak")
    shown = run("where", vit, pictures, "--unit", "L0.H1")
    assert "length of each part" in shown.out
    assert "2 x 2" in shown.out


def test_a_text_against_others(run, clip, pictures):
    ran = run(
        "where", clip, pictures, "--unit", "L1.H0", "--text", "cat", "--against", "dog", "--batch-size", 2, "--json"
    )
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["along"] == "along the text 'cat' against 'dog'"
    for image in found["images"]:
        whole = np.sum(image["maps"][0]) + np.sum(image["prefix"][0]) + image["constant"][0]
        assert whole == pytest.approx(image["total"][0], abs=1e-5)
    alone = run("where", clip, pictures, "--unit", "L1.H0", "--text", "cat", "--json").json
    assert all(abs(a["total"][0] - b["total"][0]) > 1e-4 for a, b in zip(alone["images"], found["images"], strict=True))


def test_components_and_decisions_of_an_adapter(run, clip, tmp_path, pictures):
    images = make_images(tmp_path / "images", {"cat": 10, "dog": 10, "zero": 10})
    assert run("adapt", clip, images, "--out", tmp_path / "run").code == 0
    ran = run("where", tmp_path / "run", pictures, "--unit", "L2.H0", "--component", 1, "--component", 0, "--json")
    assert [one["label"] for one in ran.json["targets"]] == ["L2.H0 · 1", "L2.H0 · 0"]
    by_name = run("where", clip, pictures, "--unit", "L2.H0", "--component", 1, "--reference", images, "--json")
    assert by_name.code == 0, by_name.err
    decided = run("where", tmp_path / "run", pictures, "--unit", "L2.H0", "--out", tmp_path / "out", "--json")
    assert decided.json["along"] == "along the margin between the first and the second class"
    files = [one["image"] for one in decided.json["images"]]
    labels = ra.load_adapter(tmp_path / "run").predict(files)
    assert [one["label"] for one in decided.json["images"]] == list(labels)
    assert (tmp_path / "out" / "where.png").stat().st_size > 10_000


def adapted_zero(unit, lambdas, mean, rest):
    """What a scaled unit adds to the adapted embedding where its contribution is zero."""
    if unit.components is None:
        return torch.zeros_like(unit.mean)
    coefficients = unit.components @ -unit.mean
    outside = -unit.mean - coefficients @ unit.components if rest == "keep" else torch.zeros_like(unit.mean)
    scaled = outside + (coefficients * lambdas) @ unit.components
    return scaled + unit.mean if mean == "keep" else scaled


@pytest.mark.parametrize(("mean", "rest"), [("keep", "keep"), ("drop", "zero"), ("keep", "mean")])
@pytest.mark.parametrize("method", METHODS)
def test_decisions_are_the_parts_of_the_margin(clip, method, mean, rest):
    """Along its direction a contribution is its part of the margin, less what a contribution of zero would have."""
    model = ra.load_model(clip, dtype="float64")
    adapter = random_adapter(model, method, mean, rest)
    coordinates = coordinates_of(model, 5)
    labels = ("embedding", "L1.mlp", "L2.H3")
    found = decision_directions(adapter.adapted, coordinates, labels)
    direction = attribution._Directions(adapter.adapted, attribution._margin(adapter.adapted, coordinates)[3]).output
    maps = adapter.maps
    scaled = {unit.label: unit for unit in adapter.full_scaling.units}
    parts = attribution.attribute(adapter.adapted, coordinates)
    for label in labels:
        contribution = maps.contribution(coordinates, maps.units.get(label))
        along = (contribution * found[label]).sum(dim=1)
        expected = parts.values[:, parts.labels.index(label)]
        if label in scaled:
            constant = adapted_zero(scaled[label], adapter.lambdas[label].double(), mean, rest)
            expected = expected - direction @ constant
        torch.testing.assert_close(along, expected, rtol=0, atol=1e-9)


def test_pictures_are_what_the_model_saw():
    pixels = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.1])
    expected = (pixels * std.view(3, 1, 1) + mean.view(3, 1, 1)).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for names in (("image_mean", "image_std"), ("mean", "std")):
        shown = shown_pixels(pixels, {names[0]: mean.tolist(), names[1]: std.tolist()})
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    stretched = shown_pixels(pixels, {})
    assert (stretched.min(), stretched.max()) == (0.0, 1.0)
    as_they_are = shown_pixels(
        pixels.clamp(0, 1), {"do_normalize": False, "image_mean": [9.0] * 3, "image_std": [9.0] * 3}
    )
    np.testing.assert_allclose(as_they_are, pixels.clamp(0, 1).permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--unit", "L1.mlp"), "L1.mlp is "),
        (("--unit", "heads"), "room for 12 heads, got 15"),
        (("--unit", "L1.H0", "--against", "dog"), "give --text too"),
        (("--unit", "L1.H0", "--reference", "x"), "give --component too"),
        (("--unit", "L1.H0", "--component", "0"), "no components come with"),
        (("--unit", "L1.H0", "--component", "0", "--text", "cat"), "either --component or --text"),
        (("--unit", "L1.H0", "--text", "cat"), "has no text tower"),
        (("--unit", "L1.H0", "--model", "mini"), "is not an adapter"),
        (("--unit", "L1.H0", "--format", "png"), "give --out DIR"),
    ],
)
def test_bad_input(run, vit, pictures, arguments, words):
    ran = run("where", vit, pictures, *arguments)
    assert ran.code == 2
    assert words in ran.sentence


def test_an_image_that_cannot_be_read(run, vit, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert run("where", vit, broken, "--unit", "L0.H0").code == 2
    ran = run("where", vit, broken, pictures, "--unit", "L0.H0", "--skip-bad", "--json")
    assert (ran.json["n_images"], ran.json["n_skipped"]) == (3, 1)
    assert "the only image could not be read" in run("where", vit, broken, "--unit", "L0.H0", "--skip-bad").sentence


def test_a_reference_is_read_as_the_command_says(run, clip, pictures, tmp_path):
    reference = make_images(tmp_path / "reference", {"a": 12})
    (reference / "a" / "broken.png").write_bytes(b"not an image")
    arguments = ("where", clip, pictures, "--unit", "L0.H0", "--component", 0, "--reference", reference)
    assert "broken.png" in run(*arguments).sentence
    assert run(*arguments, "--skip-bad", "--workers", 0).code == 0


def test_a_moved_model_is_named(run, clip, pictures, images, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(clip, model)
    assert run("adapt", model, images, "--out", tmp_path / "run").code == 0
    model.rename(tmp_path / "moved")
    assert run("where", tmp_path / "run", pictures, "--unit", "L1.H0").code == 2
    ran = run("where", tmp_path / "run", pictures, "--unit", "L1.H0", "--model", tmp_path / "moved", "--json")
    assert (ran.code, ran.json["model"]) == (0, str(tmp_path / "moved"))


@pytest.mark.parametrize("arguments", [(), ("--text", "cat")])
def test_the_table_fits_80_columns(run, clip, pictures, monkeypatch, arguments):
    monkeypatch.setattr("residualign.cli.console._PIPE_WIDTH", 80)
    ran = run("where", clip, pictures, "--unit", "L1.H0", "--unit", "L2.H3", *arguments)
    (title,) = [i for i, line in enumerate(ran.out.splitlines()) if line.startswith("  image")]
    lines = [line.rstrip() for line in ran.out.splitlines()[title + 1 :]]
    assert len(lines) == 6
    # whole to the end of the line, and of the path its end
    assert all(re.search(r"\.png  L\d\.H\d .* \d, \d$", line) for line in lines), ran.out


def test_a_unit_is_required_and_help_says_so(run, vit, pictures):
    ran = run("where", vit, pictures)
    assert ran.code == 2
    assert "Missing option '--unit'" in ran.err
    assert re.search(r"^│ \*  --unit ", run("where", "--help").out, re.MULTILINE)


def test_components_of_an_adapter_are_those_it_was_fitted_on(run, clip, tmp_path, pictures):
    images = make_images(tmp_path / "images", {"cat": 10, "dog": 10, "zero": 10})
    reference = make_images(tmp_path / "reference", {"one": 40}, seed=5)
    given = ("--reference", reference)
    assert run("adapt", clip, images, "--out", tmp_path / "run", *given).code == 0
    look = (pictures, "--unit", "L2.H0", "--component", 0, "--json")
    of_adapter, of_reference, of_images = (
        run("where", *arguments).json["images"][0]["total"][0]
        for arguments in (
            (tmp_path / "run", *look),
            (clip, *look, *given),
            (clip, *look, "--reference", tmp_path / "run" / "store"),
        )
    )
    # an adapter keeps its components in half precision
    assert of_adapter == pytest.approx(of_reference, rel=1e-2)
    assert abs(of_adapter - of_images) > 5 * abs(of_adapter - of_reference)


def test_help_states_no_default_for_a_component(run):
    assert run("where", "--help").code == 0
    lines = run("where", "--help").out.splitlines()
    start = next(i for i, line in enumerate(lines) if "--component" in line)
    assert not any("default" in line.lower() for line in lines[start : start + 2])
