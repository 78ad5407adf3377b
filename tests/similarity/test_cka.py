"""Linear CKA of two matrices, of stores unit by unit, and of all pairs."""

import math

import numpy as np
import pytest
import torch

from residualign.errors import BadInputError
from residualign.similarity import cka, cka_by_unit, cka_pairs, linear_cka
from residualign.store import SplitPlan, StoreWriter
from tests.reference import similarity_twin as twin
from tests.spectrum.random_tower import make_maps
from tests.store.make_store import fill, make_plan, text_vectors, write_pending


def matrices(n=17, dims=(5, 7), seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dims[0], generator=g, dtype=torch.float64) + 2
    mixed = x @ torch.randn(dims[0], dims[1], generator=g, dtype=torch.float64)
    return x, mixed + 2 * torch.randn(n, dims[1], generator=g, dtype=torch.float64) - 1


@pytest.mark.parametrize(("n", "dims"), [(17, (5, 7)), (5, (11, 13)), (23, (1, 3))])
def test_is_that_of_image_by_image_matrices(n, dims):
    x, y = matrices(n, dims)
    found = linear_cka(x, y)
    assert found.cka == pytest.approx(twin.gram_cka(x.numpy(), y.numpy()), rel=1e-11)
    assert found.debiased == pytest.approx(twin.debiased_cka(x.numpy(), y.numpy()), rel=1e-10)


def test_knows_neither_rotation_nor_factor_nor_shift_and_is_symmetric():
    x, y = matrices()
    reference = linear_cka(x, y)
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    for first, second in ((y, x), (x, y @ rotation), (x * -3e5, y), (x + 11, y * 1e-4)):
        found = linear_cka(first, second)
        assert (found.cka, found.debiased) == pytest.approx((reference.cka, reference.debiased), rel=1e-9)
    squeezed = linear_cka(x, y * torch.arange(1, 8))
    assert abs(squeezed.cka - reference.cka) > 1e-3


def test_with_itself_is_one_and_debiased_noise_is_about_zero():
    x, _ = matrices()
    assert (linear_cka(x, x).cka, linear_cka(x, x).debiased) == pytest.approx((1, 1), abs=1e-12)
    found = [linear_cka(matrices(29, (41, 43), s)[0], matrices(29, (41, 43), s + 99)[0]) for s in range(20)]
    assert np.mean([one.cka for one in found]) > 0.5
    assert abs(np.mean([one.debiased for one in found])) < 0.02


def test_what_has_no_answer():
    x, y = matrices(3)
    assert math.isnan(linear_cka(x, y).debiased)
    assert linear_cka(x, y).cka == pytest.approx(twin.gram_cka(x.numpy(), y.numpy()), rel=1e-11)
    assert math.isnan(linear_cka(torch.ones(5, 2), torch.randn(5, 3)).cka)
    with pytest.raises(BadInputError, match="got 5 and 7"):
        linear_cka(torch.ones(5, 2), torch.ones(7, 2))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same images through two towers: other maps, other numbers (seeded by key and scale)."""
    folder = tmp_path_factory.mktemp("stores")
    first = fill(folder / "first")
    plan = make_plan(model={"name": "other", "fingerprint": "beef", "preprocessing": {}, "dtype": "float32"})
    with StoreWriter(folder / "second", plan, make_maps(5), text_vectors()) as writer:
        write_pending(writer)
        second = writer.finish()
    return first, second


def contributions(store, split):
    maps = store.maps.to(dtype=torch.float64)
    coordinates = store.split(split).coordinates().to(dtype=torch.float64)
    values = {unit.label: maps.contribution(coordinates, unit).numpy() for unit in maps.units}
    return values | {"output": coordinates.output.numpy()}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("batch", [7, 512])
def test_units_of_stores_are_those_of_their_contributions(stores, split, batch, monkeypatch):
    monkeypatch.setattr(cka, "_BATCH", batch)
    first, second = (contributions(store, split) for store in stores)
    found = cka_by_unit(*(store.split(split) for store in stores))
    assert [line.label for line in found] == [*stores[0].units.labels, "output"]
    for line in found:
        x, y = first[line.label], second[line.label]
        assert line.cka == pytest.approx(twin.gram_cka(x, y), rel=1e-9)
        assert line.debiased == pytest.approx(twin.debiased_cka(x, y), rel=1e-8)
    some = cka_by_unit(*(store.split(split) for store in stores), [stores[0].units.get("L1.H2")])
    assert [line.label for line in some] == ["L1.H2", "output"]
    (of_all,) = [line for line in found if line.label == "L1.H2"]
    assert (some[0].cka, some[0].debiased) == pytest.approx((of_all.cka, of_all.debiased), rel=1e-12)


@pytest.mark.parametrize("block", [1, 8 * 7 * 2 * 50, 2**28])
def test_pairs_are_those_of_their_contributions(stores, block, monkeypatch):
    monkeypatch.setattr(cka, "_BLOCK_BYTES", block)
    units = stores[0].units
    rows, columns = units.of_kind("head"), (units.get("L1.mlp"), *units.of_kind("head"))
    told = []
    found = cka_pairs(
        *(store.split("train") for store in stores), rows, columns, progress=lambda *done: told.append(done)
    )
    first, second = (contributions(store, "train") for store in stores)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            x, y = first[row.label], second[column.label]
            assert float(found.cka[i, j]) == pytest.approx(twin.gram_cka(x, y), rel=1e-9)
            assert float(found.debiased[i, j]) == pytest.approx(twin.debiased_cka(x, y), rel=1e-8)
    assert told[-1] == (6, 6)
    assert len(told) == (6 if block == 1 else len(told))
    heads = cka_pairs(*(store.split("train") for store in stores))
    assert heads.rows == heads.columns == rows
    torch.testing.assert_close(heads.cka, found.cka[:, 1:], rtol=1e-12, atol=0)


def test_a_store_with_itself_is_one(stores):
    split = stores[0].split("train")
    assert [line.cka for line in cka_by_unit(split, split)] == pytest.approx([1] * 10, abs=1e-12)
    assert cka_pairs(split, split).debiased.diagonal().tolist() == pytest.approx([1] * 6, abs=1e-12)


def test_other_images_or_another_order_are_refused(stores, tmp_path):
    first, second = (store.split("train") for store in stores)
    # labels go 0, 1, 2, 0, ...: the first and the fourth change places, and no label
    swapped = torch.tensor([3, 1, 2, 0, *range(4, len(second))])
    for other in (second.take(swapped), second.take(torch.arange(5))):
        for compare in (cka_by_unit, cka_pairs):
            with pytest.raises(BadInputError, match="same images in the same order"):
                compare(first, other)
    # the same keys of other data: rows of a table are only counted
    splits = {"train": SplitPlan(first.keys, tuple((i + 1) % 3 for i in range(len(first))))}
    other = fill(tmp_path / "other", make_plan(splits=splits))
    with pytest.raises(BadInputError, match="keys or labels"):
        cka_by_unit(first, other.split("train"))
