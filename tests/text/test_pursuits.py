"""SOMP, OMP and TextSpan against slow twins and scikit-learn, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import OrthogonalMatchingPursuit

from residualign.errors import BadInputError
from residualign.text import pursuit as _greedy
from residualign.text.dictionary import TextDictionary, from_vectors
from residualign.text.pursuit import Samples, omp, omp_each, somp, text_span
from tests.reference import somp_twin
from tests.text.make import ATOMS, DIM, IMAGES, RANK, make_dictionary, make_rows, orthonormal_dictionary

SEEDS = st.integers(0, 10_000)


@given(seed=SEEDS, count=st.integers(1, RANK - 1))
def test_somp_is_its_plain_twin(seed: int, count: int) -> None:
    dictionary, rows = make_dictionary(seed), make_rows(seed + 1)
    ours = somp(rows, dictionary, count)
    indices, norms, explained = somp_twin.somp(rows.numpy(), dictionary.atoms.numpy(), count)
    assert list(ours.indices) == indices
    assert ours.texts == tuple(f"text {i}" for i in indices)
    np.testing.assert_allclose(ours.weights, norms, rtol=1e-9)
    np.testing.assert_allclose(ours.explained_variance_ratio, explained, rtol=1e-10, atol=1e-13)


@given(seed=SEEDS, rank=st.integers(3, RANK + 1))
def test_text_span_is_its_plain_twin(seed: int, rank: int) -> None:
    dictionary, rows = make_dictionary(seed), make_rows(seed + 1)
    count = min(rank, RANK) - 1
    ours = text_span(rows, dictionary, count, rank=rank)
    indices, norms, explained = somp_twin.text_span(rows.numpy(), dictionary.atoms.numpy(), count, rank)
    assert list(ours.indices) == indices
    np.testing.assert_allclose(ours.weights, norms, rtol=1e-8)
    np.testing.assert_allclose(ours.explained_variance_ratio, explained, rtol=1e-9, atol=1e-12)


@given(seed=SEEDS, count=st.integers(1, 9))
def test_omp_is_scikit_learns_signs_and_all(seed: int, count: int) -> None:
    dictionary = make_dictionary(seed)
    direction = torch.randn(DIM, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    ours = omp(direction, dictionary, count)
    oracle = OrthogonalMatchingPursuit(n_nonzero_coefs=count, fit_intercept=False)
    oracle.fit(dictionary.atoms.numpy().T, direction.numpy())
    expected = np.flatnonzero(oracle.coef_)
    assert sorted(ours.indices) == expected.tolist()
    weights = dict(zip(ours.indices, ours.weights, strict=True))
    np.testing.assert_allclose([weights[i] for i in expected], oracle.coef_[expected], rtol=1e-9)
    left = direction.numpy() - oracle.predict(dictionary.atoms.numpy().T)
    share = 1 - (left**2).sum() / (direction.numpy() ** 2).sum()
    assert ours.explained_variance_ratio[-1] == pytest.approx(share, rel=1e-10)


def test_several_directions_are_pursued_each_by_itself() -> None:
    dictionary, directions = make_dictionary(), make_rows()[:7]
    directions[3] = 0.0
    directions[5] = 2.5 * dictionary.atoms[13]
    together = omp_each(directions, dictionary, 5)
    assert [len(chosen) for chosen in together] == [5, 5, 5, 0, 5, 1, 5]
    for direction, chosen in zip(directions, together, strict=True):
        alone = omp(direction, dictionary, 5)
        assert chosen.indices == alone.indices
        np.testing.assert_allclose(chosen.weights, alone.weights, rtol=1e-12)
    assert together[5].texts == ("text 13",)
    assert together[5].weights == pytest.approx((2.5,))


@given(seed=SEEDS)
def test_orthonormal_texts_that_made_the_data_are_found(seed: int) -> None:
    dictionary = orthonormal_dictionary(seed)
    generator = torch.Generator().manual_seed(seed)
    made_of = torch.randperm(DIM, generator=generator)[:5]
    scale = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    drawn = torch.randn(IMAGES, 5, generator=generator, dtype=torch.float64)
    amounts = torch.linalg.qr(drawn - drawn.mean(dim=0))[0] * scale
    rows = amounts @ dictionary.atoms[made_of] + 3.0
    for chosen in (somp(rows, dictionary, DIM), text_span(rows, dictionary, DIM)):
        # nothing is left after them, so nothing more is chosen
        assert set(chosen.indices) == set(made_of.tolist())
        assert chosen.explained_variance_ratio[-1] == pytest.approx(1, abs=1e-12)
    exact = somp(rows, dictionary, 5)
    weights = dict(zip(exact.indices, exact.weights, strict=True))
    np.testing.assert_allclose([weights[i] for i in made_of.tolist()], scale.numpy(), rtol=1e-10)
    spanned = text_span(rows, dictionary, 5)
    assert spanned.indices == tuple(made_of.tolist())


@given(seed=SEEDS)
def test_a_units_own_coordinates_give_what_its_contributions_give(seed: int) -> None:
    """Although most of every text lies outside the unit's span, and the joint fit knows that part."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(IMAGES, 7, generator=generator, dtype=torch.float64) + 0.5
    weight = torch.randn(7, DIM, generator=generator, dtype=torch.float64)
    bias = torch.randn(DIM, generator=generator, dtype=torch.float64)
    compact, plain = Samples.of(rows, weight, bias), Samples.of(rows @ weight + bias)
    assert compact.factor.shape == (7, DIM)
    torch.testing.assert_close(compact.mean, plain.mean, rtol=0, atol=1e-13)
    dictionary = make_dictionary(seed + 1)
    for method in (somp, text_span):
        a, b = (method(samples, dictionary, 6) for samples in (compact, plain))
        assert a.indices == b.indices
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-8)
        np.testing.assert_allclose(a.explained_variance_ratio, b.explained_variance_ratio, rtol=1e-9)


