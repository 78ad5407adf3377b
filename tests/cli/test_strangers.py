"""The commands on files from strangers: names that try to reach the terminal, links in the place of outputs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Ran, make_images
from tests.test_visible import hidden

Run = Callable[..., Ran]

EVIL = "\x1b]0;owned\x07cat\x1b[2J\u202e"


def test_names_of_classes_and_files_in_every_command(run: Run, clip: Path, tmp_path: Path) -> None:
    data = make_images(tmp_path / "images", {"dog": 12, EVIL: 12, "=1+1": 12})
    (data / "dog" / "00.png").rename(data / "dog" / f"{EVIL}.png")
    (data / "dog" / "01.png").write_bytes(b"no image")
    ran = run("data", data, "--out", tmp_path / "card")
    card = (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    out = tmp_path / "out"
    seen = [ran, run("adapt", clip, data, "--out", out, "--method", "linear", "--workers", "0", "--skip-bad")]
    seen.append(run("classify", out, data / "dog" / f"{EVIL}.png"))
    seen.append(run("evaluate", out, data, "--skip-bad", "--workers", "0"))
    # what a stranger planted in a finished run
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (out / "report.html.partial").symlink_to(precious)
    seen.append(run("report", out, "--out", out, "--format", "csv", "--overwrite"))
    seen.append(run("classify", out, tmp_path / f"no {EVIL}.png"))
    assert [one.code for one in seen] == [0, 0, 0, 0, 0, 2], [one.err for one in seen]
    assert precious.read_text() == "precious"
    assert r"cat\x1b[2J\u202e" in seen[0].out
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in (
        card,
        page,
        (out / "README.md").read_text(encoding="utf-8"),
        *(t for one in seen for t in (one.out, one.err)),
    ):
        assert not hidden(text), text
    names = {row["true"] for row in csv.DictReader(io.StringIO((out / "confusion.csv").read_text(encoding="utf-8")))}
    assert names == {"dog", EVIL, "'=1+1"}
