"""Rank correlations of lambdas between fits, against scipy and a loop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from residualign.adapter.stability import _share, fit_seeds, lambda_stability
from residualign.errors import BadInputError
from residualign.fitting.fit import FitSettings
from residualign.fitting.solvers import LBFGS, Candidate
from tests.fitting.standin import make_spectra, make_store


@dataclass(frozen=True)
class Fit:
    lambdas: dict[str, torch.Tensor]


def fits(spectra, n, labels=("L0.H1", "L1.mlp", "L1.H0")):
    generator = torch.Generator().manual_seed(5)
    shared = {label: torch.randn(spectra[label].n_components, generator=generator) for label in labels}
    # rounded, so that there are ties
    return [
        Fit({k: ((v + torch.randn(len(v), generator=generator)) * 3).round() / 3 for k, v in shared.items()})
        for _ in range(n)
    ]


def joined(fit, labels):
    return np.concatenate([fit.lambdas[label].double().numpy() for label in labels])


@pytest.mark.parametrize(("kind", "labels"), [("all", ("L0.H1", "L1.mlp", "L1.H0")), ("head", ("L0.H1", "L1.H0"))])
def test_equals_scipy_and_a_loop(kind, labels):
    spectra = make_spectra(make_store().maps)
    given = fits(spectra, 4)
    found = {(one.kind, one.weighted): one for one in lambda_stability(given, spectra)}
    assert set(found) == {(k, w) for k in ("all", "head", "mlp") for w in (False, True)}
    pairs = [(joined(one, labels), joined(other, labels)) for one, other in combinations(given, 2)]
    expected = [spearmanr(x, y).statistic for x, y in pairs]
    plain = found[kind, False]
    assert (plain.mean, plain.low, plain.high) == pytest.approx((np.mean(expected), min(expected), max(expected)))
    assert (plain.n_pairs, plain.n_lambdas) == (6, len(pairs[0][0]))
    weights = np.concatenate([spectra[label].explained_variance.numpy() for label in labels])
    weighted = [weighted_twin(rankdata(x), rankdata(y), weights) for x, y in pairs]
    ours = found[kind, True]
    assert (ours.mean, ours.low, ours.high) == pytest.approx((np.mean(weighted), min(weighted), max(weighted)))
    assert ours.mean != pytest.approx(plain.mean, abs=1e-3)


def weighted_twin(x, y, weights):
    total = sum(weights)
    mean_x = sum(w * a for w, a in zip(weights, x, strict=True)) / total
    mean_y = sum(w * b for w, b in zip(weights, y, strict=True)) / total
    xy = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True))
    xx = sum(w * (a - mean_x) ** 2 for w, a in zip(weights, x, strict=True))
    yy = sum(w * (b - mean_y) ** 2 for w, b in zip(weights, y, strict=True))
    return xy / (xx * yy) ** 0.5


def test_equal_fits_agree_and_reversed_ones_do_not():
    one = Fit({"L0.H0": torch.tensor([1.0, 2.0, 5.0])})
    other = Fit({"L0.H0": torch.tensor([-1.0, -2.0, -5.0])})
    (same,) = lambda_stability([one, one])
    assert same.kind == "head"
    assert same.mean == pytest.approx(1.0)
    assert lambda_stability([one, other])[0].low == pytest.approx(-1.0)
    flat = Fit({"L0.H0": torch.ones(3)})
    assert np.isnan(lambda_stability([one, flat])[0].mean)


def test_bad_input():
    one, short = Fit({"L0.H0": torch.ones(3)}), Fit({"L0.H0": torch.ones(2)})
    with pytest.raises(BadInputError, match="at least two, got 1"):
        lambda_stability([one])
    with pytest.raises(BadInputError, match="have none"):
        lambda_stability([Fit({}), Fit({})])
    with pytest.raises(BadInputError, match="other units or numbers"):
        lambda_stability([one, short])
    with pytest.raises(BadInputError, match="'start' or 'images', got 'weather'"):
        fit_seeds(make_store(), [0], vary="weather")


def test_fits_with_several_seeds():
    store = make_store(sizes={"train": 41, "val": 23, "test": 11})
    ones = fit_seeds(store, [0, 1], vary="start")
    again = fit_seeds(store, [1], vary="start")
    assert torch.equal(ones[1].learned["lambdas"], again[0].learned["lambdas"])
    assert not torch.equal(ones[0].learned["lambdas"], ones[1].learned["lambdas"])
    assert ones[0].settings["start"] == "randn"
    images = fit_seeds(store, [0, 1], vary="images", method="coarse")
    assert [one.settings["n_train"] for one in images] == [32, 32]
    assert images[0].settings["start"] == "ones"
    # a whole head has one lambda, and its variance is all of its own
    moments = make_spectra(store.maps)
    found = lambda_stability(images, moments)
    assert [(one.kind, one.weighted, one.n_lambdas) for one in found] == [("head", False, 6), ("head", True, 6)]


def test_every_seed_draws_its_images_and_every_fit_has_the_settings():
    store = make_store(text=True, sizes={"train": 41, "val": 23, "test": 11})
    settings = FitSettings(solver=LBFGS([Candidate()], max_iterations=3))
    found = fit_seeds(store, [0, 1], "coarse", vary="images", classifier="means", settings=settings)
    assert [one.settings["seed"] for one in found] == [0, 1]
    assert [one.settings["classifier"] for one in found] == ["means", "means"]
    assert max(len(one.history) for one in found) <= 3
    # L-BFGS from ones depends on the images alone
    assert not torch.equal(*(one.learned["lambdas"] for one in found))


def test_a_share_of_every_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2 + [3])
    chosen = _share(labels, 3)
    assert torch.bincount(labels[chosen]).tolist() == [8, 4, 2, 1]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert not torch.equal(chosen, _share(labels, 4))
