"""The sentences at the top of a page: each says what its numbers say, and nothing where there are none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from residualign.adapter.lambdas import MovedComponent, PutBackCurve
from residualign.classification.evaluation import Comparison, compare
from residualign.geometry.result import Geometry, Hunchback, LayerProfile, Trend
from residualign.report.contents import UnitLine
from residualign.report.findings import components_from, findings
from residualign.report.measure import Measured


def measured(
    *profiles: LayerProfile,
    changes: tuple[float, ...] = (),
    energies: tuple[float, ...] = (),
    curve: tuple[float, ...] = (),
    comparison: Comparison | None = None,
    kinds: dict[str, int] | None = None,
) -> Measured:
    units = tuple(
        UnitLine(f"L0.H{i}", "head", 0, i, {"change": change, "energy": energy}, None, (f"word {i}",), ())
        for i, (change, energy) in enumerate(zip(changes, energies or (0.1,) * len(changes), strict=True))
    )
    geometry = Geometry("m", "d", "train", (), None, profiles, 0.99, 0.9, 0, 0, 10, "s", True)
    moved = tuple(MovedComponent("L0.H0", k, 2.0, None, 1.0) for k in range(max(0, len(curve) - 1)))
    curves = (PutBackCurve("largest", None, tuple(range(len(curve))), curve, 10),) if curve else ()
    return Measured(geometry, (), units, moved, curves, comparison, kinds or {}, ())


def compared(n_before: int, n_after: int, n: int = 100) -> Comparison:
    """Two classifiers that get the first so many of n images of class 0 right."""
    logits = [torch.eye(2)[[0] * right + [1] * (n - right)] for right in (n_before, n_after)]
    return compare(*logits, torch.zeros(n, dtype=torch.long), ("a", "b"))


@pytest.mark.parametrize(
    ("before", "after", "said", "chance"),
    [
        (50, 80, "Test accuracy rose from 50.0 % to 80.0 % with residual: +30.0 points", False),
        (80, 50, "Test accuracy fell from 80.0 % to 50.0 % with residual: -30.0 points", False),
        (50, 51, "Test accuracy rose from 50.0 % to 51.0 %", True),
    ],
)
def test_accuracy(before: int, after: int, said: str, chance: bool) -> None:
    (sentence,) = findings("residual", measured(comparison=compared(before, after)))
    assert sentence.startswith(said)
    assert sentence.endswith("; the difference may be due to chance." if chance else ").")


def test_accuracy_that_is_the_same_before_and_after() -> None:
    same = replace(compared(12, 12, 12), interval=(-0.198, 0.15))
    kinds = {"corrected": 0, "newly wrong": 0}
    assert findings("residual", measured(comparison=same, kinds=kinds)) == (
        "Test accuracy is 100.0 % before and after; with 12 test images a change of up to 19.8 points could go "
        "unnoticed.",
        "No test image changed class.",
    )


def test_images_that_changed() -> None:
    (sentence,) = findings("residual", measured(kinds={"corrected": 1, "newly wrong": 0}))
    assert sentence == "The predicted class of 1 test image changed: 1 corrected, 0 newly wrong."


def test_heads_amplified_and_suppressed_and_how_few_hold_half() -> None:
    # after: 0.5 of 1.0 is held by one; before, shares were 0.1, 0.2, 0.2, 0.2, 0.2, 0.1
    after, changes = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1), (5.0, 0.5, 0.5, 0.5, 0.5, 1.0)
    heads, half = findings("residual", measured(changes=changes, energies=after))
    up, down = heads.split(" Suppressed most: ")
    assert up.startswith("Heads amplified most, by their share of the variance: L0.H0 (× 5, “word 0”), L0.H5 (× 1, ")
    assert down == "L0.H4 (× 0.5, “word 4”), L0.H3 (× 0.5, “word 3”), L0.H2 (× 0.5, “word 2”)."
    assert half == "After adapting, 1 of 6 heads hold half of the variance of all heads; before, it took 3."


def test_what_lambdas_carry() -> None:
    (sentence,) = findings("residual", measured(curve=(0.9, 0.8, 0.6, 0.5)))
    assert "Half of the gain over lambdas of 1 is lost when the 2 of 3 lambdas" in sentence
    assert findings("residual", measured(curve=(0.5, 0.6, 0.7))) == ()


def profile(quantity: str, hunchback: Hunchback | None = None, trend: Trend | None = None) -> LayerProfile:
    nothing = (math.nan, math.nan)
    return LayerProfile(quantity, "head", (0, 1, 2), (1.0, 3.0, 2.0), (0.0,) * 3, (nothing,) * 3, hunchback, trend)


@pytest.mark.parametrize(
    ("peak", "rise", "fall", "said"),
    [
        (1, 0.1, 0.1, "peaks at layer 1; the rise before it and the fall after it are both significant."),
        (1, -0.1, 0.0, "peaks at layer 1; neither the rise before it nor the fall after it is significant."),
        (1, 0.1, 0.0, "peaks at layer 1; the rise before it is significant, the fall after it is not."),
        (1, 0.0, 0.1, "peaks at layer 1; the rise before it is not significant, the fall after it is."),
        (1, math.nan, math.nan, "peaks at layer 1."),
        (0, 0.0, 0.1, "is largest at layer 0, the first, so it does not rise and then fall with depth."),
        (2, 0.1, 0.0, "is largest at layer 2, the last, so it does not rise and then fall with depth."),
    ],
)
def test_the_hunchback(peak: int, rise: float, fall: float, said: str) -> None:
    holds = peak == 1 and rise > 0 and fall > 0
    hunchback = Hunchback(peak, peak / 2, 2.0, 1.0, (0.0, 1.0), (rise, 1.0), (fall, 1.0), 1.0, holds)
    (sentence,) = findings("residual", measured(profile("two_nn", hunchback)))
    assert sentence == f"The intrinsic dimension of the heads {said}"


@pytest.mark.parametrize(
    ("source", "n", "kind", "said"),
    [
        ("8192 generated images, seed 411", 8192, "shipped", "8192 generated images, seed 411 (comes with the model)"),
        ("photos", 1200, "training split", "photos (1,200 images; training split)"),
    ],
)
def test_the_images_of_the_components_are_counted_once(source: str, n: int, kind: str, said: str) -> None:
    assert components_from({"reference": source, "n_reference": n, "reference_kind": kind}) == said


@pytest.mark.parametrize(
    ("interval", "grows", "said"),
    [
        ((0.2, 0.9), True, "grows with depth: rank correlation 0.50, 95 % interval 0.20 to 0.90."),
        ((-0.9, -0.2), False, "falls with depth: rank correlation 0.50, 95 % interval -0.90 to -0.20."),
        ((-0.2, 0.9), False, "shows no clear trend with depth: "),
        ((math.nan, math.nan), False, "shows no clear trend with depth: rank correlation 0.50."),
    ],
)
def test_curvature(interval: tuple[float, float], grows: bool, said: str) -> None:
    (sentence,) = findings("residual", measured(profile("ratio", trend=Trend(0.5, interval, 0.5, grows))))
    assert said in sentence
