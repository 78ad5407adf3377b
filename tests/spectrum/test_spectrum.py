"""Components from moments are those of a full SVD of the explicit contributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.spectrum import Moments, Spectra, Spectrum, truncate
from tests.reference.pca_twin import contributions
from tests.reference.pca_twin import pca as plain_pca
from tests.spectrum.random_tower import DIM, HEAD_DIM, WIDTH, make_coordinates, make_maps

N = 61


def spectra_of(coordinates, maps, **kwargs):
    return Moments.empty(maps).update(coordinates).spectra(maps, source="random numbers", **kwargs)


def uneven(coordinates):
    """Variances that fall by orders of magnitude, and coordinates that are correlated, as in real towers."""
    heads = coordinates.heads * torch.logspace(0, -3, coordinates.heads.shape[-1], dtype=torch.float64)
    heads[..., 1] += 0.7 * heads[..., 0] + 0.1 * coordinates.inverse_std[:, None, None]
    mlps = coordinates.mlps * torch.logspace(0, -4, coordinates.mlps.shape[-1], dtype=torch.float64)
    return Coordinates(heads, mlps, coordinates.inverse_std, coordinates.mean_over_std, coordinates.output)


def assert_same_pca(spectrum, rows):
    """Against the SVD: variances to 1e-8, components to 1e-10 where the gap allows, else the spanned subspace."""
    mean, components, variance, total = plain_pca(rows)
    k = spectrum.n_components
    assert k == (variance > 1e-10 * variance[0]).sum()
    np.testing.assert_allclose(spectrum.mean, mean, atol=1e-12)
    np.testing.assert_allclose(spectrum.explained_variance, variance[:k], rtol=1e-8)
    np.testing.assert_allclose(spectrum.total_variance, total, rtol=1e-12)
    got = spectrum.components.numpy()
    np.testing.assert_allclose(got @ got.T, np.eye(k), atol=1e-12)
    for i in range(k):
        rest = np.delete(variance, i)
        gap = np.abs(rest - variance[i]).min() / variance[0]
        agreement = np.abs(got[i] @ components[i])
        assert 1 - agreement < 1e-10, i
        np.testing.assert_allclose(
            got[i], np.sign(got[i] @ components[i]) * components[i], atol=1e-11 + 1e-14 / gap, err_msg=str(i)
        )
    np.testing.assert_allclose(got.T @ got, components[:k].T @ components[:k], atol=1e-8)


@pytest.mark.parametrize("n", [N, 1009], ids=["few images", "many images"])
@pytest.mark.parametrize("sizes", [{}, {"head_dim": 17, "width": 23, "dim": 11}], ids=["wide output", "narrow output"])
def test_equals_a_full_svd_of_the_contributions(n, sizes):
    maps, coordinates = make_maps(**sizes), uneven(make_coordinates(n, **sizes))
    spectra = spectra_of(coordinates, maps)
    for label, spectrum in spectra.items():
        assert_same_pca(spectrum, contributions(coordinates, maps, label))
    assert_same_pca(spectra.output, coordinates.output.numpy())


def test_equals_scikit_learn():
    maps, coordinates = make_maps(), make_coordinates(N)
    spectra = spectra_of(coordinates, maps)
    for label, spectrum in spectra.items():
        oracle = PCA(svd_solver="full").fit(contributions(coordinates, maps, label))
        k = spectrum.n_components
        np.testing.assert_allclose(spectrum.mean, oracle.mean_, atol=1e-12)
        np.testing.assert_allclose(spectrum.explained_variance, oracle.explained_variance_[:k], rtol=1e-10)
        np.testing.assert_allclose(spectrum.explained_variance_ratio, oracle.explained_variance_ratio_[:k], rtol=1e-10)
        signs = np.sign((spectrum.components.numpy() * oracle.components_[:k]).sum(1, keepdims=True))
        np.testing.assert_allclose(spectrum.components, signs * oracle.components_[:k], atol=1e-10)


def test_equal_variances_are_compared_by_their_subspace():
    # heads = +-e_i in turn and B an isometry: every variance of z is the same
    maps = make_maps(dim=17)
    basis = torch.linalg.qr(torch.randn(17, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    maps.heads[...] = basis[: HEAD_DIM + 2]
    coordinates = make_coordinates(2 * HEAD_DIM, dim=17)
    eye = torch.eye(HEAD_DIM, dtype=torch.float64)
    coordinates.heads[...] = torch.cat([eye, -eye])[:, None, None]
    coordinates.inverse_std[...] = 0.3
    coordinates.mean_over_std[...] = -0.1
    spectrum = spectra_of(coordinates, maps)["L1.H2"]
    assert spectrum.n_components == HEAD_DIM
    np.testing.assert_allclose(spectrum.explained_variance, np.full(HEAD_DIM, 2 / (2 * HEAD_DIM - 1)), rtol=1e-12)
    np.testing.assert_allclose(
        spectrum.components.T @ spectrum.components, basis[:HEAD_DIM].T @ basis[:HEAD_DIM], atol=1e-12
    )


def test_a_head_has_head_dim_plus_two_components_and_cutting_at_head_dim_loses_variance():
    spectrum = spectra_of(make_coordinates(N), make_maps())["L0.H1"]
    assert spectrum.n_components == HEAD_DIM + 2
    assert float(spectrum.cumulative_explained_variance_ratio[-1]) == pytest.approx(1, abs=1e-12)
    assert float(spectrum.cumulative_explained_variance_ratio[HEAD_DIM - 1]) < 0.999
    assert spectra_of(make_coordinates(N), make_maps())["L0.mlp"].n_components == WIDTH + 1
    assert spectra_of(make_coordinates(N), make_maps())["embedding"].n_components == 2


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_images_have_at_most_n_minus_one_components(n):
    maps, coordinates = make_maps(), make_coordinates(n)
    spectra = spectra_of(coordinates, maps)
    for label, spectrum in spectra.items():
        assert spectrum.n_components == (min(2, n - 1) if label == "embedding" else n - 1)
        assert_same_pca(spectrum, contributions(coordinates, maps, label))


def test_one_image_has_a_mean_and_no_component():
    maps, coordinates = make_maps(), make_coordinates(1)
    for label, spectrum in spectra_of(coordinates, maps).items():
        assert spectrum.n_components == 0
        assert spectrum.components.shape == (0, DIM)
        assert spectrum.total_variance == 0
        assert spectrum.explained_variance_ratio.shape == (0,)
        np.testing.assert_allclose(spectrum.mean, contributions(coordinates, maps, label)[0], atol=1e-13)


def test_no_image_is_refused():
    with pytest.raises(BadInputError, match="no image"):
        Moments.empty(make_maps()).spectra(make_maps(), source="an empty folder")
    with pytest.raises(BadInputError, match="maps belong to"):
        Moments.empty(make_maps()).update(make_coordinates(3)).spectra(make_maps(layers=3), source="x")


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4 / 3])
@pytest.mark.parametrize("batch", [1, 7, 787])
def test_a_unit_that_never_varies_has_no_component(value, batch):
    maps, coordinates = make_maps(), make_coordinates(787)
    coordinates.heads[:, 1, 2] = value
    coordinates.inverse_std[...] = value / 3
    coordinates.mean_over_std[...] = value / 7
    moments = Moments.empty(maps)
    for start in range(0, 787, batch):
        moments.update(coordinates[start : start + batch])
        if batch == 7:
            moments.flush()
    spectra = moments.spectra(maps, source="x")
    assert spectra["L1.H2"].n_components == 0
    assert spectra["L1.H2"].total_variance == 0
    assert spectra["embedding"].n_components == 0
    assert spectra["L1.H1"].n_components == HEAD_DIM
    assert truncate(spectra["L1.H2"], 0.9).n_components == 0


def test_a_map_of_lower_rank_has_fewer_components():
    maps, coordinates = make_maps(), make_coordinates(N)
    maps.heads[0, 1, 3:] = maps.heads[0, 1, :1] * 2
    maps.mlps[1] = 0
    spectra = spectra_of(coordinates, maps)
    assert spectra["L0.H1"].n_components == 3
    assert spectra["L1.mlp"].n_components == 0
    assert_same_pca(spectra["L0.H1"], contributions(coordinates, maps, "L0.H1"))


def test_contributions_that_cancel_have_no_component():
    maps, coordinates = make_maps(), make_coordinates(N)
    coordinates.inverse_std[...] = 5 * coordinates.mean_over_std
    maps.embedding[1] = -5 * maps.embedding[0]
    assert spectra_of(coordinates, maps)["embedding"].n_components == 0


def test_directions_below_the_cutoff_are_dropped_and_those_above_stay():
    maps, coordinates = make_maps(), make_coordinates(1009)
    coordinates.mlps[:, 0] *= torch.tensor([1, 1, 1, 1, 1, 1e-4, 1e-6], dtype=torch.float64)
    assert spectra_of(coordinates, maps)["L0.mlp"].n_components == WIDTH + 1 - 1


def test_large_offsets_change_nothing_but_the_mean():
    maps, near = make_maps(), make_coordinates(1009)
    far = Coordinates(**{name: tensor + 1e4 for name, tensor in near.tensors().items()})
    for label, spectrum in spectra_of(far, maps).items():
        expected = spectra_of(near, maps)[label]
        np.testing.assert_allclose(spectrum.explained_variance, expected.explained_variance, rtol=1e-8)
        np.testing.assert_allclose(spectrum.components, expected.components, atol=1e-7)


def test_signs_do_not_depend_on_the_order_of_the_images():
    maps, coordinates = make_maps(), uneven(make_coordinates(N))
    expected = spectra_of(coordinates, maps)
    for seed in range(5):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
        got = spectra_of(coordinates[order], maps)
        for label, spectrum in got.items():
            np.testing.assert_allclose(spectrum.components, expected[label].components, atol=1e-7)


def test_the_largest_entry_is_positive_and_ties_go_to_the_first():
    for spectrum in spectra_of(make_coordinates(N), make_maps()).values():
        largest = spectrum.components.abs().argmax(dim=1, keepdim=True)
        assert (spectrum.components.gather(1, largest) > 0).all()
    maps, coordinates = make_maps(), make_coordinates(N)
    maps.embedding[...] = 0
    # the later one is larger by less than rounding of another machine might make it
    maps.embedding[0, 2], maps.embedding[0, 5] = -1, 1 + 1e-12
    (component,) = spectra_of(coordinates, maps)["embedding"].components
    np.testing.assert_allclose(component[[2, 5]], [0.5**0.5, -(0.5**0.5)], rtol=1e-9)


def test_float32_maps_and_coordinates_are_computed_in_float64():
    maps, coordinates = make_maps().to(dtype=torch.float32), make_coordinates(N).to(dtype=torch.float32)
    spectra = spectra_of(coordinates, maps)
    expected = spectra_of(coordinates.to(dtype=torch.float64), maps.to(dtype=torch.float64))
    assert spectra == expected


def spectrum_with(variances):
    k = len(variances)
    variance = torch.tensor(variances, dtype=torch.float64)
    eye = torch.eye(k, dtype=torch.float64)
    return Spectrum(torch.zeros(k, dtype=torch.float64), eye, variance, float(variance.sum()), 101)


@pytest.mark.parametrize(
    ("variances", "threshold", "k"),
    [
        ([4, 3, 2, 1], 0.4, 1),
        ([4, 3, 2, 1], 0.400001, 2),
        ([4, 3, 2, 1], 0.7, 2),
        ([4, 3, 2, 1], 0.9, 3),
        ([4, 3, 2, 1], 0.95, 4),
        ([4, 3, 2, 1], 1.0, 4),
        ([4, 3, 2, 1], 1e-9, 1),
        ([1] * 10, 0.9, 9),
        ([1] * 10, 0.7, 7),
        ([1] * 49, 1.0, 49),
    ],
)
def test_truncate_keeps_the_fewest_that_reach_the_share(variances, threshold, k):
    cut = truncate(spectrum_with(variances), threshold)
    assert cut.n_components == k
    assert cut.total_variance == sum(variances)
    assert truncate(cut, threshold) == cut


def test_truncate_never_falls_back_to_one_component():
    # of 48 equal directions 16 are at hand: their shares end at 1/3, and the share asked for is never reached
    part = spectrum_with([1] * 48)
    part = Spectrum(part.mean, part.components[:16], part.explained_variance[:16], 48.0, 101)
    assert truncate(part, 0.9).n_components == 16


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.0000001, float("nan")])
def test_truncate_refuses_what_is_no_share(threshold):
    with pytest.raises(BadInputError, match="share"):
        truncate(spectrum_with([2, 1]), threshold)


def test_spectra_is_a_mapping_in_unit_order():
    spectra = spectra_of(make_coordinates(N), make_maps())
    assert list(spectra) == list(spectra.units.labels)
    assert spectra["L1.H2"] is spectra[spectra.units.get("L1.H2")] is list(spectra.values())[-1]
    assert "L1.H2" in spectra
    assert "L9.H2" not in spectra
    assert spectra.get("L9.H2") is None
    with pytest.raises(BadInputError, match=r"no unit 'L9\.H2'"):
        spectra["L9.H2"]
    assert spectra.n_samples == N
    assert spectra.output.mean.shape == (DIM,)


def saved(tmp_path, dtype=None):
    spectra = spectra_of(make_coordinates(N), make_maps(), model_fingerprint="f00d")
    spectra.save(tmp_path / "spectra.safetensors", dtype=dtype)
    return spectra, tmp_path / "spectra.safetensors"


def test_round_trip_is_bit_for_bit(tmp_path):
    spectra, path = saved(tmp_path)
    loaded = Spectra.load(path)
    assert loaded == spectra
    assert (loaded.source, loaded.model_fingerprint) == ("random numbers", "f00d")
    assert [p.name for p in tmp_path.iterdir()] == ["spectra.safetensors"]


def test_units_without_components_survive_the_round_trip(tmp_path):
    spectra = spectra_of(make_coordinates(1), make_maps())
    spectra.save(tmp_path / "one.safetensors")
    assert Spectra.load(tmp_path / "one.safetensors") == spectra


def test_a_float32_copy_keeps_the_fingerprint_and_halves_the_file(tmp_path):
    spectra, path = saved(tmp_path)
    whole = path.stat().st_size
    spectra.save(path, dtype=torch.float32)
    loaded = Spectra.load(path)
    assert loaded == spectra.to(dtype=torch.float32)
    assert loaded != spectra
    assert loaded.fingerprint == spectra.fingerprint
    assert path.stat().st_size < 0.8 * whole
    with pytest.raises(BadInputError, match="float32 or float64"):
        spectra.save(path, dtype=torch.float16)


def test_the_fingerprint_names_the_numbers():
    a, b = spectra_of(make_coordinates(N), make_maps()), spectra_of(make_coordinates(N), make_maps())
    assert a.fingerprint == b.fingerprint
    assert len(a.fingerprint) == 64
    assert spectra_of(make_coordinates(N, seed=2), make_maps()).fingerprint != a.fingerprint
    assert spectra_of(make_coordinates(N), make_maps(seed=2)).fingerprint != a.fingerprint


def test_equal_spectra_give_equal_bytes(tmp_path):
    _, path = saved(tmp_path)
    first = path.read_bytes()
    _, path = saved(tmp_path)
    assert path.read_bytes() == first


def test_truncated_changed_and_foreign_files_are_refused_by_name(tmp_path):
    _, path = saved(tmp_path)
    whole = path.read_bytes()
    flipped = []
    for position in (len(whole) // 2, -3, -8):
        changed = bytearray(whole)
        changed[position] ^= 1
        flipped.append(bytes(changed))
    for damaged in (b"", b"not a tensor file at all", whole[:-1], whole[:500], *flipped):
        path.write_bytes(damaged)
        with pytest.raises(BadInputError, match=r"spectra\.safetensors"):
            Spectra.load(path)
    Moments.empty(make_maps()).save(path)
    with pytest.raises(BadInputError, match="not a residualign spectra file"):
        Spectra.load(path)
    with pytest.raises(BadInputError, match="no such file"):
        Spectra.load(tmp_path)
