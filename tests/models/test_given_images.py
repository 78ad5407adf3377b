"""Every form in which images are given leads to the same numbers, or is refused by one sentence."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from tests import random_models
from tests.adapter.make_adapter import coordinates_of, pictures, random_adapter
from torch.utils.data import TensorDataset

import residualign as ra
from residualign.data.split import Split
from residualign.models.vision_model import VisionModel

adapter = cache(random_adapter)

ENTRIES: dict[str, Callable[[VisionModel, Any], torch.Tensor]] = {
    "pixels": lambda model, images: model.pixels(images),
    "encode_image": lambda model, images: model.encode_image(images, batch_size=2),
    "decompose": lambda model, images: ra.decompose(model, images, batch_size=2).output,
    "locate": lambda model, images: ra.locate(model, images, ["L1.H0"], batch_size=2).total,
    "embed": lambda model, images: adapter(model, "residual-heads").embed(images, batch_size=2),
    "predict_proba": lambda model, images: adapter(model, "linear").predict_proba(images, batch_size=2),
    "attribution": lambda model, images: adapter(model, "residual").attribution(images, batch_size=2).values,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    return ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("models") / "clip"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The five pictures of `pictures(5)` as the training split of a folder, in their order."""
    folder = tmp_path_factory.mktemp("data")
    for i, picture in enumerate(pictures(5)):
        (folder / "train" / "one").mkdir(parents=True, exist_ok=True)
        picture.save(folder / "train" / "one" / f"{i}.png")
    return ra.load_data(folder, split=False).train


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_form_gives_the_numbers_of_a_list_of_pictures(
    entry: str, model: VisionModel, split: Any, tmp_path: Path
) -> None:
    images, run = pictures(5), ENTRIES[entry]
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    expected = run(model, images)
    forms = {
        "paths": paths,
        "strings": [str(path) for path in paths],
        "array of strings": np.array([str(path) for path in paths]),
        "arrays": [np.asarray(image) for image in images],
        "one array of all": np.stack([np.asarray(image) for image in images]),
        "generator": (image for image in images),
        "iterator of arrays": iter([np.asarray(image) for image in images]),
        "tuple": tuple(images),
        "deque": deque(images),
        "split": split,
        "pixels": model.pixels(images),
        "pixels in float64": model.pixels(images).double(),
    }
    for form, given in forms.items():
        assert torch.equal(run(model, given), expected), form
    ones = {"picture": images[3], "path": paths[3], "string": str(paths[3]), "array": np.asarray(images[3])}
    for form, one in ones.items():
        assert torch.equal(run(model, one), run(model, images[3:4])), form


def test_one_picture_has_one_name(model: VisionModel) -> None:
    adapter = random_adapter(model, "residual")
    assert adapter.predict(pictures(1)[0]) == adapter.predict(coordinates_of(model, 1))


def test_a_picture_without_colours_is_read_as_pillow_does(model: VisionModel) -> None:
    gray = np.asarray(pictures(1)[0])[..., 0]
    assert torch.equal(model.pixels(gray), model.pixels(Image.fromarray(gray)))


def test_located_images_are_called_by_the_keys_of_a_split(model: VisionModel, split: Any) -> None:
    assert ra.locate(model, split, ["L1.H0"]).names == split.keys


NO_IMAGES: dict[str, tuple[object, str]] = {
    "integers": (torch.zeros(2, 3, 26, 26, dtype=torch.uint8), "floating-point type; got uint8"),
    "long": (torch.zeros(2, 3, 26, 26, dtype=torch.int64), "floating-point type; got int64"),
    "bool": (torch.zeros(2, 3, 26, 26, dtype=torch.bool), "floating-point type; got bool"),
    "one tensor": (torch.zeros(3, 26, 26), r"shape \(image, 3, height, width\)"),
    "other size": (torch.zeros(2, 3, 64, 40), "takes pixels of 26 x 26; got 64 x 40"),
    "list of tensors": ([torch.zeros(3, 26, 26)], "as one tensor.*torch.stack"),
    "float array": (np.zeros((26, 26, 3)), r"\(height, width, 3\) and dtype uint8.*got shape.*float64"),
    "channels first": (np.zeros((3, 26, 26), np.uint8), r"\(height, width, 3\).*got shape \(3, 26, 26\)"),
    "four channels": ([np.zeros((26, 26, 4), np.uint8)], r"got shape \(26, 26, 4\)"),
    "no pixels": (np.zeros((0, 26, 3), np.uint8), r"got shape \(0, 26, 3\)"),
    "floats of all": (np.zeros((2, 3, 26, 26), np.float32), "dtype uint8"),
    "numbers": ([1, 2], "every one of images is.*got int"),
    "records": ([{"image": 1}], "got dict .of a data set of records, give the images alone"),
    "pairs": (TensorDataset(torch.zeros(2, 3), torch.zeros(2)), "got tuple .of a data set"),
    "mapping": ({"a": 1}, "a split, such as data.test.*; got dict"),
    "nothing": (None, "; got NoneType"),
    "bytes": (b"GIF89a", "; got bytes"),
    "model": (object(), "; got object"),
    "empty list": ([], "images is empty"),
    "empty generator": (iter(()), "images is empty"),
    "not finite": (torch.full((1, 3, 26, 26), float("inf")), "NaN or infinite.*so are the pixels given"),
}


EVERYWHERE = ("integers", "other size", "numbers", "nothing", "empty generator", "not finite")


@pytest.mark.parametrize(
    ("entry", "case"),
    [(entry, case) for case in NO_IMAGES for entry in ENTRIES if entry == "encode_image" or case in EVERYWHERE],
)
def test_what_is_no_images_is_refused(
    entry: str, case: str, model: VisionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check of types that tests run under would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    given, why = NO_IMAGES[case]
    if entry == "pixels" and case in ("other size", "not finite"):
        pytest.skip("what the tower does with pixels is known when it runs")
    with pytest.raises(ra.BadInputError, match=f"(?s){why}"):
        ENTRIES[entry](model, iter(()) if case == "empty generator" else given)


def test_a_data_set_is_refused_at_its_first_record_and_one_image_column_is_taken(
    model: VisionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    datasets = pytest.importorskip("datasets")
    rows = {"image": pictures(3), "label": [0, 1, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    records = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(ra.BadInputError, match="got dict"):
        model.encode_image(records)
    assert torch.equal(model.encode_image(records["image"]), model.encode_image(pictures(3)))
