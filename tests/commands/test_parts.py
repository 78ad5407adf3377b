"""Thumbnails, examples, image arguments, statistics of units, and what a method is remembered by."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from residualign.data.folders import expand_images
from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.statistics import unit_statistics
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.fitting.fit import Accuracy
from residualign.load import load_model
from residualign.runs.results import MethodResult, UnitScale, head_shares
from residualign.runs.summary import MAX_BYTES, SIDE, choose_examples, make_thumbnails
from tests.random_models import save_vit


def noise(seed: int, width: int = 113, height: int = 151) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_equal_pictures_are_stored_once_and_equal_calls_give_equal_bytes() -> None:
    images = [("a", noise(1)), ("b", noise(2)), ("c", noise(1))]
    made = make_thumbnails(images)
    assert made.names["a"] == made.names["c"] != made.names["b"]
    assert made.content == make_thumbnails(images).content
    with zipfile.ZipFile(io.BytesIO(made.content)) as file:
        assert len(file.namelist()) == 2
        picture = Image.open(io.BytesIO(file.read(made.names["a"])))
    assert max(picture.size) == SIDE
    assert abs(picture.size[0] / picture.size[1] - 113 / 151) < 0.02


def test_a_picture_that_is_there_already_takes_no_room() -> None:
    one = len(make_thumbnails([("0", noise(0))]).content)
    made = make_thumbnails([(str(i), noise(0)) for i in range(7)], max_bytes=one + 10)
    assert len(made.names) == 7


def test_small_images_keep_their_size() -> None:
    made = make_thumbnails([("a", noise(1, 7, 5))])
    with zipfile.ZipFile(io.BytesIO(made.content)) as file:
        assert Image.open(io.BytesIO(file.read(made.names["a"]))).size == (7, 5)


@pytest.mark.parametrize("limit", [100, 20_000, 50_000])
def test_thumbnails_never_exceed_their_size(limit: int) -> None:
    made = make_thumbnails([(str(i), noise(i)) for i in range(23)], max_bytes=limit)
    assert len(made.content) <= limit
    one = len(make_thumbnails([("0", noise(0))]).content)
    # noise compresses equally badly everywhere: the limit is used up to about one picture
    assert len(made.names) >= min(limit // one - 1, 23)
    assert MAX_BYTES <= 2_000_000


def test_examples_take_turns_and_stay_within_bounds() -> None:
    labels = torch.arange(3).repeat_interleave(20)
    before, after = labels.clone(), labels.clone()
    before[[4, 9, 25]] = 2 - before[[4, 9, 25]] + 1
    after[[6, 30]] = (after[[6, 30]] + 1) % 3
    chosen = choose_examples(labels, before, after, each=4, most=13)
    assert chosen[:4] == [4, 6, 0, 9]
    assert all(int(labels[i]) == n // 3 for n, i in enumerate(choose_examples(labels, before, after, each=9, most=9)))
    assert len(choose_examples(labels, before, after, each=100, most=31)) <= 31
    assert choose_examples(labels[:0], before[:0], after[:0]) == []


def test_folders_stand_for_the_images_in_them(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "b/.hidden.png", "b/.git/3.png", "b/deep/0.webp", "b/notes.txt", "a.dat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    names = [str(path.relative_to(tmp_path)) for path in expand_images([tmp_path / "b", tmp_path / "a.dat"])]
    assert names == ["b/1.JPG", "b/2.png", "b/deep/0.webp", "a.dat"]
    (tmp_path / "empty").mkdir()
    for path, words in (("empty", "contains no images"), ("absent", "no such file or folder")):
        with pytest.raises(BadInputError, match=words):
            expand_images([tmp_path / path])


def test_unit_statistics_agree_with_all_contributions_at_once(tmp_path: Path) -> None:
    model = load_model(save_vit(tmp_path / "vit"), dtype="float64")
    maps = unit_maps(model.tower)
    coordinates = trace_coordinates(model.tower, model.tower.probe(17))
    values = torch.stack([maps.contribution(coordinates, unit) for unit in maps.units], dim=1)
    for batches in ([coordinates], [coordinates[:5], coordinates[5:16], coordinates[16:]]):
        found = unit_statistics(iter(batches), maps)
        torch.testing.assert_close(found.norm, values.square().sum(-1).mean(0).sqrt())
        torch.testing.assert_close(found.variance, values.var(dim=0, correction=0).sum(-1))
        centered = values - values.mean(0)
        output = coordinates.output - coordinates.output.mean(0)
        share = torch.einsum("iud,id->u", centered, output) / output.square().sum()
        torch.testing.assert_close(found.variance_share, share)
        assert float(found.variance_share.sum()) == pytest.approx(1.0)
        assert found.residual_error < 1e-12
        assert found.n_images == 17
    alone = unit_statistics([coordinates[:1]], maps)
    assert float(alone.variance_share.abs().sum()) == 0.0
    with pytest.raises(BadInputError, match="no images"):
        unit_statistics(list[Coordinates](), maps)


def test_heads_share_the_variance() -> None:
    units = (
        UnitScale("L0.mlp", 5, 100.0, 1.0),
        UnitScale("L0.H0", 3, 1.0, 9.0),
        UnitScale("L0.H1", 3, 3.0, 3.0),
    )
    result = MethodResult(
        "residual", Accuracy(val=1.0), 11, 2, None, 0.5, {}, "text", ((0, 0, 1),), ((0, 0, 1),), units
    )
    shares = head_shares(result)
    assert [(share.label, share.before, share.after) for share in shares] == [
        ("L0.H0", 0.25, 0.75),
        ("L0.H1", 0.75, 0.25),
    ]
    assert MethodResult.from_json(result.to_json()) == result


def test_where_there_is_no_room_for_all_what_is_wanted_first_is_kept() -> None:
    images = [(str(i), noise(i)) for i in range(11)]
    room = len(make_thumbnails(images[:4]).content)
    first_come = make_thumbnails(images, max_bytes=room).names
    wanted = make_thumbnails(images, max_bytes=room, wanted=["9", "7"]).names
    assert {"9", "7"} <= set(wanted)
    assert not {"9", "7"} & set(first_come)
    # equal pictures stay one file, whatever the order
    assert make_thumbnails(images, wanted=["9"]).content == make_thumbnails(images).content
