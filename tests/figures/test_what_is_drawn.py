"""What the figures say: which numbers are where, on which axis, with which label."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from residualign.figures._figure import Figure
from residualign.figures._style import ACCENT, NARROW, SECOND, styled
from residualign.figures.explain import explain_figures
from residualign.figures.fitting import lambda_figures, sweep_figures
from residualign.figures.geometry import geometry_figures
from residualign.figures.report import map_figures, report_figures
from residualign.figures.select import select_figures
from residualign.figures.similarity import similarity_figures
from residualign.figures.units import cumulative_variance, head_map
from residualign.figures.where import where_figures

Rows = list[dict[str, Any]]
HEADS: Rows = [
    {"label": f"L{layer}.H{head}", "kind": "head", "layer": layer, "head": head, "x": layer + head / 10}
    for layer, head in product(range(3), range(2))
]


def drawn(figure: Figure, narrow: bool = False) -> Any:
    draw = figure.narrow if narrow else figure.draw
    assert draw is not None
    with styled():
        return draw()


def lines(axes: Any) -> dict[str, list[float]]:
    """The heights of every line by its label."""
    return {line.get_label(): [float(y) for y in line.get_ydata()] for line in axes.lines}


def cells(axes: Any) -> Any:
    return np.asarray(axes.images[0].get_array())


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]


def test_a_map_of_heads_has_layers_across() -> None:
    axes = drawn(head_map(HEADS, "x", label="told")).axes
    assert (axes[0].get_xlabel(), axes[0].get_ylabel(), axes[1].get_ylabel()) == ("layer", "head", "told")
    np.testing.assert_array_equal(cells(axes[0]), [[0, 1, 2], [0.1, 1.1, 2.1]])
    assert {text.get_position(): text.get_text() for text in axes[0].texts}[2, 1] == "2.1"


def test_the_share_of_the_first_component_is_at_one() -> None:
    (axes,) = drawn(cumulative_variance([{"layer": 0, "shares": [0.5, 0.8, 0.95]}], "t")).axes
    (line, level) = axes.lines
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert (level.get_label(), level.get_ydata()[0]) == ("90 %", 0.9)


def test_profiles_of_geometry_are_told_apart() -> None:
    quantities = ("linear_dimension", "two_nn", "ratio", "evr_first")
    profiles = [
        {
            "kind": kind,
            "quantity": name,
            "layer": layer,
            "mean": mean,
            "mean_low": mean - 0.01,
            "mean_high": mean + 0.02,
        }
        for (i, name), layer, (kind, more) in product(enumerate(quantities), range(3), (("head", 0.0), ("mlp", 0.5)))
        for mean in [0.1 * i + 0.01 * layer + more]
    ]
    heads = [head | dict.fromkeys(quantities, 0.3) for head in HEADS]
    figure = geometry_figures({"geometry_units": heads, "geometry_profiles": profiles}, "t", 0.9)["geometry_profiles"]
    panels = drawn(figure).axes
    assert [axes.get_title("left") for axes in panels] == [
        "Linear dimension L", "Intrinsic dimension N", "L / N", "First component"
    ]  # fmt: skip
    assert panels[0].get_ylabel() == "components for 0.9 of variance"
    for i, axes in enumerate(panels):
        found = lines(axes)
        assert found["heads, mean of a layer"] == pytest.approx([0.1 * i, 0.1 * i + 0.01, 0.1 * i + 0.02])
        assert found["MLP"] == pytest.approx([0.1 * i + 0.5, 0.1 * i + 0.51, 0.1 * i + 0.52])
        band = axes.collections[1].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((0.1 * i - 0.01, 0.1 * i + 0.04))
    assert panels[3].yaxis.get_major_formatter()(0.25).endswith("%")
    phone = drawn(figure, narrow=True)
    assert phone.get_figwidth() == NARROW
    assert len({axes.get_position().x0 for axes in phone.axes}) == 1


def similarity_rows() -> dict[str, Rows]:
    kinds = [head | {"kind": "mlp", "head": None} for head in HEADS[::2]]
    numbers = {
        ("b", "weighted"): 0.9, ("b", "unweighted"): 0.7, ("c", "weighted"): 0.5, ("c", "unweighted"): 0.3
    }  # fmt: skip
    rows = [
        {"first": "a", "second": second, **unit}
        | {name: numbers[second, name] - (unit["kind"] == "mlp") / 10 for name in ("weighted", "unweighted")}
        for second, unit in product("bc", [*HEADS, *kinds])
    ]
    pairs = [
        {"first": "a", "second": "b", "row": one["label"], "column": other["label"], "unweighted": None, "cka": None,
         "weighted": one["x"] / 10}
        for one, other in product(HEADS, HEADS[:4])
    ]  # fmt: skip
    return {"units": rows, "layers": [row for row in rows if row["head"] in (None, 0)], "pairs": pairs}


def test_similarities_are_below_their_names() -> None:
    made = similarity_figures(similarity_rows())
    panels = drawn(made["heads"]).axes[:4]
    assert [(axes.get_title("left"), float(cells(axes)[0, 0])) for axes in panels] == [
        ("b\nweighted by variance", 0.9), ("c\nweighted by variance", 0.5),
        ("b\nunweighted", 0.7), ("c\nunweighted", 0.3),
    ]  # fmt: skip
    panels = drawn(made["layers"]).axes
    assert [(axes.get_title("left"), lines(axes)["c"][0]) for axes in panels] == [
        ("heads, mean of a layer, weighted by variance", 0.5), ("heads, mean of a layer, unweighted", 0.3),
        ("MLPs, weighted by variance", 0.4), ("MLPs, unweighted", pytest.approx(0.2)),
    ]  # fmt: skip


def test_pairs_have_the_first_down_and_the_second_across() -> None:
    axes = drawn(similarity_figures(similarity_rows())["pairs"]).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("heads by layer, a", "heads by layer, b")
    expected = [[head["x"] / 10] * 4 for head in HEADS]
    np.testing.assert_allclose(cells(axes), expected)
    assert axes.images[0].norm.vmax == 0.3


def select_rows() -> dict[str, Rows]:
    curves = [
        {"data": data, "score": "S", "ablation": mode, "n_heads": k, "accuracy": high * k / 4, "low": 0.0, "high": 1.0}
        for data, (mode, high), k in product("ab", (("mean", 0.8), ("zero", 0.4)), (1, 2, 3, 4))
    ]
    layers = [
        {"data": data, "kept": kept, "ablation": mode, "layer": layer, "accuracy": accuracy}
        for data, mode, (kept, layer, accuracy) in product(
            "ab", ("mean", "zero"), (("all", None, 0.9), ("without mlp", 0, 0.6), ("from layer", 0, 0.2))
        )
    ]
    same = {"score": "S", "n_heads": 1, "chance": 0.1}
    pairs: Rows = [{"data": "a", "other_data": "a", "jaccard": 1.0}, {"data": "a", "other_data": "b", "jaccard": 0.2}]
    return {"select_curves": curves, "select_layers": layers, "select_overlap": [same | one for one in pairs]}


def test_selections_are_told_apart() -> None:
    made = select_figures(select_rows(), "val", keep_mlps=True)
    panels = drawn(made["select_curves_1"]).axes
    assert [(axes.get_title("left"), lines(axes)["S"][-1]) for axes in panels] == [
        ("the rest at its mean, MLPs and embedding kept", 0.8), ("the rest zero, MLPs and embedding kept", 0.4)
    ]  # fmt: skip
    assert panels[0].get_ylabel() == "accuracy on val images"
    assert lines(panels[0])["95 % of that"][0] == pytest.approx(0.95 * 0.9)
    left, right = drawn(made["select_layers_2"]).axes[:2]
    assert left.get_ylabel() == "accuracy on val images"
    assert (lines(left)["its MLP"], lines(right)["all units from this layer on"]) == ([0.6], [0.2])
    (axes,) = drawn(made["select_overlap"]).axes
    assert lines(axes) == {"S": [0.2], "chance": [0.1]}


@pytest.mark.parametrize(
    ("method", "told"), [("omp", "|weight| in a pursuit"), ("somp", "cosine of text"), ("textspan", "cosine of text")]
)
def test_negative_ends_are_on_the_left(method: str, told: str) -> None:
    at = {"unit": "L0.H0", "component": 0, "explained_variance_ratio": 0.25, "rank": 1, "score": 0.5}
    ends = [{**at, "end": "negative", "text": "cold"}, {**at, "end": "positive", "text": "warm"}]
    figure = drawn(explain_figures({"components": ends, "images": []}, "t", ["L0.H0"], dict, method)["explain"])
    places = {text.get_text().split("  ")[0]: text.get_position()[0] for text in figure.texts}
    assert places["negative end"] < 0.5 < places["positive end"]
    assert places["cold"] < 0.5 < places["warm"]
    assert any(text.startswith(told) for text in places)
    assert "L0.H0, component 0: 25 % of its variance" in places


def test_lambdas_above_one_are_blue() -> None:
    moved = [
        {"label": "L0.H0", "component": 3, "lambda": 2.0, "effect": 0.9},
        {"label": "L1.mlp", "component": None, "lambda": 0.5, "effect": 0.1},
    ]
    for scale_free, name in ((True, "λ / rms"), (False, "λ")):
        bars, cloud = drawn(lambda_figures({"moved": moved}, n_images=7, scale_free=scale_free)["moved"]).axes
        assert cloud.get_ylabel() == name
        assert [label.get_text() for label in bars.get_yticklabels()] == ["L0.H0 · 3", "L1.mlp"]
        assert [to_hex(bar.get_facecolor()) for bar in bars.patches] == [ACCENT, SECOND]
        assert [bar.get_width() for bar in bars.patches] == [0.9, 0.1]


def test_lambdas_put_back_and_learning() -> None:
    put_back = [
        {"order": order, "seed": seed, "put_back": n, "accuracy": accuracy}
        for order, seed, end in (
            ("largest", None, 0.1),
            ("smallest", None, 0.7),
            ("random", 0, 0.4),
            ("random", 1, 0.6),
        )
        for n, accuracy in ((0, 0.9), (10, end))
    ]
    step = {"solver": "lbfgs", "candidate": "c", "step_name": "iteration", "step": 1.0}
    curves = [step | {"train_loss": 0.5, "val_loss": 0.7, "val_accuracy": 0.9}]
    made = lambda_figures({"put_back": put_back, "learning_curves": curves}, n_images=1234)
    (axes,) = drawn(made["put_back"]).axes
    assert {name: heights[-1] for name, heights in lines(axes).items()} == {
        "random order, mean and range of 2": 0.5, "largest effect first": 0.1, "smallest effect first": 0.7,
        "as learned": 0.9,
    }  # fmt: skip
    assert axes.get_ylabel() == "accuracy on 1,234 images"
    loss, accuracy = drawn(made["learning_curves"]).axes
    assert {line.get_linestyle(): line.get_ydata()[0] for line in loss.lines} == {":": 0.5, "-": 0.7}
    assert lines(accuracy) == {"c": [0.9]}
    assert accuracy.get_xlabel() == "L-BFGS iteration"


@pytest.mark.parametrize("tested", [True, False])
def test_a_sweep_marks_what_validation_images_chose(tested: bool) -> None:
    rows = [
        {"components": k, "scaled": "heads", "basis": "b", "start": "ones", "learning_rate": "none", "parameters": 5,
         "val": val, "test": test if tested else None}
        for k, val, test in ((1, 0.6, 0.5), (1, 0.8, 0.3), (2, 0.7, 0.7))
    ]  # fmt: skip
    (axes,) = drawn(sweep_figures(rows, "t", 0.2)["factors"]).axes
    best = [dots.get_offsets()[0][1] for dots in axes.collections if dots.get_label() == "best on validation images"]
    assert best == ([0.3, 0.7] if tested else [0.8, 0.7])
    assert axes.get_ylabel() == ("test accuracy" if tested else "validation accuracy")
    # the accuracy before adapting is that of test images
    assert ("before adapting" in lines(axes)) is tested


def test_confusion_has_true_classes_down_before_and_after() -> None:
    rows = [
        {"true": "cat", "predicted": "dog", "before": 4, "after": 0},
        {"true": "dog", "predicted": "dog", "before": 3, "after": 3},
        {"true": "cat", "predicted": "cat", "before": 0, "after": 4},
    ]
    before, after = drawn(report_figures({"methods": [], "confusion": rows}, 7, ("cat", "dog"))["confusion"]).axes
    for axes, title, expected in (
        (before, "before", {(1, 0): SECOND, (1, 1): ACCENT}), (after, "after", {(1, 1): ACCENT, (0, 0): ACCENT})
    ):  # fmt: skip
        assert (axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()) == (title, "predicted", "true class")
        (squares,) = axes.collections
        # a path that closes returns to its first corner
        places = [tuple(np.round(path.vertices[:4].mean(axis=0)).astype(int)) for path in squares.get_paths()]
        assert dict(zip(places, map(to_hex, squares.get_facecolors()), strict=True)) == expected


def test_bars_of_methods() -> None:
    numbers = {"low": 0.6, "high": 0.9}
    rows = [
        {"method": "zero-shot", "kind": "before", "accuracy": 0.7, "parameters": None, "chosen": False, **numbers},
        {"method": "a", "kind": "method", "accuracy": 0.8, "parameters": 1992, "chosen": True, **numbers},
        {"method": "b", "kind": "method", "accuracy": 0.75, "parameters": 3, "chosen": False, **numbers},
    ]
    figure = report_figures({"methods": rows, "confusion": []}, 1359, ())["accuracy"]
    (axes,) = drawn(figure).axes
    assert [bar.get_alpha() for bar in axes.patches] == [1.0, 1.0, 0.5]
    assert [text.get_text() for text in axes.texts] == [
        "70.0 %",
        "80.0 %  ·  1,992 parameters",
        "75.0 %  ·  3 parameters",
    ]
    assert axes.get_xlabel() == "accuracy on 1,359 test images"
    (axes,) = drawn(figure, narrow=True).axes
    assert [text.get_text() for text in axes.texts] == ["70.0 %", "80.0 %", "75.0 %"]


def test_maps_of_shares_are_in_percent() -> None:
    axes = drawn(map_figures(HEADS, [("x", "Share", "share")])["map_x"]).axes
    assert axes[0].get_title("left") == "Share, %"
    np.testing.assert_allclose(cells(axes[0]), [[0, 100, 200], [10, 110, 210]])


def test_a_phone_gets_its_own_drawing() -> None:
    wide, narrow = (partial(drawn, head_map(HEADS, "x", title)) for title in ("broad", "slim"))
    page = Figure(wide, narrow).to_page("f").partition('<div class="on-narrow">')
    assert ["broad" in page[0], "slim" in page[0], "broad" in page[2], "slim" in page[2]] == [True, False, False, True]


@pytest.mark.parametrize("signed", [True, False])
def test_maps_over_pictures(signed: bool) -> None:
    rows = [
        {"image": f"folder/{image}.png", "target": target, "total": 1.0, "patches": 0.5, "prefix": 0.2,
         "constant": 0.3, "label": "cat", "second": "dog"}
        for image, target in product("ab", ("L0.H1", "L1.H2"))
    ]  # fmt: skip
    rows[3]["total"] = 7.0
    maps = np.zeros((2, 2, 1, 2))
    maps[:, :, 0] = 1.0, 2.0
    figure = drawn(where_figures(rows, "t", [np.zeros((2, 4, 3), np.float32)] * 2, maps, signed=signed)["where"])
    first, _, last = figure.axes[0], figure.axes[4], figure.axes[5]
    assert first.get_xlabel() == "a.png\ncat (not dog)"
    assert figure.axes[2].get_title() == "L1.H2"
    norm = last.images[1].norm
    assert (norm.vmin, norm.vmax) == ((-2.0, 2.0) if signed else (0.0, 2.0))
    assert last.images[1].cmap.name == ("RdBu_r" if signed else "YlOrRd")
    told = "patches +0.5, class and other tokens +0.2\nconstant +0.3: in all +7" if signed else "whole head: 7"
    assert last.get_xlabel() == told
    assert ("part along it" if signed else "length of part") in words(figure)


@pytest.mark.parametrize("narrow", [False, True])
def test_an_axis_of_accuracies_ends_at_zero_and_one_hundred_percent(narrow: bool) -> None:
    step = {"solver": "lbfgs", "candidate": "", "step_name": "iteration", "train_loss": 0.1, "val_loss": 0.1}
    curves = [{**step, "step": float(k), "val_accuracy": 1.0, "seconds": 0.1} for k in range(1, 4)]
    put_back = [{"order": "largest", "seed": None, "put_back": count, "accuracy": 1.0} for count in range(3)]
    made = lambda_figures({"put_back": put_back, "learning_curves": curves}, n_images=12)
    for axes in (drawn(made["put_back"], narrow).axes[0], drawn(made["learning_curves"], narrow).axes[1]):
        low, high = axes.get_ylim()
        assert 0.0 <= low < high == 1.0
        assert axes.get_xlim()[1] == 1.0 or axes.get_xlabel() == "L-BFGS iteration"
        assert not any(line.get_clip_on() for line in axes.lines)
