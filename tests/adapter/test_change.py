"""What made an image change its class: parts that sum to the change of the margin, whatever the method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import residualign as ra
from residualign.adapter.attribution import attribute_change
from residualign.classification.classifier import Classifier
from residualign.errors import BadInputError
from residualign.fitting.methods import METHODS
from tests import random_models
from tests.adapter.make_adapter import coordinates_of, random_adapter

N = 13


def adapter_that_changes_its_mind(model, *arguments):
    """Random lambdas, and class vectors before adapting that say the opposite of those after it."""
    adapter = random_adapter(model, *arguments)
    base = adapter.base_classifier
    return replace(adapter, base_classifier=replace(base, vectors=-base.vectors, logit_scale=3.5))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("models") / "clip"), dtype="float64")


@pytest.mark.parametrize(("mean", "rest"), [("drop", "keep"), ("keep", "zero"), ("keep", "mean")])
@pytest.mark.parametrize("method", METHODS)
def test_parts_sum_to_the_change_of_the_margin(model, method, mean, rest):
    adapter = adapter_that_changes_its_mind(model, method, mean, rest)
    coordinates = coordinates_of(model, N)
    found = attribute_change(adapter.adapted, coordinates)
    before, after = adapter.base_classifier.logits(coordinates.output), adapter.logits(coordinates)
    assert torch.equal(found.before, before.argmax(dim=1))
    assert torch.equal(found.after, after.argmax(dim=1))
    rows = torch.arange(N)
    margin_after = after[rows, found.after] - after[rows, found.before]
    margin_before = before[rows, found.after] - before[rows, found.before]
    torch.testing.assert_close(found.change, margin_after - margin_before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.values.sum(dim=1), found.change, rtol=1e-9, atol=1e-10)
    changed = found.before != found.after
    assert changed.any()
    assert (found.change[changed] > 0).all()


def test_an_image_that_kept_its_class_has_nothing_to_explain(model):
    adapter = random_adapter(model, "residual", "keep", "keep")
    found = attribute_change(adapter.adapted, coordinates_of(model, N))
    kept = found.before == found.after
    assert kept.any()
    assert not found.values[kept].any()
    assert not found.change[kept].any()


def test_a_unit_that_is_not_scaled_moves_a_margin_only_through_the_length(model):
    adapter = adapter_that_changes_its_mind(model, "residual", "keep", "keep")
    coordinates = coordinates_of(model, N)
    found = attribute_change(adapter.adapted, coordinates)
    maps = adapter.maps
    embedded = adapter.embed_coordinates(coordinates)
    vectors = adapter.classifier.vectors.double()
    own = maps.contribution(coordinates, maps.units.get("embedding"))
    margin = (own * (vectors[found.after] - vectors[found.before])).sum(dim=1)
    # the vectors before are the same with the other sign, and a scale of 3.5
    expected = 7.25 * margin / embedded.norm(dim=1) + 3.5 * margin / coordinates.output.norm(dim=1)
    torch.testing.assert_close(found.values[:, 0], expected, rtol=1e-8, atol=1e-9)


def test_top_is_ordered_by_size_and_keeps_the_sign(model):
    found = attribute_change(
        adapter_that_changes_its_mind(model, "residual", "keep", "keep").adapted, coordinates_of(model, N)
    )
    image = int((found.before != found.after).nonzero()[0])
    top = found.top(image, 4)
    sizes = found.values[image].abs().sort(descending=True).values[:4].tolist()
    assert [abs(value) for _, value in top] == sizes
    assert all(float(found.values[image, found.labels.index(label)]) == value for label, value in top)


def test_one_class_is_refused(model):
    adapter = random_adapter(model)
    adapter = replace(adapter, classifier=Classifier("text", ("cat",), adapter.classifier.vectors[:1], 7.25))
    with pytest.raises(BadInputError, match="two classes"):
        attribute_change(adapter.adapted, coordinates_of(model, 2))
