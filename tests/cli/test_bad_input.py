"""Everything a user may get wrong, through the real command: the exit code, the one sentence, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from residualign import _files
from residualign.store import DirectoryLock
from tests.cli.conftest import Ran, make_images

Run = Callable[..., Ran]


def test_an_empty_folder(run: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run("adapt", clip, tmp_path / "empty", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "empty" in ran.sentence
    assert "no class folders and no images" in ran.sentence
    assert not (tmp_path / "out").exists()


def test_one_class(run: Run, clip: Path, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", {"cat": 5})
    ran = run("adapt", clip, data, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "only one class ('cat')" in ran.sentence


def test_a_class_with_one_image_is_fine_with_text(run: Run, clip: Path, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", {"cat": 10, "dog": 1})
    ran = run("adapt", clip, data, "--out", tmp_path / "out", "--method", "coarse", "--json")
    assert ran.code == 0
    assert "warning: class 'dog' has too few images to be in every split" in ran.err
    assert ran.json["classifier"] == "text"


@pytest.mark.parametrize("model", ["vit", "clip"])
def test_a_class_with_one_image_has_no_class_mean_to_fit_with(
    run: Run, model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data", {"cat": 10, "dog": 1})
    means = ["--classifier", "means"] if model == "clip" else []
    ran = run("adapt", request.getfixturevalue(model), data, "--out", tmp_path / "out", *means)
    assert ran.code == 2
    assert "class 'dog' has only one training image" in ran.sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nnot really"], ids=["zero bytes", "corrupt"])
def test_an_image_that_cannot_be_read_is_named_and_can_be_skipped(
    run: Run, clip: Path, images: Path, tmp_path: Path, content: bytes
) -> None:
    (images / "dog" / "bad.png").write_bytes(content)
    command = ("adapt", clip, images, "--out", tmp_path / "out", "--method", "coarse")
    ran = run(*command)
    assert ran.code == 2
    assert "'dog/bad.png' cannot be used" in ran.sentence
    assert ran.sentence.endswith("leave such images out with --skip-bad")
    ran = run(*command, "--skip-bad", "--json")
    assert ran.code == 0
    assert (ran.json["n_skipped"], ran.json["skipped"]) == (1, ["dog/bad.png"])
    assert ran.json["n_train"] + ran.json["n_val"] + ran.json["n_test"] == 30


def test_something_else_among_the_images(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    (images / "dog" / "notes.txt").write_text("good dogs")
    command = ("extract", clip, images, "--store", tmp_path / "store")
    ran = run(*command)
    assert ran.code == 2
    assert "'dog/notes.txt' among the images" in ran.sentence
    ran = run(*command, "--skip-bad", "--json")
    assert ran.code == 0
    assert ran.json["skipped"] == ["dog/notes.txt"]


def test_every_mode_of_image(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    color = Image.open(images / "cat" / "00.png")
    folder = images / "cat"
    for mode in ("L", "P", "RGBA", "1", "LA"):
        color.convert(mode).save(folder / f"{mode}.png")
    color.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.arange(143, dtype=np.uint16).reshape(13, 11) * 400).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    color.save(folder / "turned.jpg", exif=exif)
    ran = run("extract", clip, images, "--store", tmp_path / "store", "--json")
    assert ran.code == 0
    assert ran.json["n_skipped"] == 0
    assert ran.json["n_train"] + ran.json["n_val"] + ran.json["n_test"] == 38


NAMES = ("T-shirt, blue", 'a "quoted" cat', "Großmütter 猫", "🐶", "<script>alert(1)", "[bold]not bold")


def test_class_names_of_every_kind(run: Run, clip: Path, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", dict.fromkeys(NAMES, 10))
    out = tmp_path / "out"
    ran = run("adapt", clip, data, "--out", out, "--classifier", "means", "--method", "coarse", "--json")
    assert ran.code == 0
    assert ran.json["classes"] == len(NAMES)
    evaluated = run("evaluate", out, data, "--json")
    assert {entry["name"] for entry in evaluated.json["adapted"]["per_class"]} == set(NAMES)
    shown = run("evaluate", out, data)
    assert all(name in shown.out for name in NAMES)
    assert json.loads((out / "summary.json").read_text())["class_names"] == sorted(NAMES)


def test_names_that_the_terminal_cannot_show_do_not_crash(clip: Path, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", {"🐶": 10, "猫": 10})
    out = tmp_path / "out"
    arguments = ["adapt", str(clip), str(data), "--out", str(out), "--classifier", "means", "--method", "coarse"]
    again = ["evaluate", str(out), str(data)]
    for command in (arguments, again):
        ran = _subprocess(command, PYTHONIOENCODING="ascii")
        assert ran.code == 0, ran.err
    assert "\\U0001f436" in ran.out


def test_data_that_is_a_file(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    ran = run("adapt", clip, images / "cat" / "00.png", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "is a file, expected a folder" in ran.sentence


def test_data_that_is_not_there(run: Run, clip: Path, tmp_path: Path) -> None:
    ran = run("adapt", clip, tmp_path / "nowhere", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "no data at" in ran.sentence


def test_output_that_is_a_file(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for more in ((), ("--overwrite",)):
        ran = run("adapt", clip, images, "--out", tmp_path / "out", *more)
        assert ran.code == 2
        assert "is a file, expected a folder" in ran.sentence
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_that_cannot_be_written(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    ran = run("adapt", clip, images, "--out", tmp_path / "locked" / "out")
    assert ran.code == 1
    assert "permission denied" in ran.sentence


def test_output_below_a_file_cannot_be_written(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ran = run("adapt", clip, images, "--out", tmp_path / "file" / "out")
    assert ran.code == 1
    assert "part of the path is a file" in ran.sentence


@pytest.mark.parametrize("fails_at", ["run.json", "train-00000.safetensors", "summary.json"])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on(
    run: Run, clip: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    command = ("adapt", clip, images, "--out", tmp_path / "out", "--method", "coarse", "--json")
    with monkeypatch.context() as patch:
        replace = os.replace

        def full(source: str | Path, target: str | Path) -> None:
            if Path(target).name == fails_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            replace(source, target)

        patch.setattr(_files.os, "replace", full)
        ran = run(*command)
        assert ran.code == 1
        assert "no space left on the device" in ran.sentence
        assert ran.out == ""
    ran = run(*command)
    assert ran.code == 0
    undisturbed = run(*command[:4], tmp_path / "undisturbed", *command[5:])
    assert ran.json["accuracy"] == undisturbed.json["accuracy"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(run: Run, clip: Path, images: Path, small_disk: Path) -> None:
    ran = run("adapt", clip, images, "--out", small_disk / "out")
    assert ran.code == 1
    assert "no space left on the device" in ran.sentence


def test_a_disk_that_is_read_only(run: Run, clip: Path, images: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ran = run("adapt", clip, images, "--out", small_disk / "out")
    assert ran.code == 1
    assert "the file system is read-only" in ran.sentence


def test_another_folder_is_never_touched(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("mine")
    for more in ((), ("--overwrite",)):
        ran = run("adapt", clip, images, "--out", mine, *more)
        assert ran.code == 2
        assert "is not empty and not a run of this command: it contains 'chapter.tex'" in ran.sentence
    assert [path.name for path in mine.iterdir()] == ["chapter.tex"]


def test_nan_in_the_weights(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(clip, model)
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if "vision_model.encoder.layers.1" in name and name.endswith("weight"))
    weights[name].flat[7] = np.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    ran = run("adapt", model, images, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "NaN" in ran.sentence
    assert not (tmp_path / "out").exists()


def test_a_model_without_preprocessing(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(clip, model, ignore=shutil.ignore_patterns("preprocessor_config.json", "processor_config.json"))
    ran = run("adapt", model, images, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "no readable image preprocessing" in ran.sentence


@pytest.mark.parametrize(
    "network",
    [
        pytest.param({"HF_HUB_OFFLINE": "1"}, id="offline by choice"),
        # the hub's client tries again for half a minute
        pytest.param({"HTTPS_PROXY": "http://127.0.0.1:9"}, id="nobody answers", marks=pytest.mark.slow),
    ],
)
def test_a_hub_id_without_network(images: Path, tmp_path: Path, network: dict[str, str]) -> None:
    arguments = ["adapt", "someone/some-clip", str(images), "--out", str(tmp_path / "out")]
    ran = _subprocess(arguments, HF_HOME=str(tmp_path / "hub"), **network)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "someone/some-clip" in ran.sentence


def test_two_runs_on_one_output(run: Run, clip: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with DirectoryLock(out):
        ran = run("adapt", clip, images, "--out", out)
        assert ran.code == 2
        assert f"another run is writing to {out}" in ran.sentence
    assert run("adapt", clip, images, "--out", out, "--method", "coarse").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "nonsense"), "no method 'nonsense'"),
        (("--method", "finetune"), "not available yet"),
        (("--device", "abacus"), "abacus"),
        (("--reference", "nowhere"), "no data at 'nowhere'"),
        (("--classes", "nowhere.yaml"), "nowhere.yaml"),
        (("--template", "no braces"), "{} exactly once"),
    ],
)
def test_options_that_cannot_be_used(
    run: Run, clip: Path, images: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    ran = run("adapt", clip, images, "--out", tmp_path / "out", *arguments)
    assert ran.code == 2
    assert words in ran.sentence


@pytest.mark.parametrize("arguments", [(), ("--shots", "0"), ("--mean", "maybe"), ("--nonsense",)])
def test_wrong_usage(run: Run, clip: Path, images: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    out = ("--out", tmp_path / "out") if arguments else ()
    ran = run("adapt", clip, images, *out, *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_a_store_that_is_none(run: Run, images: Path, tmp_path: Path) -> None:
    ran = run("adapt", images, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "is not a store; expected a store made by `residualign extract`, or MODEL and DATA" in ran.sentence


def test_an_adapter_that_is_none(run: Run, images: Path) -> None:
    ran = run("classify", images, images)
    assert ran.code == 2
    assert "is not an adapter" in ran.sentence


def _subprocess(arguments: list[str], **environment: str) -> Ran:
    ran = subprocess.run(
        [sys.executable, "-m", "residualign.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)
