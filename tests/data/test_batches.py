"""Batches come in order, whole, and do not depend on threads or on bad images elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from residualign.data import BadImageError, load_data
from residualign.data.batches import pixel_batches
from residualign.errors import BadInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(11):
        path = tmp_path / "data" / ("odd" if i % 2 else "even") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 3), (i, 0, 0)).save(path)
    return tmp_path / "data"


def _red(image: Image.Image) -> Tensor:
    red = image.getpixel((0, 0))[0]
    time.sleep(0.002 * (red % 3))  # so that threads finish out of order
    return torch.full((3, 1, 1), float(red))


def _split(folder: Path):
    return load_data(folder, split=False).train


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 11, 13])
def test_order_and_cover(folder: Path, workers: int, batch_size: int) -> None:
    split = _split(folder)
    batches = list(pixel_batches(split, range(len(split)), _red, batch_size=batch_size, workers=workers))
    assert [p for batch in batches for p in batch.positions] == list(range(11))
    assert all(len(batch.positions) == batch_size for batch in batches[:-1])
    values = torch.cat([batch.pixels for batch in batches])[:, 0, 0, 0]
    assert values.tolist() == [float(Path(key).stem) for key in split.keys]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_named_or_skipped_in_place(folder: Path, workers: int) -> None:
    (folder / "even" / "04.png").write_bytes(b"")
    split = _split(folder)
    with pytest.raises(BadImageError, match=r"even/04\.png"):
        list(pixel_batches(split, range(11), _red, batch_size=4, workers=workers))
    batches = list(pixel_batches(split, range(11), _red, batch_size=4, workers=workers, skip_bad=True))
    assert [batch.skipped for batch in batches] == [("even/04.png",), (), ()]
    assert [len(batch.positions) for batch in batches] == [3, 4, 3]


def test_a_batch_of_bad_images_only(folder: Path) -> None:
    for name in ("00", "02"):
        (folder / "even" / f"{name}.png").write_bytes(b"nonsense")
    batches = list(pixel_batches(_split(folder), range(11), _red, batch_size=2, skip_bad=True))
    assert batches[0].pixels is None
    assert batches[0].positions == ()
    assert len(batches[0].skipped) == 2


def test_stopping_early_does_not_hang(folder: Path) -> None:
    batches = pixel_batches(_split(folder), range(11), _red, batch_size=1, workers=2)
    assert next(batches).positions == (0,)
    batches.close()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 1, "workers": -1}])
def test_wrong_sizes(folder: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(BadInputError, match="at least"):
        list(pixel_batches(_split(folder), range(11), _red, **wrong))
