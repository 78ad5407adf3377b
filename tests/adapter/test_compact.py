"""A head's components in the few coordinates of its own map: exact, well conditioned, and never lossy unawares."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from residualign.adapter.compact import CompactScaling, CompactUnit, orthonormal_rows
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, ScaledUnit, Scaling
from tests.spectrum.random_tower import DIM, HEAD_DIM, make_maps

LABEL = "L1.H2"


def _components(weight, count, seed=1):
    """Orthonormal vectors in the row space of a map."""
    g = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, weight.shape[0], generator=g, dtype=torch.float64) @ weight
    return torch.linalg.qr(mixed.T).Q.T


def _with_head(maps, weight):
    heads = maps.heads.clone()
    heads[1, 2] = weight
    return replace(maps, heads=heads)


def test_orthonormal_rows_project_on_the_row_space():
    weight = make_maps().heads[1, 2]
    rows = orthonormal_rows(weight)
    torch.testing.assert_close(rows @ rows.T, torch.eye(HEAD_DIM + 2, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(weight @ rows.T @ rows, weight, rtol=1e-12, atol=1e-12)


def test_rows_that_are_zero_or_repeated_lower_the_rank_and_nothing_else():
    weight = make_maps().heads[1, 2].clone()
    weight[-2] = 0.0
    weight[0] = 3 * weight[1]
    rows = orthonormal_rows(weight)
    assert torch.linalg.matrix_rank(rows) == HEAD_DIM
    assert not rows[-2].any()
    torch.testing.assert_close(weight @ rows.T @ rows, weight, rtol=1e-10, atol=1e-10)
    # a map that a second machine knows to float32 only has the same rows
    torch.testing.assert_close(orthonormal_rows(weight.float()), rows, rtol=0, atol=1e-5)


def test_row_lengths_do_not_matter():
    weight = make_maps().heads[1, 2]
    lengths = torch.logspace(-3, 3, len(weight), dtype=torch.float64)
    torch.testing.assert_close(
        orthonormal_rows(lengths[:, None] * weight), orthonormal_rows(weight), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.float16, 1e-3)])
@pytest.mark.parametrize("spread", [0.0, 4.0])
def test_components_come_back_whatever_the_condition_of_the_map(dtype, tolerance, spread):
    weight = make_maps().heads[1, 2]
    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    weight = left @ torch.diag(torch.logspace(0, -spread / 2, len(weight), dtype=torch.float64)) @ right
    maps = _with_head(make_maps(), weight)
    components = _components(weight, 5)
    unit = CompactUnit.of(ScaledUnit(LABEL, torch.zeros(DIM, dtype=torch.float64), components), maps, dtype)
    assert unit.in_rows
    assert unit.components.dtype == dtype
    back = unit.expand(maps).components
    assert (back - components).norm(dim=1).max() < tolerance
    torch.testing.assert_close(back.norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_component_outside_the_row_space_is_stored_whole():
    maps = make_maps()
    rows = orthonormal_rows(maps.heads[1, 2])
    outside = torch.linalg.svd(rows, full_matrices=True).Vh[-1:]
    unit = CompactUnit.of(ScaledUnit(LABEL, torch.zeros(DIM, dtype=torch.float64), outside), maps, torch.float32)
    assert not unit.in_rows
    torch.testing.assert_close(unit.expand(maps).components, outside, rtol=0, atol=1e-6)


def test_whole_units_and_the_output_need_no_maps_of_their_own():
    maps = make_maps()
    zero = torch.zeros(DIM, dtype=torch.float64)
    whole = CompactUnit.of(ScaledUnit(LABEL, zero, None), maps, torch.float16)
    assert (whole.mean, whole.components, whole.n_lambdas) == (None, None, 1)
    assert whole.expand(maps).components is None
    output = CompactUnit.of(ScaledUnit(OUTPUT, zero, torch.eye(DIM, dtype=torch.float64)), maps, torch.float16)
    assert not output.in_rows
    assert torch.equal(output.expand(maps).components, torch.eye(DIM, dtype=torch.float64))


def test_another_towers_maps_are_refused():
    maps = make_maps()
    zero = torch.zeros(DIM, dtype=torch.float64)
    unit = ScaledUnit(LABEL, zero, _components(maps.heads[1, 2], 3))
    compact = CompactScaling.of(Scaling((unit,), "keep", "keep", zero), maps)
    with pytest.raises(BadInputError, match=r"'L1\.H2' have 7 coordinates, those of this tower 9"):
        compact.expand(make_maps(head_dim=7))
    with pytest.raises(BadInputError, match=r"no unit 'L1\.H2'"):
        compact.expand(make_maps(layers=1))
