"""Every result of an analysis shows itself: one line, strict JSON, tables of equal rows, figures, escaped HTML."""

from __future__ import annotations

import json
import math
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import residualign as ra
from residualign._result import Result, html_table
from residualign.figures._figure import Figure
from residualign.geometry import measure_geometry
from residualign.geometry.result import Hunchback, Trend
from residualign.location import Location, locate
from residualign.selection.select import select
from residualign.similarity import cka_by_unit, cka_pairs, compare_heads, compare_means, compare_spectra
from residualign.similarity.comparison import Comparison
from residualign.similarity.result import LayerSimilarity, SpectralCosine
from residualign.spectrum.spectrum import Spectrum, _mean_shares
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


def test_numbers_of_parts_are_short() -> None:
    third, pair = 1 / 3, (1 / 3, 2 / 3)
    cosine = SpectralCosine(third, third, third, third)
    assert repr(Hunchback(4, third, third, third, pair, pair, pair, third, False)) == (
        "Hunchback(peak at layer 4, rise 0.333 (0.333 to 0.667), fall 0.333 (0.333 to 0.667), holds=False)"
    )
    assert repr(Trend(third, (math.nan, math.nan), third, False)) == "Trend(rank correlation 0.333, grows=False)"
    assert repr(LayerSimilarity(4, "mlp", cosine)) == "LayerSimilarity(layer 4, mlp: weighted 0.333, unweighted 0.333)"
    assert "333," in repr(cosine)
    assert "3333" not in repr(cosine)


def test_json_is_strict(result: Result) -> None:
    content = result.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_rows_of_a_table_have_equal_keys(result: Result) -> None:
    assert result.tables
    for name, rows in result.tables.items():
        assert rows, name
        assert len({tuple(row) for row in rows}) == 1
        assert not any(isinstance(value, tuple | list | dict) for value in rows[0].values())


def test_tables_of_units_hold_what_their_columns_say(made: dict[str, Any]) -> None:
    contributions, spectra = made["Contributions"], made["Spectra"]
    values = contributions.values.double()
    for i, row in enumerate(made["UnitStatistics"].tables["units"]):
        own = values[:, i]
        assert (row["label"], row["kind"]) == (contributions.units[i].label, contributions.units[i].kind)
        assert row["norm"] == pytest.approx(own.square().sum(dim=1).mean().sqrt().item(), rel=1e-4)
        assert row["variance"] == pytest.approx(own.var(dim=0, correction=0).sum().item(), rel=1e-3, abs=1e-9)
    rows = {row["label"]: row for row in spectra.tables["units"]}
    assert list(rows) == [*spectra, "output"]
    for label, spectrum in (("L0.H1", spectra["L0.H1"]), ("output", spectra.output)):
        shares = (spectrum.explained_variance / spectrum.total_variance).tolist()
        assert rows[label] == {
            "label": label,
            "components": len(shares),
            "variance": spectrum.total_variance,
            "components_90": next(k for k in range(1, len(shares) + 1) if sum(shares[:k]) >= 0.9),
            "evr_first": shares[0],
        }


def test_figures_of_variance_are_of_the_numbers(made: dict[str, Any]) -> None:
    statistics, spectra = made["UnitStatistics"], made["Spectra"]
    cells = statistics.figures["variance_share"].draw().axes[0].images[0].get_array()
    shares = {row["label"]: row["variance_share"] for row in statistics.rows}
    assert float(cells[1, 0]) == pytest.approx(100 * shares["L0.H1"])
    lines = spectra.figures["cumulative_variance"].draw().axes[0].lines
    heads = [spectra[f"L1.H{head}"].cumulative_explained_variance_ratio for head in range(spectra.units.n_heads)]
    expected = [
        sum(float(head[min(k, len(head) - 1)]) for head in heads) / len(heads) for k in range(max(map(len, heads)))
    ]
    assert [float(y) for y in lines[1].get_ydata()] == pytest.approx(expected)


