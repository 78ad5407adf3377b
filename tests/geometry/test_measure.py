"""Every unit of a store, beside what the full contributions give by plain means."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import residualign as ra
from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.geometry import measure as module
from residualign.geometry import measure_geometry
from residualign.geometry.measure import Isometry, unit_points
from residualign.geometry.resampling import draw_halves
from residualign.geometry.result import PROFILED
from residualign.spectrum import Spectra
from tests import random_models
from tests.fitting.standin import consistent, store_of
from tests.geometry.small_store import COPIES, LAYERS, N, make_small_store
from tests.reference import two_nn_twin
from tests.spectrum.random_tower import HEADS, make_coordinates, make_maps

CONSTANT = ("L1.H2", "L2.mlp")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_small_store(tmp_path_factory.mktemp("small") / "store")


@pytest.fixture(scope="module")
def geometry(store):
    return measure_geometry(store, subsamples=20, seed=3)


def contributions(store, label, rows=slice(None)):
    coordinates = store.split("train").coordinates()
    if label == "output":
        return coordinates.output[rows]
    return store.maps.contribution(coordinates, store.units.get(label))[rows]


def test_every_unit_in_order_and_the_output(store, geometry):
    assert tuple(one.label for one in geometry.units) == store.units.labels
    for one, unit in zip(geometry.units, store.units, strict=True):
        assert (one.kind, one.layer, one.head) == (unit.kind, unit.layer, unit.head)
    assert (geometry.output.label, geometry.output.kind) == ("output", "output")
    assert geometry.unit("L3.H1") is geometry.units[store.units.index("L3.H1")]
    assert geometry.unit("output") is geometry.output
    assert geometry.n_images == N
    with pytest.raises(
        BadInputError, match=r"'L9\.H0' was not measured; measured: \d+ units \('embedding', .*\.\.\.\)$"
    ):
        geometry.unit("L9.H0")


@pytest.mark.parametrize("label", ["embedding", "L0.mlp", "L3.mlp", "L0.H0", "L1.H1", "L3.H2", "output"])
def test_figures_are_those_of_the_full_contributions(store, geometry, label):
    values = contributions(store, label)
    one = geometry.unit(label)
    pca = PCA(svd_solver="full").fit(values.numpy())
    variance = pca.explained_variance_
    assert one.linear_dimension == int((np.cumsum(pca.explained_variance_ratio_) < 0.99).sum()) + 1
    assert one.evr_first == pytest.approx(pca.explained_variance_ratio_[0], rel=1e-9)
    assert one.participation_ratio == pytest.approx(variance.sum() ** 2 / (variance**2).sum(), rel=1e-9)
    assert (one.n_points, one.n_duplicates) == (N - COPIES, COPIES)
    assert one.two_nn == pytest.approx(two_nn_twin.two_nn(values[: N - COPIES].tolist(), 0.9), rel=1e-9)
    assert one.ratio == pytest.approx(one.linear_dimension / one.two_nn, rel=1e-12)
    assert one.two_nn_interval[0] < one.two_nn < one.two_nn_interval[1]
    assert one.ratio_interval[0] < one.ratio < one.ratio_interval[1]
    assert 0.8 < one.two_nn_straightness <= 1


def test_intervals_are_of_halves_by_plain_means(store, geometry):
    label = "L2.H1"
    values = contributions(store, label)
    of_halves, ratios = [], []
    for half in draw_halves(N, 20, seed=3):
        part = values[half[half < N - COPIES]]
        of_halves.append(two_nn_twin.two_nn(part.tolist(), 0.9))
        share = np.cumsum(PCA(svd_solver="full").fit(values[half].numpy()).explained_variance_ratio_)
        ratios.append((int((share < 0.99).sum()) + 1) / of_halves[-1])
    one = geometry.unit(label)
    for found, whole, parts in ((one.two_nn_interval, one.two_nn, of_halves), (one.ratio_interval, one.ratio, ratios)):
        low, high = np.quantile(parts, [0.025, 0.975])
        assert found == pytest.approx((whole - (high - np.mean(parts)), whole - (low - np.mean(parts))), rel=1e-9)
    assert one.two_nn_half == pytest.approx(np.mean(of_halves), rel=1e-9)


def test_share_and_fraction_are_those_asked_for_in_every_half(store):
    found = measure_geometry(
        store.split("train"), spectra=ra.fit_spectrum(store), variance_threshold=0.8, fraction=0.6, subsamples=8, seed=5
    )
    counts = set()
    for label in ("L0.H0", "L2.H1", "L3.H2", "L0.mlp"):
        values, one = contributions(store, label), found.unit(label)
        assert one.two_nn == pytest.approx(two_nn_twin.two_nn(values[: N - COPIES].tolist(), 0.6), rel=1e-9)
        ratios = []
        for half in draw_halves(N, 8, seed=5):
            share = np.cumsum(PCA(svd_solver="full").fit(values[half].numpy()).explained_variance_ratio_)
            linear = int((share < 0.8).sum()) + 1
            counts.add(linear - one.linear_dimension)
            ratios.append(linear / two_nn_twin.two_nn(values[half[half < N - COPIES]].tolist(), 0.6))
        low, high = np.quantile(ratios, [0.025, 0.975])
        expected = (one.ratio - (high - np.mean(ratios)), one.ratio - (low - np.mean(ratios)))
        assert one.ratio_interval == pytest.approx(expected, rel=1e-9)
    # else a half that took the whole's number could not be told from one that counted its own
    assert len(counts) > 1


@pytest.mark.parametrize("label", CONSTANT)
def test_a_unit_that_never_varies(geometry, label):
    one = geometry.unit(label)
    assert (one.linear_dimension, one.n_points, one.n_duplicates) == (0, 1, N - 1)
    for value in (one.two_nn, one.ratio, one.evr_first, one.participation_ratio, *one.two_nn_interval):
        assert math.isnan(value)


def test_profiles_leave_out_what_is_unknown(geometry):
    assert [(one.kind, one.quantity) for one in geometry.profiles] == [
        (kind, quantity) for kind in ("head", "mlp") for quantity in PROFILED
    ]
    heads = geometry.profile("two_nn")
    assert heads.layers == tuple(range(LAYERS))
    for layer in range(LAYERS):
        known = [geometry.unit(f"L{layer}.H{h}").two_nn for h in range(HEADS) if f"L{layer}.H{h}" not in CONSTANT]
        assert heads.mean[layer] == pytest.approx(np.mean(known), rel=1e-12)
        assert heads.spread[layer] == pytest.approx(np.std(known), rel=1e-9)
    assert heads.hunchback is not None
    assert heads.trend is not None
    mlps = geometry.profile("two_nn", "mlp")
    assert math.isnan(mlps.mean[2])
    assert mlps.hunchback is None


def test_chosen_units_alone(store, geometry):
    chosen = [store.units.get(label) for label in ("L1.mlp", "L2.H0", "L3.H1")]
    calls = []
    found = measure_geometry(
        store,
        spectra=ra.fit_spectrum(store),
        units=chosen,
        subsamples=20,
        seed=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert found.units == tuple(geometry.unit(unit.label) for unit in chosen)
    assert found.output is None
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert found.profile("two_nn").layers == (2, 3)
    assert len(found.tables["geometry_units"]) == 3


def test_components_of_other_images(store):
    train, val = (ra.fit_spectrum(store, split=name) for name in ("train", "val"))
    own = measure_geometry(store, spectra=train, subsamples=10)
    other = measure_geometry(store, spectra=val, subsamples=10)
    assert (own.own_spectra, other.own_spectra) == (True, False)
    one, two = own.unit("L3.H1"), other.unit("L3.H1")
    assert (one.two_nn, one.two_nn_interval) == (two.two_nn, two.two_nn_interval)
    assert two.evr_first == pytest.approx(float(val["L3.H1"].explained_variance_ratio[0]))
    # one given L for all halves: the ratio varies as 1 / N does
    profile = other.profile("linear_dimension")
    assert all(low == mean == high for mean, (low, high) in zip(profile.mean, profile.intervals, strict=True))
    assert two.ratio_interval[0] < two.ratio < two.ratio_interval[1]


def test_spectra_are_of_the_same_images_where_they_know_it(store, tmp_path):
    spectra = ra.fit_spectrum(store)
    spectra.save(tmp_path / "spectra.safetensors")
    again = Spectra.load(tmp_path / "spectra.safetensors")
    unknown = dataclasses.replace(spectra, images="")
    some = store.split("train").take(torch.arange(N - 1))
    for source, given, expected in (
        (store, again, True),
        (store, unknown, False),
        (some, spectra, False),
        (store.split("train").take(torch.arange(N).flip(0)), spectra, True),
    ):
        found = measure_geometry(source, spectra=given, units=["L3.H1"], subsamples=2)
        assert found.own_spectra is expected


def test_a_model_and_data_give_what_their_store_gives(tmp_path):
    model = ra.load_model(random_models.save_clip(tmp_path / "clip"))
    data = ra.load_data(random_models.save_two_colors(tmp_path / "colors", n=11))
    store = ra.extract(model, data, tmp_path / "store")
    direct = measure_geometry(model, data, units=["L1.H1"], subsamples=2)
    assert direct == measure_geometry(store, units=["L1.H1"], subsamples=2)
    spectra = ra.fit_spectrum(model, data)
    assert measure_geometry(store, spectra=spectra, units=["L1.H1"], subsamples=2).own_spectra


def test_images_of_a_split_go_with_no_other_split(store):
    with pytest.raises(BadInputError, match="split='val' does not go with images of the split 'train'"):
        measure_geometry(store.split("train"), split="val")


def test_without_halves(store):
    found = measure_geometry(store, subsamples=0)
    one = found.unit("L3.H1")
    assert one.two_nn > 0
    assert all(map(math.isnan, (*one.two_nn_interval, *one.ratio_interval, one.two_nn_half)))
    assert not found.profile("two_nn").hunchback.holds


def test_the_same_again_and_other_halves_by_seed(store, geometry):
    spectra = ra.fit_spectrum(store)
    again = measure_geometry(store, spectra=spectra, subsamples=20, seed=3)
    assert again.to_json() == geometry.to_json()
    other = measure_geometry(store, spectra=spectra, subsamples=20, seed=4).unit("L0.H0")
    assert other.two_nn == geometry.unit("L0.H0").two_nn
    assert other.two_nn_interval != geometry.unit("L0.H0").two_nn_interval


def test_tables_and_json(geometry):
    rows = geometry.tables["geometry_units"]
    assert len(rows) == len(geometry.units) + 1
    assert len({tuple(row) for row in rows}) == 1
    row = next(row for row in rows if row["label"] == "L2.H1")
    assert (row["two_nn_low"], row["two_nn_high"]) == geometry.unit("L2.H1").two_nn_interval
    assert not any(isinstance(value, tuple | list) for value in row.values())
    profiles = geometry.tables["geometry_profiles"]
    assert len(profiles) == 2 * len(PROFILED) * LAYERS
    told = json.loads(json.dumps(geometry.to_json(), allow_nan=False))
    assert told["units"][0]["label"] == "embedding"
    assert told["profiles"][1]["hunchback"]["peak"] == geometry.profile("two_nn").hunchback.peak


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variance_threshold": 0.0}, "variance_threshold is a share"),
        ({"fraction": 1.5}, "fraction is a share"),
        ({"subsamples": 7}, "an even number"),
        ({"subsamples": -2}, "an even number"),
    ],
)
def test_numbers_out_of_range(store, settings, told):
    with pytest.raises(BadInputError, match=told):
        measure_geometry(store, **settings)


def test_empty_split_and_other_towers(store, tmp_path):
    spectra = ra.fit_spectrum(store)
    with pytest.raises(BadInputError, match="split 'test' has no images"):
        measure_geometry(store, split="test", spectra=spectra)
    other = make_small_store(tmp_path / "other", dim=11)
    with pytest.raises(BadInputError, match="the spectra belong to"):
        measure_geometry(other, spectra=spectra)


@pytest.mark.parametrize("dim", [5, 13])
def test_an_isometry_keeps_every_distance(tmp_path, dim):
    """More coordinates than dimensions, and fewer."""
    store = make_small_store(tmp_path / "store", dim=dim)
    for unit, points in unit_points(store.split("train"), tuple(store.units)):
        whole = contributions(store, unit.label)
        assert points.shape[1] == min(dim, store.maps.weight(unit).shape[0])
        difference = torch.cdist(points, points) - torch.cdist(whole, whole)
        assert float(difference.abs().max()) < 1e-6
        # against the plain differences of the first image
        torch.testing.assert_close(
            (points - points[0]).norm(dim=1), (whole - whole[0]).norm(dim=1), rtol=1e-11, atol=1e-13
        )


def test_units_are_read_in_groups_that_fit(store, monkeypatch):
    split, units = store.split("train"), tuple(store.units)
    together = dict(unit_points(split, units))
    monkeypatch.setattr(module, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(module, "_BATCH", 10)
    apart = list(unit_points(split, units))
    assert [unit for unit, _ in apart] == list(units)
    for unit, points in apart:
        torch.testing.assert_close(points, together[unit], rtol=1e-12, atol=1e-13)
    assert list(unit_points(split, ())) == []


@pytest.mark.parametrize("layout", ["mean", "contributions"])
def test_other_layouts(layout, tmp_path):
    save = {"mean": random_models.save_vit, "contributions": random_models.save_siglip}[layout]
    name = f"{save(tmp_path / 'model')}{'#mean' if layout == 'mean' else ''}"
    model = ra.load_model(name, dtype="float64")
    data = ra.load_data(random_models.save_two_colors(tmp_path / "colors", n=11))
    store = ra.extract(model, data, tmp_path / "store", dtype="float64")
    assert store.maps.layout == layout
    split = store.split("train")
    found = measure_geometry(split, subsamples=4)
    coordinates = split.coordinates()
    for unit, one in zip(store.units, found.units, strict=True):
        values = store.maps.contribution(coordinates, unit)
        assert one.two_nn == pytest.approx(two_nn_twin.two_nn(values.tolist(), 0.9), rel=1e-6)
        variance = PCA(svd_solver="full").fit(values.numpy()).explained_variance_
        share = np.cumsum(variance) / variance.sum()
        assert one.linear_dimension == int((share < 0.99).sum()) + 1
        assert one.participation_ratio == pytest.approx(variance.sum() ** 2 / (variance**2).sum(), rel=1e-6)
        isometry = Isometry.of(store.maps, unit, coordinates.of(unit)[0])
        assert isometry.size == (
            model.dim if layout == "contributions" else min(model.dim, coordinates.of(unit).shape[1])
        )
    if layout == "contributions":
        # the MLP of the pooling belongs to no layer
        assert found.unit("pool.mlp").layer is None
        assert len(found.profile("two_nn", "mlp").layers) == store.units.n_layers


def test_near_duplicates_are_warned_of_once_for_all_units():
    maps, n = make_maps(0), 150
    base, noise = make_coordinates(n, 1, offset=0.4), make_coordinates(n, 2)
    copies = {name: tensor + 1e-7 * noise.tensors()[name] for name, tensor in base.tensors().items()}
    both = consistent(maps, Coordinates.cat([base, Coordinates.of_tensors(copies)[:30]]))
    store = store_of(maps, {"train": (torch.arange(len(both)) % 3, both), "val": (torch.arange(n) % 3, base)})
    with pytest.warns(UserWarning, match="not to be relied on") as told:
        found = measure_geometry(store, subsamples=0)
    (sentence,) = [str(one.message) for one in told]
    everything = [*found.units, found.output]
    assert f"N of {len(everything)} of {len(everything)} units is not to be relied on ('embedding', " in sentence
    assert "up to 33.3 % of the points nearly coincide" in sentence
    assert all(one.doubtful and one.near_duplicates == pytest.approx(60 / 180) for one in everything)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = measure_geometry(store, split="val", subsamples=0)
    assert not any(one.doubtful for one in clean.units)
