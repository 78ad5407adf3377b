"""The normalized spectral cosine, for one pair of bases, for every unit and for all pairs of heads."""

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

import residualign as ra
from residualign.errors import BadInputError
from residualign.similarity import compare_heads, compare_spectra, spectral, spectral_cosine
from residualign.spectrum import Spectrum
from tests.reference import similarity_twin as twin
from tests.similarity.bases import DIM, generator, make_spectra, make_spectrum
from tests.store.make_store import fill, make_plan


def expected(a, b, threshold):
    """The four values by the plain loops, in the order of the fields."""
    bases = []
    for one in (a, b):
        k = twin.cut(one.explained_variance.tolist(), one.total_variance, threshold)
        bases.append((one.components[:k].numpy(), one.explained_variance[:k].numpy()))
    (x, v), (y, w) = bases
    ways = [(m, weighted) for m in (twin.greedy, twin.best_matching) for weighted in (True, False)]
    return [twin.spectral_cosine(x, y, v, w, match, weighted) for match, weighted in ways]


@pytest.mark.parametrize("threshold", [0.35, 0.6, 0.9, 1.0])
@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 7), (5, 5), (3, 7), (7, 2)])
def test_is_the_plain_twin(first, second, threshold):
    a, b = make_spectrum(first, 1, decay=0.5), make_spectrum(second, 2, decay=0.6)
    np.testing.assert_allclose(astuple(spectral_cosine(a, b, threshold)), expected(a, b, threshold), rtol=1e-12)


def test_a_basis_with_itself_is_one_and_with_an_orthogonal_one_zero():
    whole = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator(0), dtype=torch.float64)).Q.T
    made = make_spectrum(5, 1)
    a, b = replace(made, components=whole[:5]), replace(made, components=whole[5:10])
    assert astuple(spectral_cosine(a, a, 1.0)) == pytest.approx((1, 1, 1, 1), abs=1e-12)
    assert astuple(spectral_cosine(a, b, 1.0)) == pytest.approx((0, 0, 0, 0), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_stays_in_range_and_optimal_is_at_least_greedy(seed):
    a, b = make_spectrum(7, seed, decay=0.8), make_spectrum(11, seed + 50, decay=0.8)
    cosine = spectral_cosine(a, b, 1.0)
    assert all(0 < value < 1 for value in astuple(cosine))
    for name in ("weighted", "unweighted"):
        greedy, optimal = getattr(cosine, name), getattr(cosine, f"{name}_optimal")
        assert greedy <= optimal * (1 + 1e-12)
        assert optimal <= math.sqrt(2) * greedy


def test_is_symmetric_and_knows_neither_signs_nor_rotations_nor_a_factor_of_the_variances():
    a, b = make_spectrum(7, 1), make_spectrum(5, 2)
    reference = astuple(spectral_cosine(a, b))
    signs = torch.tensor([1.0, -1, -1, 1, -1, 1, -1], dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator(3), dtype=torch.float64)).Q
    variants = [
        (b, a),
        (replace(a, components=a.components * signs[:, None]), b),
        (replace(a, components=a.components @ rotation), replace(b, components=b.components @ rotation)),
        (replace(a, explained_variance=a.explained_variance * 1e-30, total_variance=a.total_variance * 1e-30), b),
        (replace(a, mean=a.mean + 3, n_samples=7), b),
    ]
    for first, second in variants:
        np.testing.assert_allclose(astuple(spectral_cosine(first, second)), reference, rtol=1e-12)


def test_order_matters_with_weights_and_not_without():
    a = make_spectrum(5, 1, decay=0.5)
    b = replace(a, components=a.components.flip(0))
    cosine = spectral_cosine(a, b, 1.0)
    assert cosine.unweighted == pytest.approx(1, abs=1e-12)
    assert cosine.weighted < 0.5


def test_unweighted_is_matched_too():
    """The published code compares the first with the first and so on where no weights are given."""
    a = make_spectrum(3, 1)
    b = replace(a, components=a.components[[1, 2, 0]])
    assert spectral_cosine(a, b, 1.0).unweighted == pytest.approx(1, abs=1e-12)


def test_variance_outside_the_kept_components_counts_for_the_cut():
    a = make_spectrum(7, 1, hidden=100.0)
    assert astuple(spectral_cosine(a, a, 0.9)) == pytest.approx((1, 1, 1, 1), abs=1e-12)
    similar = compare_spectra(_with_head(a), _with_head(a), variance_threshold=0.9)
    assert similar["L0.H1"].n_components == (7, 7)


def _with_head(spectrum):
    spectra = make_spectra(1)
    spectrums = list(spectra.spectrums)
    spectrums[spectra.units.index("L0.H1")] = spectrum
    return replace(spectra, spectrums=tuple(spectrums))


