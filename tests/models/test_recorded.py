"""What decides pixels is recorded, all of it, and compared when an adapter or a store meets a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import random_models

import residualign as ra
from residualign.adapter.files import refuse_other_model
from residualign.models.recorded import preprocessing_differences
from residualign.models.vision_model import VisionModel
from residualign.store import CoordinateShape, SplitPlan, StorePlan


def _clip(path: Path, **settings: Any) -> VisionModel:
    if not path.exists():
        random_models.save_clip(path)
    (file,) = path.glob("*processor_config.json")
    file.write_text(json.dumps({"image_processor_type": "ConvNextImageProcessor", **settings}))
    return ra.load_model(path)


_SETTINGS = {"size": {"shortest_edge": 26}, "crop_pct": 0.875, "resample": 3, "do_resize": True}


def test_a_setting_that_one_processor_alone_has_is_compared(tmp_path: Path) -> None:
    one = _clip(tmp_path / "clip", **_SETTINGS).describe()
    other = _clip(tmp_path / "clip", **{**_SETTINGS, "crop_pct": 0.5}).describe()
    with pytest.raises(ra.BadInputError, match=r"preprocessing than model .* has: crop_pct 0\.875 \(model: 0\.5\)$"):
        refuse_other_model(one, other)
    refuse_other_model(one, json.loads(json.dumps(one)))


def test_bookkeeping_is_not_compared(tmp_path: Path) -> None:
    one = _clip(tmp_path / "clip", **_SETTINGS).describe()
    more = {"device": None, "data_format": "channels_first", "transformers_version": "9", "disable_grouping": True}
    assert _clip(tmp_path / "clip", **_SETTINGS, **more).describe() == one


def test_pixels_of_a_library_that_does_otherwise_are_noticed(tmp_path: Path) -> None:
    model = _clip(tmp_path / "clip", **_SETTINGS)
    honest = model.describe()
    assert len(honest["preprocessing"]["pixels"]) == 3 * 16

    def nudged(by: float) -> dict[str, Any]:
        pixels = [value + by * (i == 17) for i, value in enumerate(honest["preprocessing"]["pixels"])]
        return {**honest, "preprocessing": {**honest["preprocessing"], "pixels": pixels}}

    refuse_other_model(honest, nudged(1e-4))
    with pytest.raises(ra.BadInputError, match=r"the pixels of a fixed picture .* off by up to 0\.2"):
        refuse_other_model(honest, nudged(0.2))


def test_what_older_versions_recorded_still_fits(tmp_path: Path) -> None:
    found = _clip(tmp_path / "clip", **_SETTINGS).describe()
    settings = {k: v for k, v in found["preprocessing"].items() if k not in ("crop_pct", "pixels")}
    refuse_other_model({**found, "preprocessing": settings}, found)
    assert preprocessing_differences({**settings, "resample": 2}, found["preprocessing"]) == [("resample", 2, 3)]
    assert preprocessing_differences({**settings, "do_pad": True}, found["preprocessing"]) == [("do_pad", True, None)]


def test_a_store_compares_the_same(tmp_path: Path) -> None:
    shape = CoordinateShape(n_layers=3, n_heads=5, head_dim=7, width=35, dim=11)
    plan = StorePlan(
        _clip(tmp_path / "clip", **_SETTINGS).describe(), {"name": "x"}, {"train": SplitPlan((), ())}, ("a",), (), shape
    )
    pixels = plan.model["preprocessing"]
    older = replace(plan, model={**plan.model, "preprocessing": {k: v for k, v in pixels.items() if k != "pixels"}})
    assert older.difference(plan) is None
    assert older.fingerprint == plan.fingerprint
    cropped = replace(plan, model={**plan.model, "preprocessing": {**pixels, "crop_pct": 0.5}})
    assert plan.difference(cropped) == "model.preprocessing.crop_pct (0.875 there, 0.5 here)"