def test_the_shares_of_a_head_without_more_components_stay() -> None:
    assert _mean_shares([[0.5, 1.0], [1.0], []]) == pytest.approx([0.5, 2 / 3])


def test_the_table_of_places_holds_the_terms_of_each_total(made: dict[str, Any]) -> None:
    found = made["Location"]
    maps = torch.zeros(2, 1, 2, 3)
    maps[0, 0, 1, 2], maps[0, 0, 0, 0], maps[1, 0, 0, 1] = -5.0, 3.0, 2.0
    size = {"prefix": torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), "constant": torch.tensor([[7.0], [8.0]])}
    given = replace(found, maps=maps, total=torch.tensor([[9.0], [10.0]]), names=("a", "b"), **size)
    first, second = given.tables["where"]
    assert first == {
        "image": "a", "target": "L1.H1", "total": 9.0, "patches": -2.0, "prefix": 4.0, "constant": 7.0,
        "peak": -5.0, "peak_row": 1, "peak_column": 2,
    }  # fmt: skip
    assert (second["image"], second["peak_row"], second["peak_column"]) == ("b", 0, 1)
    worse = replace(given, error=found.error + 1)
    assert Location.cat([given, worse]).error == worse.error


def test_a_comparison_has_a_row_of_every_measure(made: dict[str, Any]) -> None:
    comparison, cosines = made["Comparison"], made["SpectraSimilarity"]
    cka = tuple(replace(one, cka=k / 100, debiased=-k / 100) for k, one in enumerate(comparison.cka))
    rows = replace(comparison, cka=cka).tables["units"]
    means = {one.label: one for one in comparison.means}
    found = {one.label: one for one in cka}
    assert [row["label"] for row in rows] == [*(unit.label for unit in comparison.units), "output"]
    for row in rows:
        unit, of_cka = cosines[row["label"]], found[row["label"]]
        assert (row["n_components_first"], row["n_components_second"]) == unit.n_components
        assert (row["weighted"], row["unweighted"]) == (unit.cosine.weighted, unit.cosine.unweighted)
        assert (row["cka"], row["cka_debiased"]) == (of_cka.cka, of_cka.debiased)
        assert row["mean_euclidean"] == (means[row["label"]].euclidean if row["label"] in means else None)


def test_profiles_and_curves_keep_low_and_high(made: dict[str, Any]) -> None:
    profile, study = made["LayerProfile"], made["SelectionStudy"]
    for row, (low, high) in zip(profile.rows, profile.intervals, strict=True):
        assert (row["mean_low"], row["mean_high"]) == (low, high)
    random = next(one for one in study.summaries if one.score == "R")
    assert any(low < high for low, high in zip(random.low, random.high, strict=True))
    rows = [row for row in study.tables["select_curves"] if row["score"] == "R"]
    assert [row["n_heads"] for row in rows] == list(range(1, study.n_heads + 1))
    for name in ("low", "high"):
        assert tuple(row[name] for row in rows) == getattr(random, name)
    # 95 % of the accuracy with every unit, which one head reaches here
    weak = replace(study, accuracy=random.mean[0])
    assert 0 < weak.accuracy < 0.95
    assert next(row for row in weak.tables["select_budgets"] if row["score"] == "R")["heads for 95%"] == 1
    best = {one["score"]: one["best"] for one in study.to_json()["scores"]}
    ranked = {one.score: list(one.ranked) for one in study.scores}
    assert best == {score: ranked[score][: study.budgets[3].n_heads] for score in ("S", "U")}


def test_a_notebook_gets_the_first_rows_and_is_told_of_the_others() -> None:
    html = html_table([{"a": k} for k in range(1025)])
    assert html.count("<tr>") == 1 + 20
    assert "1,005 more rows" in html
    html = html_table([{"a": None, "b": float("nan"), "c": 0.123456}])
    assert html.endswith("<td>–</td><td>–</td><td>0.1235</td></tr></table>")


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
