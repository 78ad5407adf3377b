"""`residualign data`: the card of a data set, and its files."""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from residualign._files import publish, saying_what_is_kept
from residualign._progress import Watcher
from residualign.data.images import BadImageError
from residualign.errors import BadInputError
from residualign.figures.contact_sheet import COLUMNS, ROWS, contact_sheet
from residualign.workflow.data_card import DataCard, make_card

__all__ = ["FILES", "card_markdown", "run_data"]

FILES = ("README.md", "data.json", "contact_sheet.png")
"""What is written into the folder."""


def run_data(
    name: str,
    *,
    out: Path | None = None,
    stream: bool = False,
    quick: bool = False,
    overwrite: bool = False,
    workers: int = 2,
    watch: Watcher,
) -> DataCard:
    """The card of DATA; with `out`, its Markdown, JSON and contact sheet in that folder.

    Raises `BadInputError` for data that no command takes, and, before anything is read, for an `out` that is a file,
    holds other files, or holds a card (unless overwrite); `RunError` where it cannot be written.
    """
    if out is not None:
        _check_out(out, overwrite)
    card = make_card(name, stream=stream, quick=quick, workers=workers, watch=watch)
    if out is not None:
        contents = (card_markdown(card), json.dumps(card.to_json(), indent=1) + "\n")
        with saying_what_is_kept(out, "no image was changed"):
            out.mkdir(parents=True, exist_ok=True)
            for file, text in zip(FILES, contents, strict=False):
                publish(out / file, text.encode("utf-8", "backslashreplace"))
            publish(out / FILES[-1], _sheet(card))
    return card


def card_markdown(card: DataCard) -> str:
    """The card as a page of Markdown; names are escaped, so that they are read as they are."""
    data = card.data
    lines = [f"# {_cell(data.name)}", ""]
    splits = ", ".join(f"{split.name} {len(split):,}" for split in data.splits)
    lines += [f"{card.n_images:,} images of {len(data.class_names):,} classes: {splits}.", ""]
    lines += [f"- splits: {_cell(data.split_rule)}"]
    looked = "all decoded" if card.n_examined == card.n_images else f"{card.n_examined:,} of them decoded (`--quick`)"
    lines += [f"- images: {looked}, {len(card.bad)} cannot be read"]
    if card.width is not None and card.height is not None:
        for word, spread in (("width", card.width), ("height", card.height)):
            lines.append(f"- {word}: {spread.min} to {spread.max} pixels, median {spread.median:g}")
    for word, counted in (("formats", card.formats), ("modes", card.modes)):
        if counted:
            lines.append(f"- {word}: " + ", ".join(f"{_cell(name)} {count:,}" for name, count in counted.items()))
    lines += ["- prompts: " + ", ".join(f"<code>{_cell(template)}</code>" for template in data.templates), ""]
    if card.warnings:
        lines += ["## Mind", "", *(f"- {_cell(sentence)}" for sentence in card.warnings), ""]
    lines += [f"![some images of each class]({FILES[-1]})", "", "## Classes", ""]
    names = [split.name for split in data.splits]
    lines += [f"| class | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for label, name in enumerate(data.class_names):
        lines.append(f"| {_cell(name)} | " + " | ".join(f"{card.counts[split][label]:,}" for split in names) + " |")
    if card.bad:
        lines += ["", "## Images that cannot be read", "", "| image | why |", "|---|---|"]
        lines += [f"| {_cell(one.key)} | {_cell(one.problem or '')} |" for one in card.bad]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that neither Markdown nor HTML takes for anything else."""
    return "".join(f"&#{ord(c)};" if c in "|*_`[]\\#~!" else html.escape(c) for c in " ".join(text.split()))


def _sheet(card: DataCard) -> bytes:
    data = card.data
    bad = {one.key for one in card.bad}
    rows = [(name, list(_pictures(card, label, bad))) for label, name in enumerate(data.class_names[:ROWS])]
    # further classes are only counted on the page
    rest: list[tuple[str, list[Image.Image]]] = [(name, []) for name in data.class_names[ROWS:]]
    return contact_sheet(
        [*rows, *rest], f"{Path(data.name).name}: {card.n_images:,} images", f"splits: {data.split_rule}"
    )


def _pictures(card: DataCard, label: int, bad: set[str]) -> Iterator[Image.Image]:
    """The first images of a class that can be read, of the training split first."""
    found = 0
    for split in card.data.splits:
        for position, own in enumerate(split.labels):
            if found == COLUMNS:
                return
            if own == label and split.keys[position] not in bad:
                # with --quick not every bad image is known
                with contextlib.suppress(BadImageError):
                    yield split.image(position)
                    found += 1


def _check_out(folder: Path, overwrite: bool) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise BadInputError(f"{str(folder)!r} is a file, expected a folder or a new name")
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    others = [name for name in names if name not in FILES]
    if others:
        raise BadInputError(f"the folder {str(folder)!r} holds {others[0]!r}; choose a new or an empty folder")
    if names and not overwrite:
        raise BadInputError(f"{str(folder)!r} holds a card; add --overwrite to replace it, or choose another folder")
