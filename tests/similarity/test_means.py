"""Means of units beside one another, and relative to anchors."""

import numpy as np
import pytest
import scipy.stats
import torch

from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.similarity import compare_means, draw_anchors, relative_means
from tests.reference import similarity_twin as twin
from tests.similarity.bases import make_spectra
from tests.store.make_store import fill


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("stores") / "store")


def test_means_agree_with_scipy():
    a, b = make_spectra(1), make_spectra(2)
    # ties: means of whole numbers
    b = b.__class__(b.units, tuple(_rounded(s) for s in b.spectrums), b.output, b.source, b.model_fingerprint)
    found = compare_means(a, b)
    assert [line.label for line in found] == list(a.units.labels)
    for line in found:
        x, y = a[line.label].mean.numpy(), b[line.label].mean.numpy()
        assert len(set(y)) < len(y)
        assert line.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
        assert line.pearson == pytest.approx(scipy.stats.pearsonr(x, y)[0], rel=1e-10)
        assert line.spearman == pytest.approx(scipy.stats.spearmanr(x, y)[0], rel=1e-10)
        assert line.euclidean == pytest.approx(np.linalg.norm(x - y), rel=1e-12)
        assert line.relative_cosine is None


def _rounded(spectrum):
    return spectrum.__class__(
        spectrum.mean.round(),
        spectrum.components,
        spectrum.explained_variance,
        spectrum.total_variance,
        spectrum.n_samples,
    )


def test_the_same_means_agree_fully_and_opposite_ones_not_at_all():
    a = make_spectra(1)
    for line in compare_means(a, a):
        assert (line.cosine, line.pearson, line.spearman, line.euclidean) == pytest.approx((1, 1, 1, 0), abs=1e-12)
    opposite = a.__class__(a.units, tuple(_negative(s) for s in a.spectrums), a.output, a.source, a.model_fingerprint)
    for line in compare_means(a, opposite):
        assert (line.cosine, line.pearson, line.spearman) == pytest.approx((-1, -1, -1), abs=1e-12)


def _negative(spectrum):
    return spectrum.__class__(
        -spectrum.mean,
        spectrum.components,
        spectrum.explained_variance,
        spectrum.total_variance,
        spectrum.n_samples,
    )


def test_relative_means_are_the_plain_loop(store):
    train, val = store.split("train"), store.split("val")
    anchors = draw_anchors(train, 7, seed=3)
    found = relative_means(val, anchors)
    maps = store.maps.to(dtype=torch.float64)
    of_val, of_anchors = (part.coordinates().to(dtype=torch.float64) for part in (val, anchors))
    for label, values in zip(found.labels, found.values.numpy(), strict=True):
        unit = maps.units.get(label)
        rows, directions = (maps.contribution(part, unit).numpy() for part in (of_val, of_anchors))
        np.testing.assert_allclose(values, twin.relative_mean(rows, directions), rtol=1e-11, atol=1e-13)


def test_relative_agreement_is_that_of_scipy(store):
    anchors = draw_anchors(store.split("train"), 11)
    relative = [relative_means(store.split(name), anchors) for name in ("train", "val")]
    spectra = [fit_spectrum(store, split=name) for name in ("train", "val")]
    for i, line in enumerate(compare_means(*spectra, tuple(relative))):
        x, y = (one.values[i].numpy() for one in relative)
        assert line.relative_cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-11)
        assert line.relative_pearson == pytest.approx(scipy.stats.pearsonr(x, y)[0], rel=1e-8, abs=1e-10)
        assert line.relative_spearman == pytest.approx(scipy.stats.spearmanr(x, y)[0], rel=1e-10, abs=1e-12)


def test_anchors_depend_on_their_seed_alone(store):
    train = store.split("train")
    first = draw_anchors(train, 7, seed=3)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert draw_anchors(train, 7, seed=3).keys == first.keys
    assert torch.equal(torch.random.get_rng_state(), state)
    assert draw_anchors(train, 7, seed=4).keys != first.keys
    assert len(set(first.keys)) == 7
    assert [train.keys.index(key) for key in first.keys] == sorted(train.keys.index(key) for key in first.keys)
    assert draw_anchors(train, 1000).keys == train.keys


def test_what_cannot_be_compared_is_refused(store, tmp_path):
    train = store.split("train")
    with pytest.raises(BadInputError, match="at least two anchors, got 1"):
        draw_anchors(train, 1)
    with pytest.raises(BadInputError, match="images and anchors"):
        relative_means(store.split("test"), train)
    a = make_spectra(1)
    with pytest.raises(BadInputError, match="different weights"):
        compare_means(a, make_spectra(2, fingerprint="beef"))
    with pytest.raises(BadInputError, match="label by label"):
        compare_means(a, make_spectra(2, heads=5))
    relative = relative_means(train, draw_anchors(train, 5))
    with pytest.raises(BadInputError, match="other units"):
        compare_means(make_spectra(1, heads=5), make_spectra(2, heads=5), (relative, relative))
