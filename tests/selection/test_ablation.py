"""Accuracy with units left out, against masks over explicit contributions."""

from __future__ import annotations

import pytest
import torch

from residualign.errors import BadInputError
from residualign.selection import ablation as of_products
from residualign.selection.ablation import (
    LAYER_KINDS,
    ClassProducts,
    accuracy_curves,
    kept_accuracies,
    layer_sets,
    replacements,
    unit_mask,
    unit_means,
)
from residualign.units import Units
from tests.reference import selection_twin as twin
from tests.selection.towers import LAYOUTS, store_of, values_of


@pytest.fixture(scope="module", params=LAYOUTS)
def store(request, tmp_path_factory):
    return store_of(request.param, tmp_path_factory.mktemp("models"))


def prepared(store, mode):
    test = store.split("test")
    found = ClassProducts.of(test.coordinates(), test.labels, store.maps, store.text_vectors)
    means = unit_means(store.split("train").coordinates(), store.maps)
    return found, replacements(found, mode, means, store.text_vectors)


def expected(store, kept, mode):
    units = list(store.maps.units)
    positions = {units.index(unit) for unit in kept}
    means = values_of(store, "train").mean(axis=0)
    labels = store.split("test").labels.tolist()
    return twin.accuracy(values_of(store, "test"), positions, mode, means, store.text_vectors.numpy(), labels)


@pytest.mark.parametrize("mode", ["zero", "mean"])
@pytest.mark.parametrize("keep_mlps", [False, True])
def test_curves_are_accuracies_of_masked_sums(store, mode, keep_mlps, monkeypatch):
    heads = store.maps.units.of_kind("head")
    others = [unit for unit in store.maps.units if unit.kind != "head"] if keep_mlps else []
    g = torch.Generator().manual_seed(2)
    orders = [torch.randperm(len(heads), generator=g).tolist() for _ in range(2)]
    # several blocks, the last one smaller
    monkeypatch.setattr(of_products, "_BYTES", 8 * len(store.maps.units) * 3 * 5)
    found, replaced = prepared(store, mode)
    assert len(list(found.blocks())) > 3
    curves = accuracy_curves(found, orders, replaced, keep_mlps=keep_mlps)
    for order, curve in zip(orders, curves.tolist(), strict=True):
        assert curve == [
            pytest.approx(expected(store, [*others, *(heads[i] for i in order[:k])], mode))
            for k in range(1, len(heads) + 1)
        ]


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_layer_sets_are_accuracies_of_masked_sums(store, mode):
    sets = layer_sets(store.maps.units)
    found, replaced = prepared(store, mode)
    accuracies = kept_accuracies(found, unit_mask(sets, store.maps.units), replaced)
    for one, accuracy in zip(sets, accuracies.tolist(), strict=True):
        assert accuracy == pytest.approx(expected(store, one.units, mode)), one.kind


def test_nothing_left_out_is_the_model_itself(store):
    test = store.split("test")
    found, replaced = prepared(store, "mean")
    own = (test.coordinates().output @ store.text_vectors.T).argmax(dim=-1)
    everything = torch.ones(1, len(store.maps.units), dtype=torch.bool)
    assert kept_accuracies(found, everything, replaced).item() == (own == test.labels).double().mean()
    # products of all units sum to the output's
    summed = torch.cat([values.sum(dim=1) for values, _ in found.blocks()])
    torch.testing.assert_close(summed, test.coordinates().output @ store.text_vectors.T, rtol=0, atol=1e-10)


def test_means_are_those_of_explicit_contributions(store):
    means = unit_means(store.split("train").coordinates(), store.maps)
    values = torch.from_numpy(values_of(store, "train")).mean(dim=0)
    torch.testing.assert_close(torch.stack(list(means.values())), values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pool_mlp", [False, True])
def test_what_the_layer_sets_hold(pool_mlp):
    units = Units(3, 2, pool_mlp)
    sets = {(one.kind, one.layer): {unit.label for unit in one.units} for one in layer_sets(units)}
    assert len(sets) == 3 + 8 * 3
    assert {kind for kind, _ in sets} == set(LAYER_KINDS)
    last = {"pool.mlp"} if pool_mlp else set()
    assert sets["heads of layer", 1] == {"L1.H0", "L1.H1"}
    assert sets["heads up to layer", 1] == {"L0.H0", "L0.H1", "L1.H0", "L1.H1"}
    assert sets["heads from layer", 2] == {"L2.H0", "L2.H1"}
    assert sets["up to layer", 0] == {"embedding", "L0.mlp", "L0.H0", "L0.H1"}
    assert sets["from layer", 2] == {"L2.mlp", "L2.H0", "L2.H1"} | last
    assert sets["up to layer", 2] == sets["from layer", 0] == sets["all", None] == set(units.labels)
    assert sets["all", None] - sets["without heads", 1] == {"L1.H0", "L1.H1"}
    assert sets["all", None] - sets["without mlp", 1] == {"L1.mlp"}
    assert sets["all", None] - sets["without layer", 1] == {"L1.H0", "L1.H1", "L1.mlp"}
    assert sets["mlps", None] == {"embedding", "L0.mlp", "L1.mlp", "L2.mlp"} | last
    mask = unit_mask(layer_sets(units), units)
    assert mask.sum(dim=1).tolist() == [len(kept) for kept in sets.values()]


def test_an_unknown_ablation_is_refused(store):
    with pytest.raises(BadInputError, match="ablation is 'zero' or 'mean', got 'median'"):
        prepared(store, "median")
