"""Small files that stand for much: refused, or kept small, before memory is taken."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import residualign as ra
from residualign.data.load import load_data
from residualign.errors import BadInputError
from residualign.models.trust import check_sizes
from residualign.runs.opened import _pictures
from residualign.runs.results import _confusion, _read_confusion
from tests import random_models
from tests.cli.conftest import make_images

MB = 1 << 20


@contextmanager
def at_most(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def archive(path: Path, names: list[str], content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return path


def test_an_archive_that_unpacks_to_much_is_refused_unread(tmp_path: Path) -> None:
    path = archive(tmp_path / "thumbnails.zip", [f"{i}.jpg" for i in range(8)], bytes(10 * MB))
    assert path.stat().st_size < MB // 8
    with at_most(2 * MB), pytest.raises(BadInputError, match=r"holds 83,886,080 bytes.*at most 8,000,000; remove it"):
        _pictures(path)


def test_an_archive_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "thumbnails.zip", ["0.jpg"], bytes(40 * MB))
    size = (40 * MB).to_bytes(4, "little")
    told = path.read_bytes()
    assert told.count(size) == 2
    path.write_bytes(told.replace(size, (100).to_bytes(4, "little")))
    with at_most(4 * MB), pytest.raises(BadInputError, match=r"thumbnails.zip' is damaged; remove it"):
        _pictures(path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "thumbnails.zip", ["0.jpg", "1.jpg"], bytes(range(256)) * 20)
    assert set(_pictures(whole)) == {"0.jpg", "1.jpg"}
    content = bytearray(whole.read_bytes())
    for change in (40, 60, 100):
        broken = bytearray(content)
        broken[change] ^= 0xFF
        whole.write_bytes(broken)
        with pytest.raises(BadInputError, match="damaged; remove it"):
            _pictures(whole)


def test_aliases_of_aliases_are_refused(tmp_path: Path) -> None:
    data = make_images(tmp_path / "images", {"a": 3, "b": 3})
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))]
    bomb = tmp_path / "classes.yaml"
    bomb.write_text("\n".join([*lines, "classes: *a8"]) + "\n")
    with at_most(MB), pytest.raises(BadInputError, match=r"classes.yaml' is not valid.* it has aliases"):
        load_data(data, classes=bomb)


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _timm(folder: Path) -> str:
    random_models.save_timm(folder)
    _edit(folder / "config.json", lambda config: config["model_args"].update(img_size=100_000))
    return f"timm:local-dir:{folder}"


def _timm_pictures(folder: Path) -> str:
    random_models.save_timm(folder)
    _edit(folder / "config.json", lambda config: config["pretrained_cfg"].update(input_size=[3, 100_000, 100_000]))
    return f"timm:local-dir:{folder}"


def _open_clip(folder: Path) -> str:
    random_models.save_open_clip(folder)
    _edit(folder / "open_clip_config.json", lambda c: c["model_cfg"]["vision_cfg"].update(image_size=100_000))
    return f"open_clip:local-dir:{folder}"


def _clip(folder: Path) -> str:
    random_models.save_clip(folder)
    _edit(folder / "config.json", lambda config: config["vision_config"].update(image_size=100_000))
    return str(folder)


def _clip_pictures(folder: Path) -> str:
    random_models.save_clip(folder)
    _edit(folder / "preprocessor_config.json", lambda config: config.update(size={"shortest_edge": 100_000}))
    return str(folder)


@pytest.mark.parametrize("make", [_timm, _timm_pictures, _open_clip, _clip, _clip_pictures])
def test_a_tower_for_huge_pictures_is_refused_before_it_is_made(tmp_path: Path, make: Callable[[Path], str]) -> None:
    with pytest.raises(BadInputError, match=r" is 100,000, expected at most 4,096"):
        ra.load_model(make(tmp_path / "model"))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"a": [{"hidden_size": 10**6}]}, "hidden_size is 1,000,000, expected at most 65,536"),
        ({"num_hidden_layers": 10**5}, "num_hidden_layers is 100,000"),
        ({"image_size": 4096, "patch_size": 1}, "more than 512 patches of 1 on a side"),
        ({"image_size": [224, 10**9]}, "image_size is 1,000,000,000"),
    ],
)
def test_sizes_of_any_file_are_bounded(config: object, told: str) -> None:
    with pytest.raises(BadInputError, match=f"the file: .*{told}"):
        check_sizes(config, "the file")


def test_usual_sizes_and_anything_else_pass() -> None:
    for config in ({"image_size": 1536, "patch_size": 14, "hidden_size": 6144}, {"size": "x", "width": None}, [], 3):
        check_sizes(config, "the file")


def test_confusion_grows_with_the_images_not_with_the_square_of_the_classes() -> None:
    n_classes, generator = 16_000, torch.Generator().manual_seed(0)
    true, guess = (torch.randint(n_classes, (300,), generator=generator) for _ in range(2))
    with at_most(MB):
        pairs = _confusion(true, guess, n_classes)
    assert len(pairs) == len(set(zip(true.tolist(), guess.tolist(), strict=True)))
    assert list(pairs) == sorted(pairs)
    assert sum(n for _, _, n in pairs) == 300


def test_the_matrix_of_an_older_run_is_still_read() -> None:
    true, guess = torch.tensor([0, 0, 2, 1, 2, 0]), torch.tensor([0, 1, 2, 0, 2, 0])
    matrix = [[2, 1, 0], [1, 0, 0], [0, 0, 2]]
    pairs = _confusion(true, guess, 3)
    assert _read_confusion(matrix) == pairs == ((0, 0, 2), (0, 1, 1), (1, 0, 1), (2, 2, 2))
    stored = json.loads(json.dumps({"pairs": pairs}))
    assert _read_confusion(stored) == pairs
