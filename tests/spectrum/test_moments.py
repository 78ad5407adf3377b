"""Moments are additive: no split, order or merge of the images changes them by more than rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import empirical_covariance

from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError, RunError
from residualign.spectrum import Moments
from tests.spectrum.random_tower import DIM, HEAD_DIM, HEADS, LAYERS, WIDTH, make_coordinates, make_maps

N = 61


def numbers(moments):
    """Every mean and scatter, waiting rows taken in."""
    moments.flush()
    return moments._tensors()


def assert_same(a, b, rtol=1e-12):
    assert a.count == b.count
    for name, expected in numbers(b).items():
        scale = expected.abs().max()
        torch.testing.assert_close(numbers(a)[name], expected, rtol=0, atol=float(rtol * scale))


def of(coordinates):
    return Moments.empty(make_maps()).update(coordinates)


def test_equal_the_empirical_covariance_of_each_unit():
    coordinates = make_coordinates(N, offset=3.0)
    got = numbers(of(coordinates))
    for layer in range(LAYERS):
        for head in range(HEADS):
            y = np.concatenate(
                [
                    coordinates.heads[:, layer, head],
                    coordinates.inverse_std[:, None],
                    coordinates.mean_over_std[:, None],
                ],
                axis=1,
            )
            np.testing.assert_allclose(got["heads.mean"][layer, head], y.mean(0), rtol=1e-13)
            np.testing.assert_allclose(got["heads.scatter"][layer, head] / N, empirical_covariance(y), atol=1e-12)
        y = np.concatenate([coordinates.mlps[:, layer], coordinates.mean_over_std[:, None]], axis=1)
        np.testing.assert_allclose(got["mlps.scatter"][layer] / N, empirical_covariance(y), atol=1e-12)
    np.testing.assert_allclose(got["output.scatter"] / N, empirical_covariance(coordinates.output.numpy()), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), offset=st.sampled_from([0.0, 1e4]))
def test_any_split_order_and_merge_gives_the_same(data, offset):
    coordinates = make_coordinates(N, offset=offset)
    order = torch.tensor(data.draw(st.permutations(range(N))))
    shuffled = coordinates[order]
    cuts = sorted(data.draw(st.lists(st.integers(0, N), max_size=5)))
    parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, N], strict=True)]
    n_machines = data.draw(st.integers(1, 3))
    machines = [Moments.empty(make_maps()) for _ in range(n_machines)]
    for i, part in enumerate(parts):
        machines[i % n_machines].update(part)
        if data.draw(st.booleans()):
            machines[i % n_machines].flush()
    merged = machines[0]
    for machine in machines[1:]:
        merged = merged.merge(machine) if data.draw(st.booleans()) else machine.merge(merged)
    # a mean of 1e4 standard deviations leaves 1e-12 of a standard deviation to rounding
    assert_same(merged, of(coordinates), rtol=1e-13 if offset == 0 else 1e-11)


def test_more_rows_than_the_buffer_holds():
    coordinates = make_coordinates(787)
    pieces = Moments.empty(make_maps())
    for start in range(0, 787, 101):
        pieces.update(coordinates[start : start + 101])
    assert_same(pieces, of(coordinates))
    assert_same(pieces, of(coordinates[400:]).merge(of(coordinates[:400])))


def test_large_means_lose_no_variance():
    far, near = of(make_coordinates(997, offset=1e4)), of(make_coordinates(997))
    for name, scatter in numbers(near).items():
        if name.endswith("scatter"):
            torch.testing.assert_close(numbers(far)[name], scatter, rtol=1e-9, atol=1e-8)


def test_merge_is_commutative_and_leaves_the_other_alone():
    a, b = make_coordinates(31, seed=3), make_coordinates(17, seed=5)
    other = of(b)
    assert_same(of(a).merge(other), of(b).merge(of(a)))
    assert_same(other, of(b), rtol=0)
    assert_same(of(a).merge(Moments.empty(make_maps())), of(a), rtol=0)
    assert_same(Moments.empty(make_maps()).merge(of(a)), of(a), rtol=1e-15)


def test_memory_does_not_grow_with_the_images():
    moments = of(make_coordinates(2))
    before = moments.nbytes
    for seed in range(20):
        moments.update(make_coordinates(97, seed=seed))
    assert moments.nbytes == before
    assert moments.count == 2 + 20 * 97


def test_a_batch_is_copied():
    coordinates = make_coordinates(N)
    moments = of(coordinates)
    coordinates.heads.zero_()
    coordinates.output.zero_()
    assert_same(moments, of(make_coordinates(N)), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_narrow_coordinates_are_summed_in_float64(dtype):
    coordinates = make_coordinates(N).to(dtype=dtype)
    assert_same(of(coordinates), of(coordinates.to(dtype=torch.float64)), rtol=0)


def test_works_across_inference_mode_and_autograd():
    coordinates = make_coordinates(N)
    with torch.inference_mode():
        moments = Moments.empty(make_maps())
        inside = Coordinates(**{k: v.clone() for k, v in coordinates.tensors().items()})
    moments.update(inside)
    with torch.inference_mode():
        moments.update(coordinates)
    moments.update(Coordinates(**{k: v.clone().requires_grad_() for k, v in coordinates.tensors().items()}))
    assert moments.count == 3 * N
    assert not any(tensor.requires_grad for tensor in numbers(moments).values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("field", "index", "where"),
    [
        ("heads", (5, 1, 2, 0), "L1.H2"),
        ("mlps", (5, 1, 3), "L1.mlp"),
        ("inverse_std", (5,), "LayerNorm"),
        ("mean_over_std", (5,), "LayerNorm"),
        ("output", (5, 2), "output"),
    ],
)
def test_what_is_not_a_number_is_refused_by_unit_and_not_taken_in(field, index, where, value):
    moments = of(make_coordinates(11))
    bad = make_coordinates(N)
    getattr(bad, field)[index] = value
    with pytest.raises(BadInputError, match=where):
        moments.update(bad)
    assert_same(moments, of(make_coordinates(11)), rtol=0)


def test_large_but_finite_numbers_are_taken():
    coordinates = make_coordinates(N, offset=60000.0).to(dtype=torch.float16)
    assert of(coordinates).count == N


def test_other_shapes_are_refused():
    with pytest.raises(BadInputError, match=r"take heads of shape \(2, 3, 5\)"):
        of(make_coordinates(3, head_dim=11))
    with pytest.raises(BadInputError, match="take mlps"):
        of(make_coordinates(3, width=11))
    with pytest.raises(BadInputError, match="take output"):
        of(make_coordinates(3, dim=11))
    with pytest.raises(BadInputError, match="other models"):
        of(make_coordinates(3)).merge(Moments.empty(make_maps(dim=11)))


def test_save_and_load_bit_for_bit_then_go_on(tmp_path):
    first, second = make_coordinates(23, seed=3), make_coordinates(29, seed=5)
    moments = of(first)
    moments.save(tmp_path / "part.safetensors")
    loaded = Moments.load(tmp_path / "part.safetensors")
    assert_same(loaded, moments, rtol=0)
    assert loaded.units == moments.units
    assert_same(loaded.update(second), of(Coordinates.cat([first, second])))
    assert [path.name for path in tmp_path.iterdir()] == ["part.safetensors"]


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path):
    path = tmp_path / "part.safetensors"
    of(make_coordinates(5)).save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(BadInputError, match=r"part\.safetensors"):
            Moments.load(path)
    of(make_coordinates(5)).spectra(make_maps(), source="x").save(path)
    with pytest.raises(BadInputError, match="not a residualign moments file"):
        Moments.load(path)
    with pytest.raises(BadInputError, match="no such file"):
        Moments.load(tmp_path / "nothing")


def test_a_failing_disk_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        of(make_coordinates(5)).save(tmp_path / "absent" / "part.safetensors")


def test_shapes_are_those_of_the_units():
    got = {name: tuple(tensor.shape) for name, tensor in numbers(of(make_coordinates(3))).items()}
    assert got["heads.scatter"] == (LAYERS, HEADS, HEAD_DIM + 2, HEAD_DIM + 2)
    assert got["mlps.scatter"] == (LAYERS, WIDTH + 1, WIDTH + 1)
    assert got["embedding.scatter"] == (2, 2)
    assert got["output.scatter"] == (DIM, DIM)
