"""Order, labels and look-up of units."""

from __future__ import annotations

import pytest

import residualign as ra
from residualign.errors import BadInputError
from residualign.units import Unit, Units


def test_order_is_embedding_mlps_heads_layer_major() -> None:
    units = Units(n_layers=2, n_heads=3)
    assert units.labels == (
        "embedding", "L0.mlp", "L1.mlp", "L0.H0", "L0.H1", "L0.H2", "L1.H0", "L1.H1", "L1.H2",
    )  # fmt: skip
    assert units.n_groups == 5


def test_look_up_is_a_round_trip() -> None:
    units = Units(n_layers=5, n_heads=7)
    for i, unit in enumerate(units):
        assert units.index(unit) == units.index(unit.label) == i
        assert units.get(unit.label) == unit
        assert unit in units
        assert unit.label in units
    assert [unit.label for unit in units.of_kind("mlp")] == [f"L{i}.mlp" for i in range(5)]


@pytest.mark.parametrize("label", ["L5.H0", "L0.H7", "L0", "", "mlp", "L-1.H0"])
def test_an_unknown_label_is_named(label: str) -> None:
    units = Units(n_layers=5, n_heads=7)
    assert label not in units
    with pytest.raises(ra.BadInputError, match="no unit"):
        units.index(label)


def test_equality_is_by_shape() -> None:
    assert Units(2, 3) == Units(2, 3)
    assert Units(2, 3) != Units(3, 2)
    assert hash(Units(2, 3)) == hash(Units(2, 3))


def test_a_label_read_again_is_the_same_unit() -> None:
    for unit in Units(n_layers=13, n_heads=5, pool_mlp=True):
        assert Unit.parse(unit.label) == unit
    for label in ("L3", "L3.H", "L03.H1", "l3.H1", "L3.H1 ", "L3.H-1", "mlp", "", "L\u0663.H1"):
        with pytest.raises(BadInputError, match="is not the label of a unit"):
            Unit.parse(label)
