"""Scores of heads against the plain twin, and what must hold of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from residualign.classification.classifier import text_classifier
from residualign.errors import BadInputError
from residualign.selection.ablation import ClassProducts
from residualign.selection.scores import (
    class_directions,
    correlation_scores,
    cosine_scores,
    get_score,
    head_scores,
    random_scores,
    ranked,
)
from tests.reference import selection_twin as twin
from tests.selection.towers import LAYOUTS, store_of, values_of


@pytest.fixture(scope="module", params=LAYOUTS)
def store(request, tmp_path_factory):
    return store_of(request.param, tmp_path_factory.mktemp("models"))


def classifier_of(store):
    return text_classifier(store.text_vectors, store.class_names, store.logit_scale)


def scores_of(store, name, seed=0):
    val, classifier = store.split("val"), classifier_of(store)
    products = ClassProducts.of(val.coordinates(), val.labels, store.maps, classifier.vectors)
    return head_scores(name, products, store.maps, classifier, seed)


def expected(store, name):
    val = store.split("val")
    output, labels = val.coordinates().output.numpy(), val.labels.tolist()
    vectors = store.text_vectors.numpy()
    values = values_of(store, "val")
    found = []
    for u, unit in enumerate(store.maps.units):
        if unit.kind != "head":
            continue
        own = values[:, u]
        if name == "S":
            found.append(twin.supervised(own, vectors, labels))
        elif name == "U":
            found.append(twin.correlation(own, output, np.eye(output.shape[1])))
        elif name == "UT":
            found.append(twin.correlation(own, output, np.linalg.qr(vectors.T)[0].T))
        else:
            found.append(twin.mean_cosine(own, output))
    return found


@pytest.mark.parametrize("name", ["S", "U", "UT", "cosine"])
def test_scores_are_those_of_the_plain_twin(store, name):
    np.testing.assert_allclose(scores_of(store, name).numpy(), expected(store, name), rtol=0, atol=1e-11)


def test_correlations_do_not_see_size_or_offset_and_turn_with_the_sign(store):
    """Correlations and cosines of a head against the output, not of its length: a head that is doubled scores alike."""
    if store.maps.layout != "token":
        pytest.skip("maps are the identity, or share scalars")
    coordinates = store.split("val").coordinates()
    directions = class_directions(store.text_vectors)
    doubled = replace(store.maps, heads=-2.0 * store.maps.heads, head_bias=store.maps.head_bias + 3.0)
    for score in (
        lambda maps: correlation_scores(coordinates, maps, directions),
        lambda m: cosine_scores(coordinates, m),
    ):
        torch.testing.assert_close(score(doubled), -score(store.maps), rtol=0, atol=1e-12)


def test_the_output_itself_correlates_fully():
    store = store_of("token", None)
    coordinates = store.split("val").coordinates()
    # the output as the contribution of the only head
    alone = replace(store.maps, heads=store.maps.heads.clone())
    values = alone.contribution(coordinates, alone.units.get("L1.H2"))
    same = replace(coordinates, output=values)
    position = [unit.label for unit in alone.units.of_kind("head")].index("L1.H2")
    assert correlation_scores(same, alone, torch.eye(alone.dim, dtype=torch.float64))[position] == pytest.approx(1)
    assert cosine_scores(same, alone)[position] == pytest.approx(1)


def test_a_head_that_never_varies_scores_zero():
    store = store_of("token", None)
    still = replace(store.maps, heads=store.maps.heads.clone())
    still.heads[0, 1] = 0.0
    coordinates = store.split("val").coordinates()
    for scores in (
        correlation_scores(coordinates, still, torch.eye(still.dim, dtype=torch.float64)),
        cosine_scores(coordinates, still),
    ):
        assert scores[1] == 0
        assert bool(scores.isfinite().all())


def test_class_directions_are_orthonormal_and_drop_what_adds_nothing():
    g = torch.Generator().manual_seed(3)
    vectors = torch.randn(3, 7, generator=g, dtype=torch.float64)
    vectors = torch.stack([vectors[0], vectors[1], 2 * vectors[0] - vectors[1], vectors[2], vectors[2]])
    directions = class_directions(vectors)
    assert directions.shape == (3, 7)
    torch.testing.assert_close(directions @ directions.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors @ directions.T @ directions, vectors, rtol=0, atol=1e-12)
    # more vectors than dimensions span everything
    assert class_directions(torch.randn(11, 5, generator=g, dtype=torch.float64)).shape == (5, 5)


def test_random_scores_depend_on_the_seed_alone():
    assert torch.equal(random_scores(19, 4), random_scores(19, 4))
    assert not torch.equal(random_scores(19, 4), random_scores(19, 5))


def test_ties_go_to_the_earlier_head():
    assert ranked(torch.tensor([0.5, 0.75, 0.5, 0.75], dtype=torch.float64)) == (1, 3, 0, 2)
    # sorting that is not stable shows only in longer lists
    many = torch.arange(997) % 3
    assert ranked(many.double()) == tuple(sorted(range(997), key=lambda i: (-int(many[i]), i)))


def test_score_names():
    assert get_score("U|T") == get_score("UT") == "UT"
    with pytest.raises(BadInputError, match="a score is one of S, U, UT, R, cosine, got 'V'"):
        get_score("V")
