"""Batches come in order, whole, and do not depend on workers or on bad images elsewhere."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from residualign.data import BadImageError, Split, batches, load_data
from residualign.data.batches import PixelLoader, pixel_batches, runs
from residualign.errors import BadInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(11):
        path = tmp_path / "data" / ("odd" if i % 2 else "even") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 3), (i, 0, 0)).save(path)
    return tmp_path / "data"


pytestmark = pytest.mark.usefixtures("fork_server")

WAYS = [{"workers": 0}, {"workers": 1}, {"workers": 3}, {"workers": 2, "processes": True}]


def _red(image: Image.Image) -> Tensor:
    red = image.getpixel((0, 0))[0]
    time.sleep(0.002 * (red % 3))  # so that threads finish out of order
    return torch.full((3, 1, 1), float(red))


def _split(folder: Path):
    return load_data(folder, split=False).train


@pytest.mark.parametrize(("way", "batch_size"), [*product(WAYS[:3], [1, 3, 11, 13]), (WAYS[3], 3)])
def test_order_and_cover(folder: Path, way: dict[str, int], batch_size: int) -> None:
    split = _split(folder)
    batches = list(pixel_batches(split, range(len(split)), _red, batch_size=batch_size, **way))
    assert [p for batch in batches for p in batch.positions] == list(range(11))
    assert all(len(batch.positions) == batch_size for batch in batches[:-1])
    values = torch.cat([batch.pixels for batch in batches])[:, 0, 0, 0]
    assert values.tolist() == [float(Path(key).stem) for key in split.keys]


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_image_is_named_or_skipped_in_place(folder: Path, way: dict[str, int]) -> None:
    (folder / "even" / "04.png").write_bytes(b"")
    split = _split(folder)
    with pytest.raises(BadImageError, match=r"even/04\.png"):
        list(pixel_batches(split, range(11), _red, batch_size=4, **way))
    batches = list(pixel_batches(split, range(11), _red, batch_size=4, **way, skip_bad=True))
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
    with pytest.raises(BadInputError, match="or larger"):
        list(pixel_batches(_split(folder), range(11), _red, **wrong))


@pytest.mark.parametrize("way", WAYS)
def test_workers_outlast_the_end_of_a_reading(folder: Path, way: dict[str, int]) -> None:
    split = _split(folder)
    wanted = [*runs(split, range(4), 3), *runs(split, (10, 5), 2)]
    with PixelLoader([split, Split.empty("val")], _red, **way) as loader:
        for _ in range(2):
            assert [batch.positions for batch in loader.read(wanted)] == [(0, 1, 2), (3,), (10, 5)]


class Cursor:
    """A source that one process reads in ascending order."""

    parallel = False

    def __init__(self) -> None:
        self.next = 0

    def image(self, row: int, key: str) -> Image.Image:
        assert row == self.next
        self.next += 1
        return Image.new("RGB", (2, 3), (row, 0, 0))


@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_is_not_parallel_is_read_by_one_process_in_order(way: dict[str, int]) -> None:
    source = Cursor()
    split = Split("train", tuple(map(str, range(23))), (0,) * 23, source, tuple(range(23)))
    read = list(pixel_batches(split, range(23), _red, batch_size=2, **way))
    assert torch.cat([batch.pixels for batch in read])[:, 0, 0, 0].tolist() == list(range(23))
    assert source.next == 23, "another process has read"


def test_pixels_go_through_a_pipe_where_shared_memory_is_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batches.has_room(1)
    assert not batches.has_room(2**60)
    monkeypatch.setattr(batches, "_SHARED_MEMORY", "nowhere")
    assert batches.has_room(2**60)
    split = _split(folder)
    read = batches._Read((split.source,), _red, False, 2)
    job = batches._Job(0, (0, 1), split.keys[:2])
    assert isinstance(read(job).pixels, torch.Tensor)
    monkeypatch.setattr(batches, "has_room", lambda n_bytes: False)
    assert isinstance(read(job).pixels, np.ndarray)
    (batch,) = pixel_batches(split, range(2), _red, batch_size=2, workers=1)
    assert torch.equal(batch.pixels[:, 0, 0, 0], torch.tensor([0.0, 2.0]))
