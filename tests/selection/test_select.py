"""Selections: budgets, overlap, the study, and adapters that predict what masked sums predict."""

from __future__ import annotations

import itertools

import pytest
import torch

import residualign as ra
from residualign.adapter.adapter import load_adapter
from residualign.adapter.fold import fold
from residualign.decomposition.contributions import Contributions
from residualign.errors import BadInputError
from residualign.fitting.coefficients import adapted_output
from residualign.fitting.methods import get_method
from residualign.selection.ablation import unit_means
from residualign.selection.result import SelectionCurve, expected_jaccard, jaccard, overlaps
from residualign.selection.scores import budgets, parse_budget
from residualign.selection.select import best_selection, scaling_of_selection, select
from residualign.selection.study import N_RANDOM, selection_subject, study_selection
from tests.fitting.standin import SIZES as STANDIN_SIZES
from tests.fitting.standin import make_spectra, make_store
from tests.random_models import save_clip, save_two_colors
from tests.selection.towers import LAYOUTS, store_of


@pytest.fixture(scope="module", params=LAYOUTS)
def store(request, tmp_path_factory):
    return store_of(request.param, tmp_path_factory.mktemp("models"))


def one_selection(store, spectra=None, *, score="S", mode="mean", classifier=None, **settings):
    """The selection by one score with one ablation."""
    return best_selection(selection_subject(store, spectra, classifier), (score,), (mode,), **settings)


def masked_sum(store, selection, split="test"):
    """The sum of kept contributions, and of the training means of the others."""
    coordinates = store.split(split).coordinates()
    contributions = Contributions.of(coordinates, store.maps)
    gone = [unit for unit in store.maps.units if unit.label not in selection.kept]
    return contributions.ablate(
        gone, selection.ablation, unit_means(store.split("train").coordinates(), store.maps)
    ).sum()


@pytest.mark.parametrize("mode", ["zero", "mean"])
@pytest.mark.parametrize("keep_mlps", [False, True])
def test_a_selection_is_its_ablated_sum(store, mode, keep_mlps):
    selection = one_selection(store, score="cosine", budget=2, mode=mode, keep_mlps=keep_mlps)
    assert len(selection.heads) == 2
    assert len(selection.kept) == 2 + (len(store.maps.units) - len(store.maps.units.of_kind("head"))) * keep_mlps
    scaling, coordinates = scaling_of_selection(selection), store.split("test").coordinates()
    ones, expected = torch.ones(len(selection.kept), dtype=torch.float64), masked_sum(store, selection)
    for adapted in (
        adapted_output(coordinates, store.maps, scaling, ones),
        fold(store.maps, scaling, ones)(coordinates),
    ):
        torch.testing.assert_close(adapted, expected, rtol=0, atol=1e-12 * max(1.0, float(expected.abs().max())))
    predicted = (expected @ store.text_vectors.T).argmax(dim=-1)
    accuracy = (predicted == store.split("test").labels).double().mean().item()
    assert selection.accuracy["adapted"] == pytest.approx(accuracy)
    on_val = (masked_sum(store, selection, "val") @ store.text_vectors.T).argmax(dim=-1)
    assert selection.accuracy["val"] == pytest.approx((on_val == store.split("val").labels).double().mean().item())
    own = (coordinates.output @ store.text_vectors.T).argmax(dim=-1)
    assert selection.accuracy["zero_shot"] == pytest.approx((own == store.split("test").labels).double().mean().item())


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_its_adapter_is_saved_and_used_like_any_other(store, mode, tmp_path):
    selection = one_selection(store, score="S", budget="50%", mode=mode)
    adapter = selection.to_adapter()
    assert (adapter.method, adapter.parameters, adapter.epochs) == ("select", 0, 0)
    assert {label: part.tolist() for label, part in adapter.lambdas.items()} == {label: [1] for label in selection.kept}
    coordinates, expected = store.split("test").coordinates(), masked_sum(store, selection)
    # means are shipped in float32, contributions are exact
    tolerance = 1e-12 if mode == "zero" else 1e-6
    torch.testing.assert_close(adapter.embed_coordinates(coordinates), expected, rtol=0, atol=tolerance)
    adapter.save(tmp_path)
    again = load_adapter(tmp_path)
    again.attach_store(store)
    assert torch.equal(again.embed_coordinates(coordinates), adapter.embed_coordinates(coordinates))
    assert again.settings["heads"] == list(selection.heads)
    card = (tmp_path / "README.md").read_text()
    assert f"Nothing was learned: {len(selection.heads)} attention heads are kept as they are, every other unit" in card
    beside = one_selection(store, budget=2, mode=mode, keep_mlps=True).to_adapter()
    beside.save(tmp_path)
    assert "2 attention heads are kept as they are, every other head" in (tmp_path / "README.md").read_text()


