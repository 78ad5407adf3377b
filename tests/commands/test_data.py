"""The card of a data set: what it counts and finds, and the files it writes whatever names hold."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from residualign._progress import Silent
from residualign.commands.data import FILES, DataRequest, run
from residualign.data.card import make_card
from residualign.errors import BadInputError
from residualign.figures import contact_sheet as sheets
from residualign.figures.contact_sheet import MAX_BYTES, ROWS, contact_sheet, drawable
from tests.data.make import class_folders, noise, parquet

NAMES = ("<script>alert(1)", "x|y*z_", "Großmütter 猫", "🐶 हिन्दी", "long " * 40, "a\tb")


def _card(path: Path | str, **options: object):
    return make_card(str(path), progress=Silent(), **options)


def test_counts_sizes_and_formats(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"a": 10, "b": 20})  # PNG, 5 x 3
    noise(900, (7, 11)).convert("L").save(root / "a" / "gray.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    noise(901, (13, 2)).save(root / "a" / "turned.tiff", exif=exif)
    card = _card(root, workers=0)
    assert card.counts == {"train": (9, 14), "val": (1, 2), "test": (2, 4)}
    assert (card.width.min, card.width.median, card.width.max) == (2, 5, 7)
    assert (card.height.min, card.height.median, card.height.max) == (3, 3, 13)
    assert card.formats == {"PNG": 30, "JPEG": 1, "TIFF": 1}
    assert card.modes == {"RGB": 31, "L": 1}
    assert (card.n_images, card.n_examined, card.limits) == (32, 32, None)
    assert card.to_json() == _card(root, workers=2).to_json()


def test_parquet_and_pixels_without_files(tmp_path: Path) -> None:
    assert _card(parquet(tmp_path / "train.parquet", [0, 1] * 7), workers=0).formats == {"PNG": 14}
    assert _card("digits", workers=0, quick=True).formats == {"pixels, no file": 579}


def test_bad_images_are_named_with_their_reason(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"a": 6, "b": 6})
    (root / "b" / "3.png").write_bytes(b"")
    (root / "b" / "notes.txt").write_text("hello")
    card = _card(root, workers=0)
    assert [(one.key, one.problem) for one in card.bad] == [("b/3.png", "it is empty (0 bytes)")]
    assert card.duplicates.across_splits == 0
    assert any("1 of 12 images is unreadable ('b/3.png')" in sentence for sentence in card.warnings)
    assert any("'b/notes.txt'" in sentence for sentence in card.warnings)


def test_equal_pixels_in_two_splits_are_a_leak(tmp_path: Path) -> None:
    for split, numbers in {"train": (1, 2, 3, 3), "test": (4, 2, 5)}.items():
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for i, number in enumerate(numbers):
                # the same pixels in another format are the same picture
                kind = "png" if split == "train" else "bmp"
                noise(number + (100 if label == "b" else 0)).save(tmp_path / split / label / f"{i}.{kind}")
    # of the same bytes, but another shape
    Image.fromarray(np.asarray(noise(1)).reshape(5, 3, 3)).save(tmp_path / "test" / "a" / "shape.png")
    noise(5).save(tmp_path / "test" / "b" / "other_class.png")
    (tmp_path / "val" / "a").mkdir(parents=True)
    noise(77).save(tmp_path / "val" / "a" / "0.png")
    found = _card(tmp_path, workers=0).duplicates
    assert (found.across_splits, found.within_split, found.across_classes) == (2, 3, 1)
    assert found.examples == (("train/a/1.png", "test/a/1.bmp"), ("train/b/1.png", "test/b/1.bmp"))


def test_quick_looks_at_a_few_of_each_class(tmp_path: Path) -> None:
    card = _card(class_folders(tmp_path, {"a": 40, "b": 11}), workers=0, quick=True)
    assert card.n_images == 51
    assert card.n_examined == (20 + 8) + (4 + 1) + (8 + 2)


@pytest.mark.parametrize(("layout", "words"), [("a", "only one class ('a')"), ("", "no class folders")])
def test_data_for_a_reference_set_only(tmp_path: Path, layout: str, words: str) -> None:
    (tmp_path / layout).mkdir(exist_ok=True)
    for i in range(7):
        noise(i).save(tmp_path / layout / f"{i}.png")
    card = _card(tmp_path, workers=0)
    assert card.n_images == 7
    assert words in (card.limits or "")
    assert any("only be used as a reference" in sentence for sentence in card.warnings)


def test_data_that_no_command_takes(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds no class folders and no images"):
        _card(tmp_path)
    with pytest.raises(BadInputError, match="no data at 'nowhere'"):
        _card("nowhere")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)


def test_files_hold_names_of_every_kind(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", dict.fromkeys(NAMES, 3))
    (root / NAMES[1] / "1.png").write_bytes(b"")
    run(DataRequest(name=str(root), out=tmp_path / "card", workers=0))
    assert {path.name for path in (tmp_path / "card").iterdir()} == set(FILES)
    page = (tmp_path / "card" / "README.md").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.tags == {"code"}
    rows = [line for line in page.splitlines() if line.endswith("| 1 | 1 | 1 |")]
    assert len(rows) == len(NAMES)
    assert {row.count("|") for row in rows} == {5}
    content = json.loads((tmp_path / "card" / "data.json").read_text())
    assert sorted(one["name"] for one in content["classes"]) == sorted(NAMES)
    assert [one["key"] for one in content["bad"]] == [f"{NAMES[1]}/1.png"]
    with Image.open(tmp_path / "card" / "contact_sheet.png") as picture:
        assert picture.height > len(NAMES) * 96


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path) -> None:
    root, out = class_folders(tmp_path / "data", {"a": 3, "b": 3}), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(BadInputError, match=r"contains 'thesis\.tex'"):
            run(DataRequest(name=str(root), out=out, overwrite=overwrite, workers=0))
    (out / "thesis.tex").rename(tmp_path / "file")
    with pytest.raises(BadInputError, match="is a file"):
        run(DataRequest(name=str(root), out=tmp_path / "file", workers=0))
    run(DataRequest(name=str(root), out=out, workers=0))
    with pytest.raises(BadInputError, match="add --overwrite"):
        run(DataRequest(name=str(root), out=out, workers=0))
    run(DataRequest(name=str(root), out=out, overwrite=True, workers=0))


def test_a_page_of_many_noisy_classes_stays_small_and_says_what_is_left() -> None:
    images = [noise(i, (97, 113)) for i in range(8)]
    page = contact_sheet([(str(i), images) for i in range(ROWS + 3)], "title")
    assert len(page) <= MAX_BYTES
    assert page == contact_sheet([(str(i), images) for i in range(ROWS + 3)], "title")
    assert page != contact_sheet([(str(i), images) for i in range(ROWS + 4)], "title")


def test_thumbnails_stand_in_their_rows() -> None:
    colors = [(200, 0, 0), (0, 150, 0), (0, 0, 250)]
    rows = [(str(i), [Image.new("RGB", (6, 5), color)] * (i + 1)) for i, color in enumerate(colors)]
    with Image.open(io.BytesIO(contact_sheet(rows, "t"))) as opened:
        page = np.asarray(opened.convert("RGB"))
    size = 96 * 80  # 6 x 5 pixels, sixteen times as large
    for i, color in enumerate(colors):
        where = np.argwhere((page == color).all(axis=-1))
        assert len(where) == (i + 1) * size
        # in the middle of the row, which is 96 high and 6 from the next
        assert (where[:, 0].min(), where[:, 0].max()) == (48 + i * 102, 48 + i * 102 + 79)


@pytest.mark.parametrize("system", [True, False])
def test_what_the_font_lacks_is_escaped(system: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = (sheets._font, sheets._missing, sheets._is_drawn, sheets._drawable)
    for cache in caches:
        cache.cache_clear()
    if not system:
        monkeypatch.setattr(sheets.ImageFont, "truetype", _no_font)
    try:
        assert drawable("abc, 1 <b>") == "abc, 1 <b>"
        assert drawable("猫\n\udc80") == r"\u732b\n\udc80"
        assert drawable("हि") == r"\u0939\u093f"
        assert drawable("\u00fc") in ("ü", "u")
    finally:
        monkeypatch.undo()
        for cache in caches:
            cache.cache_clear()


_TRUETYPE = ImageFont.truetype


def _no_font(font: object, *arguments: object, **options: object) -> ImageFont.FreeTypeFont:
    if isinstance(font, str):
        raise OSError("cannot open resource")
    return _TRUETYPE(font, *arguments, **options)
