"""`residualign data`: the registered data sets, or the card of one data set and its files."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import OUTPUT, Overwrite, Quick, Stream, Workers, argument, flag
from residualign.commands._request import NEUTRAL

if TYPE_CHECKING:
    from residualign.data.card import DataCard
    from residualign.data.registered import RegisteredSet

__all__ = ["FILES", "CardOutcome", "DataRequest", "SetsOutcome", "run"]

FILES = ("README.md", "data.json", "contact_sheet.png")
"""What is written into the folder."""


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """Describe a data set: classes and splits, sizes, unreadable images, duplicates across splits.

    Decodes every image, or with --quick a sample. --out writes a card, its JSON and a contact sheet. Without DATA,
    lists the registered names.
    """

    name: Annotated[
        str | None,
        argument(
            "DATA",
            "Data set: a folder, hf:org/name, or a registered name. Leave out to list the registered names.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        flag("--out", OUTPUT, "Output directory for the card, its JSON and the contact sheet.", metavar="DIR"),
        NEUTRAL,
    ] = None
    stream: Stream = False
    quick: Quick = False
    overwrite: Overwrite = False
    workers: Workers = 2


@dataclass(frozen=True, repr=False, eq=False)
class SetsOutcome(Result):
    """The registered data sets."""

    sets: tuple[RegisteredSet, ...]

    def to_json(self) -> dict[str, Any]:
        """What `data --json` prints."""
        return {"names": [one.name for one in self.sets], "sets": [asdict(one) for one in self.sets]}


@dataclass(frozen=True, repr=False, eq=False)
class CardOutcome(Result):
    """The card of one data set."""

    request: DataRequest
    card: DataCard

    def to_json(self) -> dict[str, Any]:
        """What `data DATA --json` prints."""
        return self.card.to_json() | {"out": None if self.request.out is None else str(self.request.out)}


def run(request: DataRequest, progress: Progress = SILENT) -> SetsOutcome | CardOutcome:
    """The card of DATA; with `out`, its Markdown, JSON and contact sheet in that folder.

    Raises `BadInputError` for data that no command takes, and, before anything is read, for an `out` that is a file,
    has other files in it, or has a card (unless overwrite); `RunError` where it cannot be written.
    """
    from residualign.data import registered_sets
    from residualign.data.card import make_card
    from residualign.errors import BadInputError

    if request.name is None:
        given = {"--out": request.out, "--quick": request.quick, "--stream": request.stream}
        if used := [flag for flag, value in given.items() if value]:
            raise BadInputError(f"{used[0]} needs DATA: a folder or a registered name")
        return SetsOutcome(tuple(registered_sets()))
    if request.out is not None:
        _check_out(request.out, request.overwrite)
    card = make_card(
        request.name, stream=request.stream, quick=request.quick, workers=request.workers, progress=progress
    )
    for sentence in card.warnings:
        progress.warn(sentence)
    if request.out is not None:
        _write(card, request.out)
    return CardOutcome(request, card)


def _write(card: DataCard, out: Path) -> None:
    from residualign._files import json_bytes, publish, saying_what_is_kept
    from residualign.data.card import card_markdown, card_sheet

    contents = (
        card_markdown(card, FILES[-1]).encode("utf-8", "backslashreplace"),
        json_bytes(card.to_json()),
        card_sheet(card),
    )
    with saying_what_is_kept(out, "no image was changed"):
        out.mkdir(parents=True, exist_ok=True)
        for file, content in zip(FILES, contents, strict=True):
            publish(out / file, content)


def _check_out(folder: Path, overwrite: bool) -> None:
    from residualign.errors import BadInputError

    if os.path.lexists(folder) and not folder.is_dir():
        raise BadInputError(f"{str(folder)!r} is a file, expected a folder or a new name")
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    others = [name for name in names if name not in FILES]
    if others:
        raise BadInputError(f"the folder {str(folder)!r} contains {others[0]!r}; choose a new or an empty folder")
    if names and not overwrite:
        raise BadInputError(f"{str(folder)!r} contains a card; add --overwrite to replace it, or choose another folder")
