"""Columns hold what their titles say, and rows are in the order that is promised, on made-up results."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from residualign.cli import classify, decompose, evaluate, lambdas, select, sweep, views, where
from residualign.cli.console import Out
from residualign.cli.explain import _unit

Shown = Callable[[ModuleType, Any], dict[str, list[str]]]


class Made(SimpleNamespace):
    """Anything, with the fields it is given."""


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """The cells of each line that `show` prints, by the first of them, in the order of the lines."""

    def shown(view: ModuleType, outcome: Any) -> dict[str, list[str]]:
        capsys.readouterr()
        view.show(Out(as_json=False), outcome)
        lines = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
        return {line[0]: line[1:] for line in lines}

    return shown


def test_evaluate(shown: Shown) -> None:
    def side(own: float, a: float, b: float) -> Made:
        per_class = [Made(name="first", n=7, accuracy=a), Made(name="second", n=8, accuracy=b)]
        rest = {"macro_accuracy": own + 0.01, "calibration_error": own + 0.02, "interval": (own - 0.1, own + 0.1)}
        return Made(accuracy=own, n=15, per_class=per_class, **rest)

    found = shown(
        evaluate,
        Made(
            adapter=Made(classifier=Made(kind="text"), method="residual", model_info={"name": "mini"}),
            comparison=Made(
                before=side(0.5, 0.1, 0.2), after=side(0.6, 0.9, 0.8), difference=0.1, interval=(-0.2, 0.3)
            ),
            request=Made(adapter="run", data="digits"),
            split_rule="as given",
        ),
    )
    assert found["accuracy"] == ["95 %", "mean of classes", "calibration error"]
    assert found["zero-shot"] == ["50.0 %", "40.0 – 60.0", "51.0 %", "52.0 %"]
    assert found["residual"] == ["60.0 %", "50.0 – 70.0", "61.0 %", "62.0 %"]
    assert found["change"] == ["+10.0 points (95 % interval -20.0 to +30.0)"]
    assert found["class, worst first"] == ["images", "zero-shot", "adapted"]
    # by accuracy after adapting
    assert list(found)[-2:] == ["second", "first"]
    assert found["second"] == ["8", "20.0 %", "80.0 %"]


def test_sweep(shown: Shown) -> None:
    def setting(name: str, val: float, test: float, parameters: int) -> Made:
        factors = (name, "heads", "target", "ones", "none")
        sds = {"val_sd": 0.01, "test_sd": None}
        return Made(factors=factors, val=val, test=test, parameters=parameters, n_seeds=3, **sds)

    first, second, third = setting("2", 0.5, 0.9, 30), setting("90%", 0.7, 0.3, 20), setting("all", 0.7, 0.2, 10)
    found = shown(
        sweep,
        Made(
            model="mini",
            data="digits",
            sizes={"train": 3},
            bases={"target": "digits, train"},
            classifier="means",
            zero_shot=0.25,
            runs=range(9),
            resumed=2,
            seconds=1.0,
            summaries=(first, second, third),
            levels=[Made(factor="learning_rate", level="none", test=0.4, best=second)],
            request=Made(out=None),
        ),
    )
    assert found["before"] == ["class means 25.0 %"]
    assert found["runs"] == ["9 in 1.0 s, 2 of them from an earlier run"]
    # best on validation images first, of equals the smallest
    assert [name for name in found if name in ("2", "90%", "all")] == ["all", "90%", "2"]
    assert found["components"] == ["scaled", "basis", "start", "rate", "parameters", "seeds", "val", "test"]
    assert found["all"] == ["heads", "target", "ones", "none", "10", "3", "70.0 ± 1.0", "20.0"]
    assert found["factor"] == ["level", "mean test", "best", "best setting"]
    assert found["learning rate"] == ["none", "40.0 %", "30.0 %", "90% heads target ones none"]


def test_select(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("without heads", "without mlp", "without layer", "heads of layer", "heads from layer", "up to layer")
    layers = [Made(kind=kind, layer=0, ablation="mean", accuracy=i / 10) for i, kind in enumerate(kinds)]
    chosen = Made(ablation="zero", accuracy={"val": 0.7, "adapted": 0.6}, heads=("L0.H0", "L0.H1"), score="S")
    first, second = (("a", "S"), ("b/c", "S"))
    outcome = Made(
        study=Made(layers=layers, budgets=[Made(name="10%", n_heads=2)]),
        overlaps=[Made(first=first, second=second, n_heads=2, jaccard=0.9, expected=0.1)],
        selection=chosen,
        request=Made(adapter="folder"),
    )
    Out(as_json=False).show(select._layers(outcome.study), select._overlaps(outcome))
    rows = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["layer", "no heads", "no MLP", "neither", "heads alone", "heads onward", "up to it"]
    assert rows[1] == ["L0", "0.0", "10.0", "20.0", "30.0", "40.0", "50.0"]
    assert rows[2] == ["overlap of the best 2 heads", "score", "Jaccard", "chance"]
    assert rows[3] == ["a · c", "S", "0.90", "0.10"]
    assert select._adapter(outcome) == "folder: 2 heads by S, the rest zero; val 70.0 %, test 60.0 %"


def test_classify(shown: Shown) -> None:
    decided = (Made(head="L1.H0", share=0.41), Made(head="L0.H3", share=-0.09), Made(head="L0.H0", share=None))
    verdict = Made(image="a.png", label="cat", probability=0.93, kinds={"heads": 0.62, "mlp": 0.38}, decided_by=decided)
    found = shown(classify, Made(verdicts=[verdict]))
    assert found["image"] == ["label", "all heads", "heads that decided, %"]
    assert found["a.png"] == ["cat", "93.0 %", "62 %", "L1.H0 +41, L0.H3 -9, L0.H0"]


def test_decompose(shown: Shown) -> None:
    units = [{"label": f"L0.H{i}", "variance_share": share, "norm": 2.0 + i} for i, share in enumerate((0.25, 0.75))]
    statistics = Made(residual_error=1e-7, n_images=5)
    found = shown(decompose, Made(model="mini", statistics=statistics, units=units, request=Made(out=None)))
    assert found["unit"] == ["share of variance", "norm"]
    # largest first; its bar is full
    assert list(found)[-2:] == ["L0.H1", "L0.H0"]
    assert found["L0.H1"] == ["█" * 24, "75.0 %", "3.00"]


def test_decompose_of_one_image(shown: Shown) -> None:
    units = [{"label": f"L0.H{i}", "variance_share": -0.0, "norm": 2.0 + i} for i in range(2)]
    statistics = Made(residual_error=1e-7, n_images=1)
    found = shown(decompose, Made(model="mini", statistics=statistics, units=units, request=Made(out=None)))
    assert found["unit"] == ["norm"]
    assert found["L0.H1"] == ["█" * 24, "3.00"]
    assert "No shares of variance: one image has no variance. Units are sorted by norm." in found


def test_lambdas(shown: Shown) -> None:
    curves = [
        Made(order=order, put_back=(0, 1, 2), accuracy=accuracy, n_images=9)
        for order, accuracy in (
            ("largest", (0.9, 0.2, 0.1)),
            ("smallest", (0.9, 0.8, 0.1)),
            ("random", (0.9, 0.6, 0.1)),
            ("random", (0.9, 0.4, 0.1)),
        )
    ]
    agree = Made(kind="heads", weighted=True, n_lambdas=2, mean=0.5, low=0.25, high=0.75)
    found = shown(
        lambdas,
        Made(
            moved=[Made(label="L0.H1", component=3, value=1.5, effect=0.25, explained_variance=0.02)],
            request=Made(top=5, adapter="run", split="test", seeds=2, out=None),
            adapter=Made(full_scaling=Made(scale_free=False), method="residual", model_info={"name": "mini"}),
            put_back=curves,
            store="store",
            stability={"start": (agree,), "images": (agree,)},
            files=(),
        ),
    )
    assert found["unit · component"] == ["lambda", "effect", "variance"]
    assert found["L0.H1 · 3"] == ["█" * 24, "1.500", "0.2500", "0.02"]
    assert found["largest first"][5:] == ["20.0 %", "10.0 %"]
    assert found["smallest first"][5:] == ["80.0 %", "10.0 %"]
    assert found["random"][5:] == ["50.0 %", "10.0 %"]
    assert found["heads, by variance"] == ["80 % of the images", "2", "0.500", "0.250 – 0.750"]


def test_explain_says_which_end_is_which(capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"positive": [Made(text="a cat", score=0.9)], "negative": [Made(text="a dog", score=0.8)]}
    component = Made(index=2, explained_variance_ratio=0.25, images_positive=(), images_negative=(), **texts)
    unit = Made(label="L0.H1", chosen=[Made(text="a zero")], explained=0.5, coherence=None, components=[component])
    Out(as_json=False).show(*_unit(unit, "somp"))
    told = capsys.readouterr().out
    assert re.search(r"2 +25\.0 % +\+ +a cat 0\.90", told)
    assert re.search(r"- +a dog 0\.80", told)
    assert "1 text explains 50.0 % of its variance" in told


def test_one_notation_per_column_of_maps() -> None:
    assert where._in_one_notation([12.3456, -0.00012, 1e-9]) == ["12.3", "0.0", "0.0"]
    assert where._in_one_notation([0.0123, -0.5]) == ["0.012", "-0.500"]
    assert where._in_one_notation([2e-7, 1e-8]) == ["2.00e-07", "1.00e-08"]
    assert where._in_one_notation([0.0, -0.0]) == ["0", "0"]


def test_lines_of_a_finding_and_of_a_reason_begin_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(f"word{i}" for i in range(40))
    out = Out(as_json=False)
    out.stdout.width = 80
    out.show(views.bullet(text))
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("  - word0 ")
    assert others
    assert all(line.startswith("    word") for line in others)
    out.show(views.wrapped_table(("unreadable", "why"), [("cat/1.png", text)]))
    told = capsys.readouterr().out
    assert all(len(line) <= 80 for line in told.splitlines())
    # nothing is cut
    assert [word for word in told.split() if word.startswith("word")] == text.split()