def test_validation_chooses_the_fewest_of_the_best(store):
    chosen = one_selection(store, score="cosine")
    n_heads = len(store.maps.units.of_kind("head"))
    all_counts = [one_selection(store, score="cosine", budget=k).accuracy["val"] for k in range(1, n_heads + 1)]
    assert len(chosen.heads) == all_counts.index(max(all_counts)) + 1
    assert chosen.budget is None


def test_of_equally_good_numbers_the_smallest_is_taken():
    """Classes so far apart that few heads tell them without an error."""
    store = make_store(separation=6.0, text=True)
    chosen = one_selection(store, score="S", keep_mlps=True)
    counts = [one_selection(store, score="S", budget=k, keep_mlps=True).accuracy["val"] for k in range(1, 7)]
    assert counts.count(max(counts)) > 1
    assert len(chosen.heads) == counts.index(max(counts)) + 1


def test_means_come_from_the_spectra_that_are_given():
    store = make_store(text=True)
    spectra = make_spectra(store.maps)
    selection = one_selection(store, spectra, budget=1)
    gone = [label for label in store.maps.units.labels if label not in selection.kept]
    torch.testing.assert_close(selection.rest_mean, sum(spectra[label].mean for label in gone))
    assert selection.source == spectra.source
    assert one_selection(store, budget=1).source == "training split"


def test_class_means_serve_as_class_vectors():
    store = make_store()
    selection = one_selection(store, budget="100%", keep_mlps=True)
    assert selection.classifier.kind == "means"
    assert selection.accuracy["adapted"] == selection.accuracy["zero_shot"]
    assert (selection.n_train, selection.n_val, selection.n_test) == tuple(STANDIN_SIZES.values())


def test_a_store_without_test_images_is_selected_on():
    store = make_store(text=True, sizes=STANDIN_SIZES | {"test": 0})
    accuracy = one_selection(store).accuracy
    assert accuracy["adapted"] is accuracy["zero_shot"] is None
    with pytest.raises(BadInputError, match="needs val images"):
        one_selection(make_store(text=True, sizes=STANDIN_SIZES | {"val": 0}))
    with pytest.raises(BadInputError, match="accuracy under ablation needs test images"):
        study_selection(selection_subject(store), name="x")


def test_the_study_agrees_with_single_selections(store):
    study = study_selection(selection_subject(store), name="noise")
    n_heads = len(store.maps.units.of_kind("head"))
    assert study.n_heads == n_heads
    assert len(study.curves) == 2 * (4 + N_RANDOM)
    assert [one.seed for one in study.scores] == [None, None, None, *range(N_RANDOM), None]
    for summary in study.summaries:
        assert summary.n_seeds == (N_RANDOM if summary.score == "R" else 1)
        assert all(low <= mean + 1e-15 and mean <= high + 1e-15 for low, mean, high in _triples(summary))
    for score, mode, count in (("S", "zero", 1), ("UT", "mean", 2), ("U", "mean", n_heads)):
        curve = next(one for one in study.curves if (one.score, one.ablation) == (score, mode))
        selection = one_selection(store, score=score, budget=count, mode=mode)
        assert curve.at(count) == pytest.approx(selection.accuracy["adapted"])
        assert curve.order[:count] == selection.heads
    third = next(one for one in study.curves if one.seed == 3 and one.ablation == "zero")
    assert third.order[:2] == one_selection(store, score="R", budget=2, seed=3).heads
    assert study.accuracy == pytest.approx(one_selection(store, budget=1).accuracy["zero_shot"])


def _triples(summary):
    return zip(summary.low, summary.mean, summary.high, strict=True)


