"""Every command is one request: its fields are read, mean the same everywhere, and say how to go on."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from residualign.cli import main
from residualign.cli.app import REQUESTS
from residualign.commands import (
    adapt,
    classify,
    data,
    decompose,
    demo,
    evaluate,
    explain,
    extract,
    geometry,
    lambdas,
    models,
    report,
    select,
    similarity,
    sweep,
    where,
)
from residualign.commands._request import command_line, command_words, fields_of, identity, places_of_work
from tests.cli.conftest import make_images
from tests.random_models import WORDS, save_clip


def recording(request: Any) -> tuple[Any, set[str]]:
    """The same request, and the names of its fields that have been read so far."""
    names, reads = {one.name for one in fields_of(type(request))}, set[str]()

    class Recording(type(request)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name in names:
                reads.add(name)
            return super().__getattribute__(name)

    made = object.__new__(Recording)
    vars(made).update(vars(request))
    return made, reads


@dataclasses.dataclass(frozen=True)
class Place:
    """Tiny inputs of every kind."""

    model: str
    images: str
    picture: Path
    store: str
    adapter: Path
    fresh: Callable[[], Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("requests")
    model, images = str(save_clip(root / "clip")), str(make_images(root / "images", {"cat": 10, "dog": 10, "zero": 10}))
    made = adapt.run(adapt.AdaptRequest(source=model, data=images, out=root / "run", workers=0))
    fresh = (root / f"out{i}" for i in range(1000))
    return Place(model, images, Path(images) / "cat" / "00.png", made.store.path, root / "run", lambda: next(fresh))


def run_of(command: str, place: Place) -> list[tuple[Callable[..., Any], Any]]:
    """A command's function, and requests that go through all of its branches."""
    model, images, store, run_dir = place.model, place.images, place.store, place.adapter
    both: list[dict[str, Any]] = [{"source": model, "data": images, "workers": 0}, {"source": store}]
    words = place.fresh()
    words.write_text("\n".join(f"{one} {other}" for one in WORDS[:5] for other in WORDS[5:10]))
    few = {"reference": images, "out": place.fresh()}
    look: dict[str, Any] = {"images": (place.picture,), "unit": ("L0.H0",)}
    by_command: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
        "demo": (demo.run, [{"out": place.fresh(), "quick": True}]),
        "extract": (extract.run, [{"model": model, "data": images, "store": str(place.fresh()), "workers": 0}]),
        "adapt": (adapt.run, [one | {"reference": images, "out": place.fresh()} for one in both]),
        "classify": (classify.run, [{"adapter": run_dir, "images": (place.picture,)}]),
        "evaluate": (
            evaluate.run,
            [{"adapter": run_dir, "data": images, "workers": 0}, {"adapter": run_dir, "data": store}],
        ),
        "report": (report.run, [{"adapter": run_dir, "out": place.fresh(), "format": ("json",)}]),
        "decompose": (
            decompose.run,
            [{"source": model, "images": (images,), "workers": 0, "out": place.fresh()}, {"source": store}],
        ),
        "geometry": (geometry.run, [one | few | {"subsamples": 0, "out": place.fresh()} for one in both]),
        "similarity": (
            similarity.run,
            [
                {
                    "sources": (model, images, images),
                    "workers": 0,
                    "out": place.fresh(),
                    "pairs": True,
                    "matching": "optimal",
                }
            ],
        ),
        "explain": (explain.run, [one | few | {"out": place.fresh(), "dictionary": words} for one in both]),
        "select": (select.run, [one | few | {"out": place.fresh(), "adapter": place.fresh()} for one in both]),
        "sweep": (sweep.run, [one | few | {"out": place.fresh(), "quick": True} for one in both]),
        "where": (
            where.run,
            [
                {"source": model, **look, "text": "cat", "against": ("dog",), "out": place.fresh()},
                {"source": model, **look, "component": (0,), "reference": images},
                {"source": str(run_dir), **look, "model": model},
            ],
        ),
        "lambdas": (lambdas.run, [{"adapter": run_dir, "seeds": 2, "out": place.fresh()}]),
        "data": (data.run, [{"name": images, "out": place.fresh(), "workers": 0}]),
        "models check": (models.check, [{"names": (model,), "out": place.fresh()}]),
    }
    function, requests = by_command[command]
    return [(function, REQUESTS[command](**one)) for one in requests]


@pytest.mark.parametrize("command", REQUESTS)
def test_every_field_is_read(command: str, place: Place) -> None:
    """A flag that nothing reads would be accepted and do nothing: what decides the result is read in every branch."""
    seen: set[str] = set()
    for function, request in run_of(command, place):
        watched, reads = recording(request)
        shown = repr(function(watched))
        assert len(shown) <= 200
        assert "\n" not in shown
        decisive = {one.name for one in fields_of(type(request)) if not one.roles}
        assert decisive - reads == set(), request
        seen |= reads
    assert {one.name for one in fields_of(REQUESTS[command])} - seen == set()


def test_a_flag_means_one_thing_everywhere() -> None:
    """One name has one type, one help text, one panel and one role; what differs is listed here, with its reason."""
    told: dict[str, set[tuple[Any, ...]]] = {}
    for request in REQUESTS.values():
        for one in fields_of(request):
            if not one.is_argument:
                parameter = one.parameter
                roles = frozenset(one.roles)
                told.setdefault(one.flag, set()).add(
                    (parameter.help, parameter.rich_help_panel, parameter.metavar, roles)
                )
                assert one.flag == "--" + one.name.replace("_", "-")
    several = {
        # a folder for tables and figures, one that a run keeps its work in, or a file
        "--out",
        # the page of a run has no tables and figures unless they are asked for
        "--format",
        # several types one after the other, where models are checked
        "--dtype",
        # where a store is kept, or where the store of a run has moved
        "--store",
        # where nothing is given, `where` takes the components of an adapter, and has no training split
        "--reference",
    }
    assert {flag for flag, found in told.items() if len(found) > 1} == several


