"""Linear dimensions against scikit-learn's PCA."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from residualign.errors import BadInputError
from residualign.geometry.measure import linear_dimension, linear_dimension_of_points
from residualign.spectrum import Spectrum
from residualign.spectrum.spectrum import leading
from tests.geometry.manifolds import linear, normal


def spectrum_of(variance, total=None, n=97):
    variance = torch.tensor(variance, dtype=torch.float64)
    components = torch.eye(len(variance), 7, dtype=torch.float64)
    return Spectrum(torch.zeros(7).double(), components, variance, float(variance.sum()) if total is None else total, n)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize(
    "points",
    [normal(211, 13) * torch.arange(1, 14) ** -0.7, linear(211, 5, 13), normal(11, 29) + 3.0],
    ids=["falling", "rank 5", "few images"],
)
def test_scikit_learn_finds_the_same(points, threshold):
    found = linear_dimension_of_points(points, threshold)
    pca = PCA(svd_solver="full").fit(points.numpy())
    variance = pca.explained_variance_
    share = np.cumsum(pca.explained_variance_ratio_)
    kept = int((variance > 1e-10 * variance[0]).sum())
    expected = kept if threshold == 1 else int((share < threshold - 1e-12).sum()) + 1
    assert found.components == expected
    assert found.evr_first == pytest.approx(pca.explained_variance_ratio_[0], rel=1e-10)
    assert found.participation_ratio == pytest.approx(variance.sum() ** 2 / (variance**2).sum(), rel=1e-10)


def test_known_by_hand():
    found = linear_dimension(spectrum_of([6.0, 3.0, 1.0]), 0.9)
    assert (found.components, found.evr_first) == (2, 0.6)
    assert found.participation_ratio == pytest.approx(100 / 46)
    even = linear_dimension(spectrum_of([2.0] * 5), 0.99)
    assert (even.components, even.evr_first) == (5, pytest.approx(0.2))
    assert even.participation_ratio == pytest.approx(5)


def test_a_cut_spectrum_has_its_components_and_the_whole_variance():
    found = linear_dimension(leading(spectrum_of([6.0, 3.0, 1.0]), 2), 0.99)
    assert (found.components, found.evr_first) == (2, 0.6)
    assert found.participation_ratio == pytest.approx(100 / 45)


@pytest.mark.parametrize("points", [torch.ones(11, 3), torch.ones(1, 3), torch.zeros(5, 0)])
def test_a_unit_that_never_varies_has_no_dimension(points):
    for found in (linear_dimension_of_points(points), linear_dimension(spectrum_of([]))):
        assert found.components == 0
        assert math.isnan(found.evr_first)
        assert math.isnan(found.participation_ratio)


@pytest.mark.parametrize("threshold", [0.0, 1.1, -1.0, float("nan")])
def test_other_thresholds_are_refused(threshold):
    with pytest.raises(BadInputError, match="threshold"):
        linear_dimension(spectrum_of([1.0]), threshold)
