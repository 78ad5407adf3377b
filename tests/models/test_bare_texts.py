"""One text where several are expected is refused, never read letter by letter; so are other libraries' data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch.utils.data import TensorDataset

import residualign as ra
from residualign.classification.classifier import zero_shot_vectors
from residualign.data.prompts import check_templates
from residualign.model_check import check_model
from residualign.text.dictionary import from_vectors

DATA_SET = TensorDataset(torch.zeros(2, 3, 4, 4), torch.zeros(2))


@pytest.fixture(autouse=True)
def _no_check_of_types(monkeypatch: pytest.MonkeyPatch) -> None:
    # the check of types that tests run under would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def model() -> ra.VisionModel:
    return ra.load_model("mini")


@pytest.fixture(scope="module")
def store(model: ra.VisionModel, tmp_path_factory: pytest.TempPathFactory) -> ra.Store:
    from tests.adapter.make_adapter import pictures

    folder = tmp_path_factory.mktemp("data")
    for i, picture in enumerate(pictures(24)):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        picture.save(folder / str(i % 2) / f"{i}.png")
    return ra.extract(model, ra.load_data(folder), folder / "store", workers=0)


BARE: dict[str, Callable[[ra.VisionModel, ra.Store], object]] = {
    "texts": lambda model, store: model.encode_text("red"),
    "texts of unknown_words": lambda model, store: model.unknown_words("red"),
    "texts of vectors": lambda model, store: from_vectors("mine", "ab", torch.eye(2)),
    "against": lambda model, store: ra.locate(model, torch.zeros(1, 3, 32, 32), ["L1.H0"], text="a", against="red"),
    "units of geometry": lambda model, store: ra.measure_geometry(store, units="L1.H0"),
    "units of explain": lambda model, store: ra.explain(store, units="L1.H0"),
    "units of locate": lambda model, store: ra.locate(model, torch.zeros(1, 3, 32, 32), "L1.H0"),
    "units of select": lambda model, store: ra.decompose(model, torch.zeros(1, 3, 32, 32)).select("L1.H0"),
    "scores": lambda model, store: ra.select(store, scores="SU"),
    "ablations": lambda model, store: ra.select(store, ablations="mean"),
    "templates": lambda model, store: check_templates("a {}"),
    "templates of vectors": lambda model, store: zero_shot_vectors(model.encode_text, ["cat"], "a {}"),
    "class_names": lambda model, store: zero_shot_vectors(model.encode_text, "cat", ["a {}"]),
    "dtypes": lambda model, store: check_model("mini", "float32"),
}


@pytest.mark.parametrize("case", BARE)
def test_a_bare_text_is_refused(case: str, model: ra.VisionModel, store: ra.Store) -> None:
    name = case.split()[0]
    with pytest.raises(ra.BadInputError, match=f"^{name} is a list of .*got (the single )?.*'"):
        BARE[case](model, store)


def test_data_sets_of_other_libraries_are_refused(model: ra.VisionModel, tmp_path: Path) -> None:
    with pytest.raises(ra.BadInputError, match="got a TensorDataset"):
        ra.load_data(DATA_SET)  # type: ignore[arg-type]
    with pytest.raises(ra.BadInputError, match=r"data is what load_data returns.*got a TensorDataset"):
        ra.extract(model, DATA_SET, tmp_path / "store")  # type: ignore[arg-type]
    with pytest.raises(ra.BadInputError, match="TensorDataset"):
        ra.fit(model, DATA_SET)  # type: ignore[arg-type]