def test_every_command_that_reads_images_can_be_tried_on_a_sample() -> None:
    without = {name for name, request in REQUESTS.items() if "quick" not in {one.name for one in fields_of(request)}}
    assert without == {"models check"}


def test_a_sample_is_what_quick_reads(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image per class and split, or one file."""
    monkeypatch.setattr("residualign.data.sample.QUICK_EACH", 1)
    monkeypatch.setattr("residualign.report.measure.QUICK_IMAGES", 5)
    quick: dict[str, Any] = {"quick": True}
    folder = (Path(place.images),)
    one_file = classify.ClassifyRequest(adapter=place.adapter, images=folder, **quick)
    assert classify.run(one_file).to_json()["n_images"] == 1
    looked = where.WhereRequest(source=place.model, images=folder, unit=("L0.H0",), **quick)
    assert where.run(looked).to_json()["n_images"] == 1
    for given in (place.images, place.store):
        found = evaluate.run(evaluate.EvaluateRequest(adapter=place.adapter, data=given, workers=0, **quick)).to_json()
        assert found["n_images"] == 3
        assert "a sample (--quick)" in found["split_rule"]
    # without splits of its own, the folder is read as one
    for source, images, n in ((place.store, (), 9), (place.model, (place.images,), 3)):
        taken = decompose.run(decompose.DecomposeRequest(source=source, images=images, workers=0, **quick))
        assert taken.to_json()["n_images"] == n
    stores = (place.store, place.store)
    alike = similarity.run(similarity.SimilarityRequest(sources=stores, anchors=0, **quick)).to_json()
    assert [one["n_images"] for one in (alike["first"], alike["comparisons"][0]["second"])] == [3, 3]
    assert lambdas.run(lambdas.LambdasRequest(adapter=place.adapter, **quick)).to_json()["n_images"] == 3
    page = report.run(report.ReportRequest(adapter=place.adapter, out=place.fresh(), **quick)).report
    assert any("measured on 5 of 21 training images" in note for note in page.to_json()["notes"])
    assert any("chosen on 5 of 6 images" in note for note in page.to_json()["notes"])


@pytest.mark.parametrize("command", REQUESTS)
def test_the_defaults_that_help_shows_are_the_real_ones(command: str) -> None:
    for one in fields_of(REQUESTS[command]):
        parameter = one.parameter
        assert one.is_argument or parameter.show_default is True, "a default is that of the field, or none"
        if not one.is_argument and one.default in (None, ()) and one.name not in NO_DEFAULT:
            assert "By default" in str(parameter.help), one.flag


NO_DEFAULT = {
    "model",
    "classes",
    "template",
    "store",
    "out",
    "component",
    "unit",
    "text",
    "against",
    "compare",
    "adapter",
}
"""Flags that do nothing unless they are given."""


@pytest.mark.parametrize("command", REQUESTS)
def test_a_request_is_its_command_line(command: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of a request, typed again, give an equal request."""
    got: list[Any] = []
    for _, request in run_of(command, place):
        module = __import__(f"residualign.commands.{command.split()[0]}", fromlist=["run"])
        words = command_words(command, request)
        assert words[0] == "residualign"
        assert shlex.split(command_line(command, request)) == list(words)
        got.append((module, request, words))
    for _, request, words in got:
        assert parse(words[1:], monkeypatch) == request


def parse(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The request that a command line gives, without running it."""
    seen: list[Any] = []

    def stop(kind: type, values: dict[str, Any]) -> Any:
        seen.append(kind(**values))
        raise SystemExit(0)

    monkeypatch.setattr("residualign.cli.commands.make_request", stop)
    assert main(list(words)) == 0
    return seen[0]


def test_speed_and_places_are_not_part_of_the_identity() -> None:
    one = adapt.AdaptRequest(source="mini", data="digits", out=Path("a"))
    other = dataclasses.replace(one, out=Path("b"), batch_size=7, workers=0, skip_bad=True, overwrite=True)
    assert identity(one) == identity(other)
    assert identity(one) != identity(dataclasses.replace(one, dtype="float64"))
    assert identity(one) != identity(dataclasses.replace(one, seed=1))
    # whatever decides a number, a sample of the images too
    decisive = {"source", "data", "model", "classes", "template", "classifier", "method", "reference", "shots", "mean"}
    assert set(identity(one)) == decisive | {"loss", "seed", "quick", "dtype"}


@pytest.mark.parametrize(
    ("request_", "resumes"),
    [
        (adapt.AdaptRequest(source="m", data="d", out=Path("o")), True),
        (sweep.SweepRequest(source="m", data="d", out=Path("o")), True),
        (sweep.SweepRequest(source="m", data="d"), False),
        (geometry.GeometryRequest(source="m", data="d"), False),
        (geometry.GeometryRequest(source="m", data="d", store="s"), True),
        (demo.DemoRequest(), True),
    ],
)
def test_what_can_be_resumed(request_: Any, resumes: bool) -> None:
    assert bool(places_of_work(request_)) == resumes
