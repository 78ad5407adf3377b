"""Files that are damaged, foreign or do not fit together are refused in one sentence; saving is whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import residualign as ra
from residualign.adapter.adapter import load_adapter
from residualign.adapter.card import escape, model_card
from residualign.adapter.files import ADAPTER_FILES, CONFIG, HISTORY, TENSORS, refuse_other_model, to_config
from residualign.errors import BadInputError, RunError
from tests import random_models
from tests.adapter.make_adapter import CLASSES, random_adapter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("models") / "clip"))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    random_adapter(model, "joint").save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def _change(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    for name, value in changes.items():
        if value is None:
            del config[name]
        else:
            config[name] = value
    (folder / CONFIG).write_text(json.dumps(config))


def _retell(folder, change):
    """Change the tensors and record their new checksum, as a careful forger would."""
    import hashlib

    tensors = load_file(folder / TENSORS)
    change(tensors)
    header = json.dumps({"format": "residualign adapter", "version": 1})
    save_file(tensors, folder / TENSORS, {"residualign": header})
    _change(folder, tensors_sha256=hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": None}, "lacks 'method'"),
        ({"method": "guessing"}, "'guessing' is not one of"),
        ({"version": 2}, "format version 2, written by a newer residualign"),
        ({"version": "one"}, "'version' is a str, expected int"),
        ({"format": "residualign spectra"}, "does not describe a residualign adapter"),
        ({"parameters": True}, "'parameters' is a bool"),
        ({"class_names": ["cat", "dog"]}, "'class_vectors' has shape"),
        ({"class_names": [1, 2, 3, 4, 5, 6, 7]}, "something other than names"),
        ({"classifier": "guess"}, "'classifier' is 'guess', expected one of text, means"),
        ({"rest": "lose"}, "'rest' is 'lose'"),
        ({"logit_scale": -1.0}, "logit scale must be a positive number"),
        ({"units": [["L0.H0", 3]]}, "expected \\[label, count, form\\]"),
        ({"units": [["L0.H0", 3, "rows"]]}, "'components.rows' has shape"),
        ({"tensors_sha256": "0" * 64}, "SHA-256 differs"),
        ({"model": None}, "lacks 'model'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(copy, changes, message):
    _change(copy, **changes)
    with pytest.raises(BadInputError, match=message):
        load_adapter(copy)


def test_a_config_that_is_no_json_or_absent_is_refused(copy):
    (copy / CONFIG).write_text("{")
    with pytest.raises(BadInputError, match="not readable as JSON"):
        load_adapter(copy)
    (copy / CONFIG).unlink()
    with pytest.raises(BadInputError, match=f"is not an adapter: it has no {CONFIG}"):
        load_adapter(copy)
    with pytest.raises(BadInputError, match=r"absent' is not an adapter: it does not exist$"):
        load_adapter(copy / "absent")


def test_a_store_inside_an_adapter_says_which_folder_was_meant(copy):
    (copy / "store").mkdir()
    with pytest.raises(BadInputError, match=f"it has no {CONFIG} \\(did you mean '{copy}'\\?\\)"):
        load_adapter(copy / "store")


def test_tensors_that_are_truncated_changed_foreign_or_absent_are_refused(copy):
    path, content = copy / TENSORS, (copy / TENSORS).read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(BadInputError, match="damaged or not a safetensors file"):
        load_adapter(copy)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadInputError, match="SHA-256"):
        load_adapter(copy)
    path.write_bytes(b"not tensors at all")
    with pytest.raises(BadInputError, match="damaged or not a safetensors file"):
        load_adapter(copy)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(BadInputError, match="is not a residualign adapter file"):
        load_adapter(copy)
    path.unlink()
    with pytest.raises(BadInputError, match="no such file"):
        load_adapter(copy)


@pytest.mark.parametrize("name", ["learned.lambdas", "means", "rest_mean", "class_vectors", "components.dim"])
def test_missing_and_misshapen_tensors_are_refused_by_name(copy, name):
    _retell(copy, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    with pytest.raises(BadInputError, match=f"'{name}' has shape"):
        load_adapter(copy)
    _retell(copy, lambda tensors: tensors.pop(name))
    with pytest.raises(BadInputError, match=f"lacks '{name}'"):
        load_adapter(copy)


def test_a_damaged_history_is_refused_and_a_missing_one_is_not(copy):
    (copy / HISTORY).write_text("{")
    with pytest.raises(BadInputError, match="JSON lines"):
        load_adapter(copy)
    (copy / HISTORY).unlink()
    assert load_adapter(copy).history == ()


def test_other_weights_sizes_and_preprocessing_are_refused_with_what_differs(saved, model, tmp_path):
    other = ra.load_model(random_models.save_clip(tmp_path / "other", seed=1))
    with pytest.raises(BadInputError, match=r"other weights than model .*: fingerprint"):
        load_adapter(saved, model=other)
    with pytest.raises(BadInputError, match="other weights"):
        load_adapter(saved, model=str(tmp_path / "other"))
    with pytest.raises(BadInputError, match=r"dim 11 \(model: 35\)"):
        load_adapter(saved, model=ra.load_model(random_models.save_vit(tmp_path / "vit")))
    place = tmp_path / "clip"
    shutil.copytree(model.source, place)
    (processor,) = place.glob("p*processor_config.json")
    settings = json.loads(processor.read_text())
    (settings.get("image_processor") or settings)["image_mean"] = [0.5, 0.25, 0.125]
    processor.write_text(json.dumps(settings))
    with pytest.raises(BadInputError, match=r"preprocessing than model .* has: image_mean \[0\.48"):
        load_adapter(saved, model=str(place))


def test_every_differing_key_is_named(model):
    described = model.describe()
    changed = {**described, "preprocessing": {**described["preprocessing"], "backend": "torchvision", "extra": 1}}
    with pytest.raises(BadInputError, match=r"backend pil \(model: torchvision\), extra None \(model: 1\)"):
        refuse_other_model(described, changed)
    refuse_other_model(described, {**described, "name": "elsewhere", "dtype": "float64"})


def test_saving_replaces_an_adapter_and_leaves_other_files_alone(model, saved, copy):
    (copy / "notes.txt").write_text("mine")
    random_adapter(model, "coarse").save(copy)
    assert load_adapter(copy).method == "coarse"
    assert (copy / "notes.txt").read_text() == "mine"
    assert {path.name for path in copy.iterdir()} == {*ADAPTER_FILES, "notes.txt"}


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_leaves_the_old_adapter_as_it_was(model, copy, monkeypatch, call):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="no space left"):
        random_adapter(model, "coarse").save(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_place_that_cannot_be_a_folder_is_a_run_error(model, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="no adapter was written there"):
            random_adapter(model, "coarse").save(place)


def test_the_card_is_front_matter_and_markdown_that_shows_names_as_they_are(model, saved):
    card = (saved / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "residualign"
    assert matter["tags"] == ["residualign", "image-classification", "joint"]
    assert "base_model" not in matter
    assert "| test, zero-shot, before adapting | 0.2500 | 4 |" in body
    assert "| test, adapted | 0.7500 | 4 |" in body
    assert "validation, adapted" not in body
    for name in CLASSES:
        assert escape(name) in body
    assert "dog\\_\\*, a \\| b, \\[zero\\]\\(x\\), one, two, \\<b\\>" in body
    assert model.fingerprint in body


def test_the_card_names_a_hub_model_as_its_base_and_shortens_long_lists(model):
    config = to_config(random_adapter(model))
    config["model"] = {"name": "hf:org/some-clip"}
    config["class_names"] = [f"class {i}" for i in range(137)]
    card = model_card(config)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "org/some-clip"
    assert "class 99 and 37 more" in card
    assert "class 100" not in card


def test_the_card_says_how_it_was_made_and_judged_on_which_images(model):
    config = to_config(random_adapter(model))
    config |= {"classifier": "means", "mean": "drop", "rest": "zero"}
    config["accuracy"] = {"zero_shot": 0.25, "adapted": 0.75, "val": 0.5}
    config["settings"] = {"n_train": 31, "n_val": 17, "n_test": 4, "seed": 0}
    body = model_card(config)
    for row in (
        "| test, class means, before adapting | 0.2500 | 4 |",
        "| test, adapted | 0.7500 | 4 |",
        "| validation, adapted | 0.5000 | 17 |",
        "| unit means | drop |",
        "| what is not scaled | zero |",
        "| class vectors from | means of training images |",
        "| training images | 31 |",
        "| seed | 0 |",
    ):
        assert row in body
    assert "| shots" not in body
    config["accuracy"] = dict.fromkeys(config["accuracy"])
    assert "## Accuracy" not in model_card(config)


def test_escaping_keeps_one_line():
    assert escape("two\nlines  `x`") == "two lines \\`x\\`"