def test_the_fewest_heads_that_reach_an_accuracy():
    study = study_selection(selection_subject(make_store(text=True)), name="noise", scores=["S"], ablations=["zero"])
    (summary,) = study.summaries
    for wanted in (0.0, 0.4, summary.mean[2], 1.01):
        reached = [i + 1 for i, value in enumerate(summary.mean) if value >= wanted]
        assert summary.heads_for(wanted) == (reached[0] if reached else None)


def test_overlaps_of_scores_and_of_stores():
    studies = [
        study_selection(selection_subject(make_store(seed, text=True)), name=f"noise{seed}") for seed in (0, 0, 1)
    ]
    same = overlaps(studies[:1])
    counts = {budget.n_heads for budget in studies[0].budgets if budget.n_heads < 6}
    assert len(same) == 6 * len(counts)
    between = [one for one in overlaps([studies[0], studies[2]]) if one.first[0] != one.second[0]]
    assert {(one.first[1], one.second[1]) for one in between} == {(s, s) for s in ("S", "U", "UT", "cosine")}
    for one in between:
        first, second = (
            next(s for s in study.scores if s.score == one.first[1]).ranked[: one.n_heads]
            for study in (studies[0], studies[2])
        )
        assert one.jaccard == jaccard(first, second)
        assert one.expected == expected_jaccard(6, one.n_heads)


def test_chance_overlap_is_the_mean_over_all_pairs():
    heads = range(6)
    for count in range(1, 7):
        choices = [set(map(str, one)) for one in itertools.combinations(heads, count)]
        total = sum(jaccard(a, b) for a in choices for b in choices)
        assert expected_jaccard(6, count) == pytest.approx(total / len(choices) ** 2)


@pytest.mark.parametrize(
    ("budget", "count"),
    [("1", 1), (3, 3), ("1%", 2), ("5%", 7), ("10%", 14), ("25%", 36), ("100%", 144), ("0.5 %", 2), ("29%", 41)],
)
def test_budgets(budget, count):
    assert parse_budget(budget, 144).n_heads == count


def test_shares_are_not_lost_to_rounding_and_small_models_have_heads_enough():
    # 32.3 * 1000 / 100 is a little below 323 in floating point
    assert parse_budget("32.3%", 1000).n_heads == 323
    assert [budget.n_heads for budget in budgets(6)] == [1, 2, 2, 2, 2, 3, 4, 6]
    assert parse_budget("5%", 1).n_heads == 1


@pytest.mark.parametrize("budget", ["0", 0, 145, "0%", "101%", "half", "-1", "1.5", ""])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(BadInputError, match="budget is"):
        parse_budget(budget, 144)


def test_fit_points_to_the_command():
    with pytest.raises(BadInputError, match="`residualign select` ranks heads"):
        get_method("select")


def test_the_public_function_chooses_and_studies(store):
    found = select(store, scores=("S", "cosine"), ablations=("zero",))
    best = best_selection(selection_subject(store), ("S", "cosine"), ("zero",))
    assert (found.heads, found.score, found.accuracy) == (best.heads, best.score, best.accuracy)
    assert found.study == study_selection(
        selection_subject(store), name="noise", scores=("S", "cosine"), ablations=("zero",)
    )
    assert [one.score for one in found.curves] == ["S", "cosine"]
    with pytest.raises(BadInputError, match="got images of one split"):
        select(store.split("val"))


def test_a_selection_outlives_the_temporary_store_of_a_model_and_data(tmp_path):
    model = ra.load_model(save_clip(tmp_path / "clip"))
    data = ra.load_data(save_two_colors(tmp_path / "data", n=11))
    found = ra.select(model, data, scores=("S",), ablations=("mean",), budget=2, classifier="means")
    images = list(data.test.images())
    adapter = found.to_adapter()
    adapter.save(tmp_path / "adapter")
    assert adapter.predict(images) == ra.load_adapter(tmp_path / "adapter").predict(images)


def test_a_curve_says_what_became_of_the_rest():
    def shown(ablation, *accuracy):
        heads = tuple(f"L0.H{i}" for i in range(len(accuracy)))
        return repr(SelectionCurve("S", None, ablation, heads, accuracy))

    assert shown("zero", 0.5) == "SelectionCurve(S, the rest zero: 50.0 % with the only head)"
    assert shown("mean", 0.2, 0.5) == "SelectionCurve(S, the rest at its mean: 50.0 % with all 2 heads)"
