"""An image replaced on disk under the same name is noticed when a store is continued or opened with its data."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import residualign as ra
from residualign.models.vision_model import VisionModel

N = 20
_SAYS = r"changed on disk since the store .* read it"


@pytest.fixture(scope="module")
def model() -> VisionModel:
    return ra.load_model("mini")


def _draw(path: Path, seed: int) -> None:
    """A bitmap, whose size in bytes does not depend on what it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(N):
        _draw(tmp_path / "data" / ("cat", "dog")[i % 2] / f"{i:02}.bmp", seed=i)
    return tmp_path / "data"


def _extract(model: VisionModel, data: Path, path: Path, **options: object) -> ra.Store:
    return ra.extract(model, ra.load_data(data), path, workers=0, batch_size=4, shard_size=4, **options)


def test_a_finished_store_is_not_opened_for_other_images(model: VisionModel, folder: Path, tmp_path: Path) -> None:
    fingerprint = _extract(model, folder, tmp_path / "store").fingerprint
    size = (folder / "cat" / "06.bmp").stat().st_size
    _draw(folder / "cat" / "06.bmp", seed=100)
    assert (folder / "cat" / "06.bmp").stat().st_size == size
    with pytest.raises(ra.BadInputError, match=rf"^the image 'cat/06\.bmp' {_SAYS}"):
        _extract(model, folder, tmp_path / "store")
    _draw(folder / "dog" / "03.bmp", seed=101)
    with pytest.raises(ra.BadInputError, match=rf"'(cat/06|dog/03)\.bmp' and 1 more {_SAYS}"):
        _extract(model, folder, tmp_path / "store")
    # the old pictures, written anew
    _draw(folder / "cat" / "06.bmp", seed=6)
    _draw(folder / "dog" / "03.bmp", seed=3)
    assert _extract(model, folder, tmp_path / "store").fingerprint == fingerprint


def test_a_picture_moved_here_with_its_old_time_is_noticed(model: VisionModel, folder: Path, tmp_path: Path) -> None:
    _draw(tmp_path / "other.bmp", seed=100)
    os.utime(tmp_path / "other.bmp", (1, 1))
    _extract(model, folder, tmp_path / "store")
    shutil.move(tmp_path / "other.bmp", folder / "cat" / "00.bmp")
    with pytest.raises(ra.BadInputError, match=_SAYS):
        _extract(model, folder, tmp_path / "store")


def test_only_what_was_read_already_is_compared_when_a_store_is_continued(
    model: VisionModel, folder: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _extract(model, folder, tmp_path / "store", progress=stop)
    train = ra.load_data(folder).train
    _draw(folder / train.keys[0], seed=100)
    with pytest.raises(ra.BadInputError, match=_SAYS):
        _extract(model, folder, tmp_path / "store")
    _draw(folder / train.keys[0], seed=int(Path(train.keys[0]).stem))
    _draw(folder / train.keys[-1], seed=100)
    continued = _extract(model, folder, tmp_path / "store")
    fresh = _extract(model, folder, tmp_path / "fresh")
    for name in fresh.splits:
        assert bool((continued.split(name).embeddings() == fresh.split(name).embeddings()).all())


def test_untouched_images_are_not_read_again(
    model: VisionModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _extract(model, folder, tmp_path / "store")
    (folder / "dog" / "03.bmp").touch()
    read: list[str] = []
    monkeypatch.setattr(
        "residualign.data.folders.read_bytes", lambda path, key: read.append(key) or Path(path).read_bytes()
    )
    _extract(model, folder, tmp_path / "store")
    assert read == ["dog/03.bmp"]


def test_a_store_of_an_older_version_opens(
    model: VisionModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residualign.data.batches.image_mark", lambda data: "")
    made = _extract(model, folder, tmp_path / "store")
    _draw(folder / "cat" / "00.bmp", seed=100)
    assert _extract(model, folder, tmp_path / "store").fingerprint == made.fingerprint


def test_a_bad_image_that_was_mended_is_noticed(model: VisionModel, folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "00.bmp").write_bytes(b"nothing")
    assert _extract(model, folder, tmp_path / "store", skip_bad=True).skipped == ("cat/00.bmp",)
    assert _extract(model, folder, tmp_path / "store", skip_bad=True).skipped == ("cat/00.bmp",)
    _draw(folder / "cat" / "00.bmp", seed=0)
    with pytest.raises(ra.BadInputError, match=_SAYS):
        _extract(model, folder, tmp_path / "store", skip_bad=True)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_rows_of_a_file_that_is_replaced_are_noticed(
    model: VisionModel, folder: Path, tmp_path: Path, kind: str
) -> None:
    files = sorted(folder.rglob("*.bmp"))

    def pack() -> None:
        (tmp_path / "packed").mkdir(exist_ok=True)
        if kind == "parquet":
            rows = {"image": [one.read_bytes() for one in files], "label": [one.parent.name for one in files]}
            pq.write_table(pa.table(rows), tmp_path / "packed" / "train.parquet")
            return
        with tarfile.open(tmp_path / "packed" / "train-000.tar", "w") as shard:
            for i, one in enumerate(files):
                (tmp_path / "label").write_text(one.parent.name)
                shard.add(one, f"{i:03}.bmp")
                shard.add(tmp_path / "label", f"{i:03}.cls")

    pack()
    _extract(model, tmp_path / "packed", tmp_path / "store")
    pack()
    _extract(model, tmp_path / "packed", tmp_path / "store")
    _draw(files[7], seed=100)
    pack()
    with pytest.raises(ra.BadInputError, match=_SAYS):
        _extract(model, tmp_path / "packed", tmp_path / "store")