@given(seed=SEEDS)
def test_the_bound_rules_out_no_text_that_would_be_chosen(seed: int) -> None:
    samples, dictionary = Samples.of(make_rows(seed, images=7)), make_dictionary(seed)
    images = dictionary.atoms @ samples.factor.mT
    sums = (samples.scores @ images.mT).abs().sum(dim=0)
    # sizes of blocks that leave most texts to the bound
    first, most = _greedy._FIRST, _greedy._MOST
    _greedy._FIRST, _greedy._MOST = 2, 3
    try:
        found = _greedy._largest_sum_of_magnitudes(samples, images, images.norm(dim=1))
    finally:
        _greedy._FIRST, _greedy._MOST = first, most
    assert found == int(sums.argmax())


def test_the_bound_holds_where_all_products_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the sum of magnitudes is the bound itself; of normal products it is a fifth smaller."""
    monkeypatch.setattr(_greedy, "_FIRST", 4)
    flat = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(100)[:, None]
    drawn = torch.randn(200, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scores = torch.linalg.qr(torch.cat([flat, drawn], dim=1))[0]
    images = torch.diag(torch.tensor([0.9, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    samples = Samples(scores, images, torch.zeros(5, dtype=torch.float64))
    assert _greedy._largest_sum_of_magnitudes(samples, images, images.norm(dim=1)) == 0


@pytest.mark.parametrize("method", [somp, text_span])
def test_a_text_that_others_make_up_is_not_chosen_again(method) -> None:
    """Twins, opposites, sums of others, and a text that differs from another by rounding."""
    few = orthonormal_dictionary().atoms[:4]
    near = few[2] + 1e-9 * few[3]
    vectors = torch.cat([few[:3], few[1:2], -few[:1], (few[0] + few[1] + few[2])[None], near[None]])
    dictionary = from_vectors("dependent", list("abcdefg"), vectors)
    rows = torch.randn(IMAGES, 3, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0]) @ few[:3]
    chosen = method(rows, dictionary, 7)
    assert len(chosen) == 3
    assert torch.linalg.matrix_rank(dictionary.atoms[list(chosen.indices)]) == 3
    assert chosen.explained_variance_ratio[-1] == pytest.approx(1, abs=1e-12)
    assert np.isfinite(chosen.weights).all()


def test_omp_does_not_choose_a_text_that_others_make_up() -> None:
    few = orthonormal_dictionary().atoms[:4]
    dictionary = from_vectors("dependent", list("abcd"), torch.stack([few[0], few[1], few[0], few[0] + few[1]]))
    chosen = omp(3 * few[0] - few[1] + 0.5 * few[3], dictionary, 4)
    assert chosen.texts == ("a", "b")
    np.testing.assert_allclose(chosen.weights, (3, -1), rtol=1e-12)
    assert chosen.explained_variance_ratio[-1] == pytest.approx(10 / 10.25)


def test_of_equal_texts_the_first_is_chosen() -> None:
    atoms = make_dictionary().atoms
    dictionary = from_vectors("twice", [str(i) for i in range(2 * ATOMS)], torch.cat([atoms, atoms]))
    for method in (somp, text_span):
        chosen = method(make_rows(), dictionary, 5)
        assert max(chosen.indices) < ATOMS
        assert chosen.indices == method(make_rows(), make_dictionary(), 5).indices


def test_more_texts_than_the_data_have_directions() -> None:
    rows, dictionary = make_rows(rank=3), make_dictionary()
    # what the data span before they are centered is one direction more
    spanned = text_span(rows, dictionary, 9)
    assert len(spanned) == 3 + 1
    assert len(text_span(rows, dictionary, 9, rank=2)) == 2
    assert spanned.explained_variance_ratio[-1] == pytest.approx(1, abs=1e-12)
    # texts outside the span need more than three to fit it, and all of the space in the end
    fitted = somp(rows, dictionary, 2 * ATOMS)
    assert 3 < len(fitted) <= DIM
    assert fitted.explained_variance_ratio[-1] == pytest.approx(1, abs=1e-9)
    assert np.isfinite(fitted.weights).all()


@pytest.mark.parametrize("method", [somp, text_span])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_data_that_never_vary_have_no_words(method, value: float) -> None:
    chosen = method(torch.full((IMAGES, DIM), value, dtype=torch.float64), make_dictionary(), 3)
    assert chosen == type(chosen)((), (), (), ())
    assert len(method(torch.ones(1, DIM), make_dictionary(), 3)) == 0


def test_shares_grow_and_the_scale_of_the_data_changes_only_weights() -> None:
    rows, dictionary = make_rows(), make_dictionary()
    for method in (somp, text_span):
        one, other = (method(scale * rows, dictionary, 9) for scale in (1.0, 1e-7))
        assert one.indices == other.indices
        assert list(one.explained_variance_ratio) == sorted(one.explained_variance_ratio)
        assert one.explained_variance_ratio[-1] <= 1
        np.testing.assert_allclose(np.array(one.weights) * 1e-7, other.weights, rtol=1e-8)


def test_float32_data_choose_the_same_texts() -> None:
    rows, dictionary = make_rows(), make_dictionary()
    assert somp(rows.float(), dictionary, 5).indices == somp(rows, dictionary, 5).indices


def test_bad_arguments_are_refused() -> None:
    dictionary, rows = make_dictionary(), make_rows()
    for method in (somp, text_span):
        with pytest.raises(BadInputError, match="n_texts is at least 1; got 0"):
            method(rows, dictionary, 0)
        with pytest.raises(BadInputError, match=f"samples of 5 dimensions, texts of {DIM}"):
            method(rows[:, :5], dictionary, 3)
        with pytest.raises(BadInputError, match="no samples"):
            method(rows[:0], dictionary, 3)
        with pytest.raises(BadInputError, match="NaN"):
            method(rows / 0, dictionary, 3)
    with pytest.raises(BadInputError, match="rank is at least 1"):
        text_span(rows, dictionary, 3, rank=0)
    with pytest.raises(BadInputError, match="n_texts"):
        omp(rows[0], dictionary, 0)
    with pytest.raises(BadInputError, match="directions of 5"):
        omp(rows[0, :5], dictionary, 2)
    with pytest.raises(BadInputError, match="NaN"):
        omp(rows[0] / 0, dictionary, 2)


def test_rows_in_float32_span_no_more_than_in_float64() -> None:
    """Rounding of float32 is no direction of the rows: texts outside their span stay out of reach."""
    dictionary, rows = make_dictionary(2), make_rows(3)
    exact = text_span(rows, dictionary, RANK, rank=None)
    rounded = text_span(rows.float(), dictionary, RANK, rank=None)
    assert rounded.indices == exact.indices
    np.testing.assert_allclose(rounded.weights, exact.weights, rtol=1e-3)


@pytest.mark.parametrize("size", [1e-200, 1e-310, 1e-120, 1e150, 1e300])
def test_texts_do_not_depend_on_the_size_of_what_they_describe(size: float) -> None:
    dictionary, rows = make_dictionary(4), make_rows(5)
    rows = rows / rows.abs().max()
    # denormal numbers have few digits
    tolerance = 1e-9 if size > 1e-300 else 1e-1
    for pursue in (somp, text_span, lambda rows, *how: omp(rows[0], *how)):
        plain, scaled = pursue(rows, dictionary, 4), pursue(size * rows, dictionary, 4)
        assert scaled.indices == plain.indices
        np.testing.assert_allclose(np.array(scaled.weights) / size, plain.weights, rtol=tolerance)
        np.testing.assert_allclose(
            scaled.explained_variance_ratio, plain.explained_variance_ratio, rtol=min(tolerance, 1e-2)
        )


def test_the_two_relations_that_the_weights_of_text_span_are_said_to_have() -> None:
    dictionary, rows = make_dictionary(6), make_rows(7)
    chosen = text_span(rows, dictionary, 1)
    samples = Samples.of(rows)
    vectors = torch.linalg.svd(rows, full_matrices=False).Vh[: RANK + 1]
    text = (dictionary.atoms[chosen.indices[0]] @ vectors.mT) @ vectors
    length, weight = float(text.norm()), chosen.weights[0]
    assert weight * length == pytest.approx(
        (chosen.explained_variance_ratio[0] * samples.sum_of_squares) ** 0.5, rel=1e-9
    )
    spread = float((rows @ text).std())
    assert weight * length**2 / (IMAGES - 1) ** 0.5 == pytest.approx(spread, rel=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_atoms_that_are_not_finite_are_refused_by_text(value: float) -> None:
    atoms = make_dictionary(0).atoms.clone()
    atoms[7, 3] = value
    texts = tuple(f"text {i}" for i in range(len(atoms)))
    with pytest.raises(BadInputError, match=r"atoms of 1 of \d+ texts hold NaN or infinity \('text 7'\)"):
        TextDictionary("own", texts, ("",) * len(atoms), atoms)
