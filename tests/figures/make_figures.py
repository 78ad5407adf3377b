"""Every figure the package has, from tables made by hand, with names that drawing libraries like to misread."""

from __future__ import annotations

import random
from functools import partial
from itertools import product

import numpy as np
from PIL import Image

from residualign.figures._figure import Figure
from residualign.figures.explain import explain_figures
from residualign.figures.fitting import lambda_figures, sweep_figures
from residualign.figures.geometry import geometry_figures
from residualign.figures.report import map_figures, report_figures
from residualign.figures.select import select_figures
from residualign.figures.similarity import similarity_figures
from residualign.figures.units import cumulative_variance
from residualign.figures.where import where_figures

HOSTILE = (
    "$x_{1$ \\frac{",
    "<b>bold</b> & \"quoted\" 'one' ]]> --",
    "_underscore first",
    "猫 кошка قطة 🐈‍⬛ é",
    "\x00\x1b[31m\nline\u2028two \ud800",
    "a very long name " * 30,
    "50%",
)
"""Mathematics, markup, private names, scripts, control characters, half a surrogate pair, length."""

LAYERS, HEADS = range(4), range(3)


def all_figures(names: tuple[str, ...] = HOSTILE) -> dict[str, Figure]:
    """By analysis and name."""
    made = {
        "geometry": geometry_figures(_geometry(), names[0]),
        "lambdas": lambda_figures(_lambdas(names), names[0], n_images=359, scale_free=True),
        "report": report_figures(_report(names), 359, names),
        "maps": map_figures(
            _units(), [("change", names[0], "ratio"), ("evr_first", names[1], "share"), ("two_nn", names[3], "number")]
        ),
        "select": select_figures(_select(names)),
        "similarity": similarity_figures(_similarity(names)),
        "sweep": sweep_figures(_settings(names), names[0], 0.5),
        "explain": explain_figures(_explain(names), names[1], ["L0.H1", "L2.H0"], _images),
        "where": _where(names),
        "units": {
            "cumulative": cumulative_variance([{"layer": k, "shares": [0.4, 0.7, 1.0]} for k in LAYERS], names[0])
        },
    }
    return {f"{analysis}/{name}": figure for analysis, figures in made.items() for name, figure in figures.items()}


def _units() -> list[dict[str, object]]:
    draw = random.Random(1)
    return [
        {
            "label": f"L{layer}.{kind if head is None else f'H{head}'}", "kind": "mlp" if head is None else "head",
            "layer": layer, "head": head, "linear_dimension": draw.randrange(1, 40), "two_nn": draw.uniform(1, 9),
            "ratio": draw.uniform(1, 5), "evr_first": draw.random(), "change": 2 ** draw.uniform(-4, 4),
        }
        for layer, (kind, head) in product(LAYERS, [("mlp", None), *(("head", head) for head in HEADS)])
    ]  # fmt: skip


def _geometry() -> dict[str, list[dict[str, object]]]:
    units = _units()
    units[2]["two_nn"] = None
    profiles = [
        {"kind": kind, "quantity": quantity, "layer": layer, "mean": 0.4 + layer / 9, "mean_low": 0.3, "mean_high": 0.9}
        for kind in ("head", "mlp")
        for quantity in ("linear_dimension", "two_nn", "ratio", "evr_first")
        for layer in LAYERS
    ]
    return {"geometry_units": units, "geometry_profiles": profiles}


