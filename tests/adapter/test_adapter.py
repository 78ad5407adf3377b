"""What is saved comes back bit for bit and predicts the same; images, coordinates, batches and places agree."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

import residualign as ra
from residualign.adapter.adapter import load_adapter
from residualign.adapter.files import ADAPTER_FILES
from residualign.adapter.fold import fold
from residualign.errors import BadInputError
from residualign.fitting.methods import METHODS
from tests import random_models
from tests.adapter.make_adapter import CLASSES, coordinates_of, pictures, random_adapter, random_result, spectra_of
from tests.fitting.standin import store_of

N = 13
KINDS = [
    *((name, None, None) for name in METHODS),
    ("residual", "drop", "mean"),
    ("residual-heads", "drop", "keep"),
    ("coarse", None, "mean"),
]


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory):
    return random_models.save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def model(clip_dir):
    return ra.load_model(clip_dir)


@pytest.mark.parametrize(("method", "mean", "rest"), KINDS)
def test_what_is_saved_comes_back_bit_for_bit(model, tmp_path, method, mean, rest):
    adapter = random_adapter(model, method, mean, rest)
    adapter.save(tmp_path / "out")
    loaded = load_adapter(tmp_path / "out", model=model)
    assert loaded.lambdas.keys() == adapter.lambdas.keys()
    assert all(torch.equal(loaded.lambdas[label], adapter.lambdas[label]) for label in adapter.lambdas)
    assert all(torch.equal(loaded.learned[name], value) for name, value in adapter.learned.items())
    for name in ("classifier", "base_classifier"):
        before, after = getattr(adapter, name), getattr(loaded, name)
        assert torch.equal(before.vectors, after.vectors)
        assert (before.kind, before.class_names, before.logit_scale) == (
            after.kind,
            after.class_names,
            after.logit_scale,
        )
    for name in ("method", "accuracy", "parameters", "epochs", "learning_rate", "history", "settings", "spectra"):
        assert getattr(loaded, name) == getattr(adapter, name)
    assert loaded.model_info == adapter.model_info
    images, coordinates = pictures(N), coordinates_of(model, N)
    assert torch.equal(loaded.logits(images), adapter.logits(images))
    assert torch.equal(loaded.logits(coordinates), adapter.logits(coordinates))
    assert loaded.predict(images) == adapter.predict(coordinates)


@pytest.mark.parametrize("method", METHODS)
def test_saving_what_was_loaded_gives_the_same_bytes(model, tmp_path, method):
    random_adapter(model, method).save(tmp_path / "first")
    load_adapter(tmp_path / "first").save(tmp_path / "second")
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(ADAPTER_FILES)
    for name in ADAPTER_FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("method", "mean", "rest"), KINDS)
def test_rounding_components_changes_next_to_nothing(model, method, mean, rest, dtype, tolerance):
    adapter = random_adapter(model, method, mean, rest, component_dtype=dtype)
    result = random_result(spectra_of(model), method, mean, rest)
    learned = result.learned
    lambdas = learned.get("lambdas", torch.zeros(0))
    exact = fold(adapter.maps, result.scaling, lambdas, learned.get("map"), learned.get("bias"))
    coordinates = coordinates_of(model, N).to(dtype=torch.float64)
    expected = exact(coordinates)
    difference = adapter.embed_coordinates(coordinates) - expected
    assert difference.norm() < tolerance * expected.norm()


def test_head_components_are_stored_in_their_own_few_coordinates(model):
    wide = {unit.label: unit for unit in random_adapter(model, "residual").scaling.units}
    assert {wide["L1.H2"].in_rows, wide["L1.mlp"].in_rows} == {True, False}
    assert wide["L1.H2"].components.shape[1] == random_models.HEAD_DIM + 2
    assert wide["L1.mlp"].components.shape[1] == random_models.DIM


def test_predictions_agree_with_each_other(model):
    adapter = random_adapter(model)
    images = pictures(N)
    probabilities = adapter.predict_proba(images)
    assert probabilities.shape == (N, len(CLASSES))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(N))
    assert torch.equal(adapter.predict_indices(images), probabilities.argmax(dim=1))
    assert adapter.predict(images) == [CLASSES[i] for i in probabilities.argmax(dim=1)]
    assert len(set(adapter.predict(images))) > 1
    torch.testing.assert_close(adapter.embed(images, batch_size=5), adapter.embed(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(adapter.embed(model.pixels(images)), adapter.embed(images), rtol=0, atol=0)
    assert len(adapter.take_apart(images, batch_size=5)) == N


@pytest.mark.parametrize("method", ["linear", "spectral-output"])
def test_methods_on_the_output_embed_like_their_coordinates(model, method):
    adapter = random_adapter(model, method)
    from_coordinates = adapter.embed_coordinates(coordinates_of(model, N))
    torch.testing.assert_close(adapter.embed(pictures(N)), from_coordinates, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_model_may_run_in_another_dtype(clip_dir, model, tmp_path, dtype):
    adapter = random_adapter(model, "residual")
    adapter.save(tmp_path)
    other = load_adapter(tmp_path, dtype=dtype)
    embedded, expected = other.embed(pictures(N)), adapter.embed(pictures(N))
    assert str(embedded.dtype) == {"float64": "torch.float64", "bfloat16": "torch.float32"}[dtype]
    named = load_adapter(tmp_path, model=str(clip_dir), dtype=dtype)
    assert named.model.describe()["dtype"] == dtype
    tolerance = {"float64": 1e-5, "bfloat16": 0.1}[dtype]
    assert (embedded - expected).norm() < tolerance * expected.norm()


def test_a_fresh_adapter_needs_no_model_for_coordinates(model):
    adapter = random_adapter(model)
    adapter.model_info["name"] = "/nowhere"
    assert len(adapter.predict(coordinates_of(model, N))) == N


def test_a_model_that_has_moved_is_found_by_its_new_name(clip_dir, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(clip_dir, here)
    adapter = random_adapter(ra.load_model(here))
    adapter.save(tmp_path / "out")
    expected = adapter.predict(pictures(N))
    shutil.move(here, there)
    lost = load_adapter(tmp_path / "out")
    assert lost.lambdas.keys() == adapter.lambdas.keys()
    with pytest.raises(BadInputError, match="has moved, give its new place"):
        lost.predict(pictures(N))
    assert load_adapter(tmp_path / "out", model=str(there)).predict(pictures(N)) == expected


def test_the_coordinates_of_a_store_need_no_model(model, tmp_path):
    adapter = random_adapter(model)
    adapter.model_info["name"] = "/nowhere"
    adapter.save(tmp_path)

    coordinates = coordinates_of(model, N)
    labels = torch.zeros(N, dtype=torch.int64)
    store = store_of(adapter.maps, {"test": (labels, coordinates)}, model=dict(adapter.model_info))
    loaded = load_adapter(tmp_path)
    loaded.attach_store(store)
    assert torch.equal(loaded.logits(coordinates), adapter.logits(coordinates))
    # also after the maps of the model were in use
    adapter.attach_store(store)
    assert adapter.maps is store.maps


@pytest.mark.parametrize("images", [[], "image.png"])
def test_images_that_are_none_or_not_there_are_refused(model, images):
    with pytest.raises(BadInputError, match=r"images is empty|'image.png' cannot be used"):
        random_adapter(model).predict(images)


def test_coordinates_of_another_tower_are_refused(model, tmp_path):
    other = ra.load_model(random_models.save_vit(tmp_path / "vit"))
    with pytest.raises(BadInputError, match=r"expected output \(11,\) \(got \(35,\)\) per image"):
        random_adapter(model).predict(coordinates_of(other, 3))


def test_reading_an_adapter_loads_no_model_library(model, tmp_path):
    random_adapter(model).save(tmp_path)
    code = (
        "import sys, residualign as ra\n"
        f"adapter = ra.load_adapter({str(tmp_path)!r})\n"
        "print(len(adapter.lambdas) > 0, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_shows_itself_in_a_line_and_in_tables(model, method):
    adapter = random_adapter(model, method)
    assert len(repr(adapter)) <= 200
    assert f"Adapter({method}, {adapter.parameters:,} numbers" in repr(adapter)
    assert "accuracy 25.0 % -> 75.0 %" in repr(adapter)
    tables = adapter.tables
    assert [(row["images"], row["before"], row["adapted"]) for row in tables["accuracy"]] == [
        ("test", 0.25, 0.75),
        ("validation", None, None),
    ]
    assert "<td>0.75</td>" in adapter._repr_html_()
    # an effect is measured over images, of which an adapter alone has none
    assert {row["effect"] for row in tables["lambdas"]} <= {None}
    values = torch.tensor([row["lambda"] for row in tables["lambdas"]]).abs()
    assert len(values) == sum(map(len, adapter.lambdas.values()))
    assert [row["val_accuracy"] for row in tables["history"]] == [0.5, 0.75]
    assert json.loads(json.dumps(adapter.to_json()))["lambdas"].keys() == adapter.lambdas.keys()
    assert set(adapter.figures) == ({"moved", "learning_curves"} if values.numel() else {"learning_curves"})
    assert all(figure.to_bytes("svg").startswith(b"<?xml") for figure in adapter.figures.values())


@pytest.mark.parametrize("method", METHODS)
def test_parts_of_an_adapter_print_no_tensors(model, method):
    adapter = random_adapter(model, method)
    parts = [adapter.scaling, adapter.full_scaling, adapter.adapted, adapter.adapted.exact_map]
    for part in [*parts, *adapter.scaling.units, *adapter.full_scaling.units]:
        assert repr(part).startswith(f"{type(part).__name__}(")
        assert len(repr(part)) <= 200


def test_attribution_takes_images_or_coordinates(model):
    adapter, images = random_adapter(model), pictures(N)
    found, expected = adapter.attribution(images, batch_size=3), adapter.attribution(coordinates_of(model, N))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)
    rows = found.tables["images"]
    assert [row["class"] for row in rows] == adapter.predict(images)
    assert [row["second"] for row in rows] == [CLASSES[i] for i in found.second]
    units = found.tables["units"]
    assert [row["margin"] for row in units] == found.values.flatten().tolist()
    assert [row["share"] for row in units] == found.shares.flatten().tolist()
    assert rows[0]["units"].startswith(f"{found.top(0)[0][0]} ")
    assert len(repr(found)) <= 200
    told = json.loads(json.dumps(found.to_json()))["images"]
    assert [(one["class"], one["second"], one["margin"]) for one in told] == [
        (row["class"], row["second"], row["margin"]) for row in rows
    ]
    assert [one["shares"] for one in told] == found.shares.tolist()


def test_what_moved_over_the_images_of_a_store(model):
    adapter = random_adapter(model)
    labels, coordinates = torch.zeros(N, dtype=torch.int64), coordinates_of(model, N)
    splits = {"train": (labels, coordinates), "test": (labels, coordinates_of(model, N, seed=8))}
    store = store_of(adapter.maps, splits, model=dict(adapter.model_info))
    assert adapter.moved(store).to_json() == adapter.moved(ra.fit_spectrum(store)).to_json()
    assert adapter.moved(store)[0].explained_variance is not None
    assert list(adapter.moved(store).figures) == ["moved"]
    assert len(repr(adapter.moved(store))) <= 200
    assert {one.effect for one in adapter.moved()} == {abs(one.value - 1) for one in adapter.moved()}
    with pytest.raises(BadInputError, match="'linear' has no lambdas"):
        random_adapter(model, "linear").moved()