@pytest.mark.parametrize("pool_mlp", [False, True])
def test_every_unit_is_compared_with_its_own(pool_mlp):
    a, b = make_spectra(1, pool_mlp=pool_mlp), make_spectra(2, pool_mlp=pool_mlp)
    similar = compare_spectra(a, b, variance_threshold=0.8)
    assert tuple(unit.label for unit in similar.units) == a.units.labels
    for unit in (*similar.units, similar.output):
        first, second = (s.output if unit.label == "output" else s[unit.label] for s in (a, b))
        assert astuple(unit.cosine) == pytest.approx(astuple(spectral_cosine(first, second, 0.8)), rel=1e-12)
        counts = [twin.cut(s.explained_variance.tolist(), s.total_variance, 0.8) for s in (first, second)]
        assert unit.n_components == tuple(counts)
    assert similar["pool.mlp" if pool_mlp else "L1.mlp"].kind == "mlp"
    with pytest.raises(BadInputError, match="among those compared"):
        similar["L9.H9"]


def test_layers_are_means_of_their_units():
    similar = compare_spectra(make_spectra(1, pool_mlp=True), make_spectra(2, pool_mlp=True))
    for kind, counted in (("head", 3), ("mlp", 1)):
        layers = similar.layers(kind)
        assert [line.layer for line in layers] == [0, 1]
        for line in layers:
            of_layer = [u.cosine for u in similar.units if u.kind == kind and u.layer == line.layer]
            assert len(of_layer) == counted
            assert astuple(line.cosine) == pytest.approx(np.mean([astuple(c) for c in of_layer], axis=0), rel=1e-12)


def test_a_unit_that_never_varies_is_not_compared_and_not_counted():
    zero = Spectrum(torch.zeros(DIM, dtype=torch.float64), *_no_components(), 0.0, 83)
    a, b = _with_head(zero), make_spectra(2)
    similar = compare_spectra(a, b)
    assert all(math.isnan(value) for value in astuple(similar["L0.H1"].cosine))
    first = [similar[f"L0.H{head}"].cosine.weighted for head in (0, 2)]
    assert similar.layers()[0].cosine.weighted == pytest.approx(sum(first) / 2, rel=1e-12)
    pairs = compare_heads(a, b)
    assert torch.isnan(pairs.weighted).any(dim=1).tolist() == [False, True, False, False, False, False]
    # and where all of a kind never vary
    both = replace(a, spectrums=(zero,) * len(a.units), output=zero)
    assert math.isnan(compare_spectra(both, both).layers()[0].cosine.unweighted)


def _no_components():
    return torch.zeros(0, DIM, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)


@pytest.mark.parametrize("matching", ["greedy", "optimal"])
@pytest.mark.parametrize("block", [1, 2**12, 2**26])
def test_all_pairs_are_the_pairs_one_by_one(matching, block, monkeypatch):
    monkeypatch.setattr(spectral, "_BLOCK_BYTES", block)
    a, b = make_spectra(1), make_spectra(2, layers=3, heads=5)
    pairs = compare_heads(a, b, variance_threshold=0.8, matching=matching)
    assert (len(pairs.rows), len(pairs.columns)) == (6, 15)
    ending = "_optimal" if matching == "optimal" else ""
    for i, row in enumerate(pairs.rows):
        for j, column in enumerate(pairs.columns):
            one = spectral_cosine(a[row], b[column], 0.8)
            assert float(pairs.weighted[i, j]) == pytest.approx(getattr(one, f"weighted{ending}"), rel=1e-12)
            assert float(pairs.unweighted[i, j]) == pytest.approx(getattr(one, f"unweighted{ending}"), rel=1e-12)


def test_other_weights_need_a_word_and_other_sizes_are_refused():
    a, other = make_spectra(1), make_spectra(2, fingerprint="beef")
    for compare in (compare_spectra, compare_heads):
        with pytest.raises(BadInputError, match="CKA"):
            compare(a, other)
        compare(a, other, same_space=True)
        compare(a, replace(other, model_fingerprint=""))
        with pytest.raises(BadInputError, match="13 dimensions, the other 17; use CKA"):
            compare(a, make_spectra(2, dim=17))
    with pytest.raises(BadInputError, match="label by label"):
        compare_spectra(a, make_spectra(2, layers=3))
    with pytest.raises(BadInputError, match="share in"):
        compare_spectra(a, a, variance_threshold=1.1)


def test_stores_are_compared_by_the_spectra_of_a_split(tmp_path):
    store = fill(tmp_path / "store", make_plan())
    train, val = (ra.fit_spectrum(store, split=name) for name in ("train", "val"))
    assert compare_spectra(store, train)["L0.H0"].cosine.weighted == pytest.approx(1, abs=1e-12)
    found = compare_spectra(store, store.split("val"))
    assert found == compare_spectra(train, val)
    assert (found.first, found.second) == (train.source, val.source)
    assert compare_spectra(store, val, split="val")["L0.H0"].cosine.weighted == pytest.approx(1, abs=1e-12)


def test_a_model_with_data_is_compared_by_one_pass(tmp_path):
    model, data = ra.load_model("mini"), ra.load_data("digits")
    few = replace(data, train=data.train.take(range(0, 60)), val=data.val.take(range(0, 50)), test=data.test.take([0]))
    store = ra.extract(model, few, tmp_path / "store", workers=0)
    found = compare_spectra((model, few), store.split("val"), workers=0)
    kept = compare_spectra(store, store.split("val"))
    assert (found.first, found.second) == (kept.first, kept.second)
    for one, other in zip(found.units, kept.units, strict=True):
        assert one.cosine.weighted == pytest.approx(other.cosine.weighted, abs=1e-4)