def _lambdas(names: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    points = {"train_loss": 1.5, "val_loss": None, "val_accuracy": 0.8}
    return {
        "moved": [
            {"label": f"L{k % 4}.H0", "component": None if k == 3 else k, "lambda": 1 + (-1) ** k * (30 - k) / 10,
             "explained_variance": 0.1, "effect": 3 / (k + 1)}
            for k in range(30)
        ],
        "put_back": [
            {"order": order, "seed": seed, "put_back": n, "accuracy": 0.95 - 0.001 * n * (1 + (seed or 0))}
            for order, seed in (("largest", None), ("smallest", None), ("random", 0), ("random", 1))
            for n in (0, 10, 100, 200)
        ],
        "learning_curves": [
            {"solver": "lbfgs", "candidate": name, "step_name": "iteration", "step": step, "seconds": 0.1, **points}
            for name in names
            for step in range(1, 6)
        ],
    }  # fmt: skip


def _report(names: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    kinds = ("before", *("method" for _ in names[2:]), "probe")
    return {
        "methods": [
            {"method": name, "kind": kind, "accuracy": 0.7 + k / 30, "low": 0.65, "high": 0.96, "seconds": None,
             "parameters": 10**k if k else None, "chosen": k == 2}
            for k, (name, kind) in enumerate(zip(names, kinds, strict=False))
        ],
        "confusion": [
            {"true": true, "predicted": predicted, "before": 3 * (true == predicted) + i % 3, "after": i % 2}
            for i, (true, predicted) in enumerate(product(names, names))
        ],
    }  # fmt: skip


def _select(names: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    kinds = (
        "all",
        "without heads",
        "without mlp",
        "without layer",
        "heads of layer",
        "heads up to layer",
        "up to layer",
    )
    return {
        "select_curves": [
            {"data": name, "score": score, "ablation": mode, "n_heads": k, "accuracy": k / 12, "low": k / 13,
             "high": k / 12 if score != "R" else k / 11.5}
            for name in names[:2] for score in ("S", "U|T", "R") for mode in ("mean", "zero") for k in range(1, 13)
        ],
        "select_layers": [
            {"data": name, "kept": kind, "layer": None if kind == "all" else layer, "ablation": mode, "accuracy": 0.9}
            for name in names[:2] for kind in kinds for mode in ("mean", "zero") for layer in LAYERS
        ],
        "select_overlap": [
            {"data": names[0], "score": score, "other_data": names[1], "n_heads": k, "jaccard": 0.4, "chance": k / 12}
            for score in ("S", "U|T") for k in range(1, 13)
        ],
    }  # fmt: skip


def _similarity(names: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    others = names[1:4]
    cosines = {"weighted": 0.8, "unweighted": 0.4}
    heads = [f"L{layer}.H{head}" for layer, head in product(LAYERS, HEADS)]
    return {
        "units": [
            {"first": names[0], "second": other, **unit, **cosines} for other in others for unit in _units()
        ],
        "layers": [
            {"first": names[0], "second": other, "layer": layer, "kind": kind, **cosines}
            for other in others for kind in ("head", "mlp") for layer in LAYERS
        ],
        "pairs": [
            {"first": names[0], "second": names[3], "row": row, "column": column, "cka": None if i else 0.3, **cosines}
            for i, (row, column) in enumerate(product(heads, heads))
        ],
    }  # fmt: skip


def _settings(names: tuple[str, ...]) -> list[dict[str, object]]:
    return [
        {"components": components, "scaled": name, "basis": "target", "start": "ones", "learning_rate": "none",
         "parameters": 10 * i, "val": 0.8 + i / 100, "test": 0.7 + i / 100}
        for i, (components, name) in enumerate(product(("50%", "all"), names[:3]))
    ]  # fmt: skip


def _explain(names: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    at = [
        {"unit": unit, "component": k, "end": end}
        for unit, k, end in product(("L0.H1", "L2.H0", "L3.H2"), range(6), ("positive", "negative"))
    ]
    return {
        "components": [
            {**one, "explained_variance_ratio": 0.25, "rank": i + 1, "text": name, "score": 0.5}
            for one in at
            for i, name in enumerate(names)
        ],
        "images": [{**one, "rank": 1, "key": key, "coefficient": 1.0} for one in at for key in ("a", "b", "absent")],
    }


def _images() -> dict[str, Image.Image]:
    return {"a": Image.new("RGB", (20, 30), "red"), "b": Image.new("L", (300, 200), 90)}


def _where(names: tuple[str, ...]) -> dict[str, Figure]:
    maps = np.random.default_rng(0).normal(size=(9, 2, 3, 4))
    rows = [
        {"image": f"folder/{names[i % len(names)].replace('/', '')}.png", "target": target, "total": 1.0,
         "patches": 0.5, "prefix": 0.25, "constant": 0.25, "label": names[0], "second": names[1]}
        for i in range(9)
        for target in ("L0.H1", "L1.H2 · 3")
    ]  # fmt: skip
    draw = partial(where_figures, rows, names[0], [np.full((30, 40, 3), 0.5, np.float32)] * 9)
    signed = draw(maps, signed=True)
    return {**signed, "lengths": draw(np.abs(maps), signed=False)["where_2"]}


def bare_figures() -> dict[str, Figure]:
    """Figures of one unit that was never measured, one image, one step: nothing to span an axis with."""
    nan = float("nan")
    unit = {"label": "L0.H0", "kind": "head", "layer": 0, "head": 0, "linear_dimension": 0, "change": 0.0,
            "two_nn": nan, "ratio": nan, "evr_first": nan}  # fmt: skip
    profile = {"kind": "head", "layer": 0, "mean": nan, "mean_low": nan, "mean_high": nan}
    quantities = ("linear_dimension", "two_nn", "ratio", "evr_first")
    step = {"solver": "", "candidate": "", "step_name": "epoch", "step": 1, "seconds": None}
    lambdas = {
        "moved": [{"label": "output", "component": None, "explained_variance": None, "effect": 0.0, "lambda": 1.0}],
        "put_back": [{"order": "largest", "seed": None, "put_back": k, "accuracy": 0.5} for k in (0, 1)],
        "learning_curves": [step | {"train_loss": None, "val_loss": None, "val_accuracy": None}],
    }
    method = {"method": "a", "kind": "before", "accuracy": 0.0, "low": None, "high": None, "parameters": None}
    confusion = [{"true": "a", "predicted": "a", "before": 1, "after": 0}]
    pair = {"first": "a", "second": "b", "weighted": nan, "unweighted": nan}
    image = {"image": "a", "target": "t", "total": 0.0, "patches": 0.0, "prefix": 0.0, "constant": 0.0}
    profiles = [profile | {"quantity": quantity} for quantity in quantities]
    return {
        **geometry_figures({"geometry_units": [unit], "geometry_profiles": profiles}, ""),
        **lambda_figures(lambdas, n_images=1),
        **report_figures({"methods": [method], "confusion": confusion}, 1, ("a", "b")),
        **map_figures([unit], [("change", "c", "ratio"), ("two_nn", "t", "number")]),
        **similarity_figures(
            {"units": [unit | pair], "pairs": [pair | {"row": "L0.H0", "column": "L0.H0", "cka": None}]}
        ),
        **where_figures([image], "", [np.zeros((4, 4, 3), np.float32)], np.zeros((1, 1, 1, 1)), signed=True),
        **explain_figures({"components": [], "images": []}, "", ["L0.H0"], dict),
    }
