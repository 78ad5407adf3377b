"""Every result of an analysis shows itself: one line, strict JSON, tables of equal rows, figures, escaped HTML."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import residualign as ra
from residualign._result import Result
from residualign.figures._figure import Figure
from residualign.geometry import measure_geometry
from residualign.location import locate
from residualign.selection.select import select
from residualign.similarity import cka_by_unit, cka_pairs, compare_heads, compare_means, compare_spectra
from residualign.similarity.comparison import Comparison
from residualign.spectrum.spectrum import Spectrum
from residualign.text.explain import explain
from tests.fitting.standin import make_store
from tests.random_models import save_clip
from tests.spectrum.random_tower import DIM
from tests.text.make import make_dictionary

EVIL = "<script>alert('x')</script>\n" * 30


def _made(folder: Path) -> dict[str, Result]:
    store = make_store(text=True)
    train, val = store.split("train"), store.split("val")
    geometry = measure_geometry(store, subsamples=4)
    similar = compare_spectra(store, val)
    first, second = (ra.fit_spectrum(store, split=name) for name in ("train", "val"))
    pairs, means = compare_heads(first, second), compare_means(first, second)
    cka, of_pairs = cka_by_unit(train, train), cka_pairs(train, train)
    selection = select(store, scores=("S", "U", "R"), ablations=("mean",))
    model = ra.load_model(save_clip(folder / "clip"))
    pixels = model.tower.probe(2).float()
    assert selection.study is not None
    contributions = ra.decompose(model, pixels)
    return {
        "Store": store,
        "Spectra": first,
        "Contributions": contributions,
        "UnitStatistics": contributions.statistics,
        "Geometry": geometry,
        "UnitGeometry": geometry.units[-1],
        "LayerProfile": geometry.profiles[0],
        "SpectraSimilarity": similar,
        "UnitSimilarity": similar.units[-1],
        "HeadPairs": pairs,
        "MeanSimilarity": means[0],
        "UnitCka": cka[0],
        "CkaPairs": of_pairs,
        "Comparison": Comparison("a", "b", tuple(store.units), similar, means, cka, pairs, of_pairs),
        "Explanation": explain(store, dictionary=make_dictionary(atoms=31, dim=DIM), components=1),
        "Selection": selection,
        "SelectionStudy": selection.study,
        "Location": locate(model, pixels, ["L1.H1"], direction=model.encode_image(pixels)[0]),
    }


# a field that holds a name people choose
NAMES = {
    "Store": "path",
    "Spectra": "source",
    "Contributions": None,
    "UnitStatistics": None,
    "Geometry": "data",
    "UnitGeometry": "label",
    "LayerProfile": "quantity",
    "SpectraSimilarity": "first",
    "UnitSimilarity": "label",
    "HeadPairs": "second",
    "MeanSimilarity": "label",
    "UnitCka": "label",
    "CkaPairs": "first",
    "Comparison": "second",
    "Explanation": "model",
    "Selection": "score",
    "SelectionStudy": "name",
    "Location": "names",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return _made(tmp_path_factory.mktemp("results"))


@pytest.fixture(params=NAMES)
def result(request: pytest.FixtureRequest, made: dict[str, Result]) -> Result:
    return made[request.param]


def _renamed(result: Any) -> Result:
    field = NAMES[type(result).__name__]
    if field is None:
        return result
    if isinstance(result, ra.Store):
        view = copy(result)
        view.path = EVIL
        return view
    value = getattr(result, field)
    renamed: Result = replace(result, **{field: (EVIL,) * len(value) if isinstance(value, tuple) else EVIL})
    return renamed


def test_one_line_of_at_most_200_characters(result: Result) -> None:
    for one in (result, _renamed(result)):
        assert repr(one).startswith(f"{type(result).__name__}(")
        assert len(repr(one)) <= 200
        assert "\n" not in repr(one)
    assert repr(result).endswith(")")


def test_parts_of_a_result_are_one_line_too(made: dict[str, Result]) -> None:
    words: Any = made["Explanation"]
    noisy = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    spectrum = Spectrum(noisy[0], noisy[:4], noisy[:4, 0].square(), 9.0, 30)
    for one in (*words.units, spectrum):
        assert len(repr(one)) <= 200
        assert "\n" not in repr(one)


def test_json_is_strict(result: Result) -> None:
    content = result.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_rows_of_a_table_have_equal_keys(result: Result) -> None:
    assert result.tables
    for name, rows in result.tables.items():
        assert rows, name
        assert len({tuple(row) for row in rows}) == 1
        assert not any(isinstance(value, tuple | list | dict) for value in rows[0].values())


def test_html_holds_no_tag_of_a_name(result: Result) -> None:
    html = _renamed(result)._repr_html_()
    assert "<script" not in html
    assert ("&lt;script&gt;" in html) == (NAMES[type(result).__name__] is not None)
    assert "<table>" in html


def test_figures_are_drawn(result: Result) -> None:
    for figure in result.figures.values():
        assert isinstance(figure, Figure)
        assert figure.to_bytes("png").startswith(b"\x89PNG")


def test_which_results_have_figures(made: dict[str, Result]) -> None:
    def drawn(name: str) -> set[str]:
        return set(made[name].figures)

    assert drawn("Store") == set()
    assert drawn("Spectra") == {"cumulative_variance"}
    assert drawn("Contributions") == drawn("UnitStatistics") == {"variance_share"}
    assert drawn("Geometry") == {"geometry_profiles", "geometry_heads"}
    assert drawn("Selection") == drawn("SelectionStudy") == {"select_curves", "select_layers"}
    assert drawn("Comparison") == {"heads", "layers", "pairs"}
    assert drawn("Explanation") == {"explain"}
    assert drawn("Location") == {"where"}


def test_the_public_face() -> None:
    assert sorted(ra.__all__) == dir(ra)
    assert set(ra.__all__) == {
        *("load_model", "load_data", "extract", "Store", "decompose", "fit_spectrum", "fit", "load_adapter"),
        *("measure_geometry", "compare_spectra", "explain", "select", "locate", "build_report"),
        *("BadInputError", "RunError"),
    }
