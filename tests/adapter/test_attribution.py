"""Shares of the margin: exact, one in sum, and those that leaving a unit's contribution out would show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import residualign as ra
from residualign.adapter.attribution import REST, attribute
from residualign.classification.classifier import Classifier
from residualign.errors import BadInputError
from residualign.fitting.methods import METHODS
from tests import random_models
from tests.adapter.make_adapter import coordinates_of, random_adapter

N = 11
OPTIONS = [(mean, rest) for mean in ("drop", "keep") for rest in ("keep", "mean", "zero")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("models") / "clip"), dtype="float64")


@pytest.mark.parametrize(("mean", "rest"), OPTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_shares_sum_to_one_and_parts_to_the_margin(model, method, mean, rest):
    adapter = random_adapter(model, method, mean, rest)
    coordinates = coordinates_of(model, N)
    found = attribute(adapter.adapted, coordinates)
    top = adapter.logits(coordinates).topk(2, dim=-1)
    assert torch.equal(found.first, top.indices[:, 0])
    assert torch.equal(found.second, top.indices[:, 1])
    torch.testing.assert_close(found.margin, top.values[:, 0] - top.values[:, 1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.values.sum(dim=1), found.margin, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.shares.sum(dim=1), torch.ones(N, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("method", "mean", "rest"),
    [
        ("residual", "keep", "keep"),
        ("residual", "keep", "zero"),
        ("residual", "drop", "zero"),
        ("residual-heads", "keep", "zero"),
        ("coarse", None, "zero"),
        ("joint", "keep", "keep"),
    ],
)
def test_nothing_is_left_for_the_rest_where_every_term_has_a_unit(model, method, mean, rest):
    found = attribute(random_adapter(model, method, mean, rest).adapted, coordinates_of(model, N))
    assert found.labels[-1] == REST
    assert found.values[:, -1].abs().max() < 1e-9 * found.values.abs().max()


@pytest.mark.parametrize("method", ["linear", "spectral-output"])
def test_the_rest_of_an_output_map_is_its_constant(model, method):
    adapter = random_adapter(model, method)
    coordinates = coordinates_of(model, N)
    found = attribute(adapter.adapted, coordinates)
    vectors = adapter.classifier.vectors.double()
    direction = adapter.classifier.logit_scale * (vectors[found.first] - vectors[found.second])
    direction = direction / adapter.embed_coordinates(coordinates).norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.values[:, -1], direction @ adapter.adapted.exact_map.bias, rtol=1e-7, atol=1e-8)


def test_a_units_part_is_what_zeroing_its_lambda_takes_away(model):
    adapter = random_adapter(model, "coarse")
    coordinates = coordinates_of(model, N)
    found = attribute(adapter.adapted, coordinates)
    label = "L1.H3"
    without = random_adapter(model, "coarse")
    without.lambdas[label].zero_()
    gone = adapter.embed_coordinates(coordinates) - without.embed_coordinates(coordinates)
    vectors = adapter.classifier.vectors.double()
    direction = adapter.classifier.logit_scale * (vectors[found.first] - vectors[found.second])
    expected = (gone * direction).sum(dim=1) / adapter.embed_coordinates(coordinates).norm(dim=1)
    torch.testing.assert_close(found.values[:, found.labels.index(label)], expected, rtol=1e-9, atol=1e-10)


def test_units_that_are_left_out_have_no_part(model):
    found = attribute(random_adapter(model, "residual-heads").adapted, coordinates_of(model, N))
    for label in ("embedding", "L0.mlp", "L2.mlp"):
        assert not found.values[:, found.labels.index(label)].any()


def test_top_lists_the_largest_parts_whichever_class_they_speak_for(model):
    found = attribute(random_adapter(model).adapted, coordinates_of(model, N))
    top = found.top(3, count=4)
    sizes = found.values[3].abs().sort(descending=True).values[:4]
    assert [abs(share) for _, share in top] == pytest.approx((sizes / found.margin[3]).tolist())
    assert all(share == pytest.approx(float(found.shares[3, found.labels.index(label)])) for label, share in top)


def test_one_class_is_refused(model):
    adapter = random_adapter(model)
    adapter = replace(adapter, classifier=Classifier("text", ("cat",), adapter.classifier.vectors[:1], 7.25))
    with pytest.raises(BadInputError, match="has one class"):
        attribute(adapter.adapted, coordinates_of(model, 2))
