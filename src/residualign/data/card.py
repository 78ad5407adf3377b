"""The card of a data set: counts, sizes, unreadable images, duplicates."""

from __future__ import annotations

import hashlib
import html
import statistics
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign._messages import plural, visible
from residualign._progress import Progress
from residualign.data.images import BadImageError, decode, stored_as
from residualign.data.load import load_data
from residualign.data.prefetch import WorkAhead
from residualign.data.sample import sample_rows
from residualign.data.split import EncodedSource, ImageData, ImageSource, Split
from residualign.errors import BadInputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DataCard", "Duplicates", "ImageFacts", "Spread", "card_markdown", "card_sheet", "make_card"]

_EXAMPLES = 20

# images per job
_CHUNK = 32


@dataclass(frozen=True)
class ImageFacts:
    """One image. width and height: in pixels, after EXIF rotation.

    stored_as: Pillow's format and mode; None if the source holds pixels instead of files. pixel_hash: equal for equal
    RGB pixels of equal shape. problem: why it cannot be read; nothing else is known then.
    """

    split: str
    key: str
    label: int
    stored_as: tuple[str, str] | None = None
    width: int = 0
    height: int = 0
    pixel_hash: bytes = b""
    problem: str | None = None


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest value."""

    min: int
    median: float
    max: int

    @staticmethod
    def of(values: Sequence[int]) -> Spread | None:
        """None if there are no values."""
        return Spread(min(values), float(statistics.median(values)), max(values)) if values else None


@dataclass(frozen=True)
class Duplicates:
    """Groups of images with the same pixels.

    across_splits: groups with images in more than one split: a model may be trained on its test images. within_split:
    the others. across_classes: groups of either kind with more than one label. examples: keys of the first groups
    across splits.
    """

    across_splits: int
    within_split: int
    across_classes: int
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class DataCard:
    """What is known about a data set.

    counts: images per class (in label order) by split. n_examined: how many were decoded, including unreadable ones.
    limits: why the data can only be used as a reference set; None if every command accepts it.
    """

    data: ImageData
    counts: dict[str, tuple[int, ...]]
    n_examined: int
    width: Spread | None
    height: Spread | None
    formats: dict[str, int]
    modes: dict[str, int]
    bad: tuple[ImageFacts, ...]
    duplicates: Duplicates
    limits: str | None

    @property
    def n_images(self) -> int:
        """Number of images in all splits, including unreadable ones."""
        return sum(map(sum, self.counts.values()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the data, one sentence each."""
        told = [*self.data.notes]
        if self.limits is not None:
            told.append(f"this data set can only be used as a reference: {self.limits}")
        if self.bad:
            told.append(
                f"{len(self.bad)} of {self.n_examined} images {'is' if len(self.bad) == 1 else 'are'} unreadable "
                f"({self.bad[0].key!r}{'' if len(self.bad) == 1 else ' first'})"
            )
        if self.data.strays:
            told.append(
                f"{plural(len(self.data.strays), 'file is not an image', 'files are not images')} "
                f"({self.data.strays[0]!r}{'' if len(self.data.strays) == 1 else ' first'})"
            )
        found = self.duplicates
        if found.across_splits:
            pair = " = ".join(repr(key) for key in found.examples[0][:2])
            told.append(
                f"leak: {_n_pictures(found.across_splits)} in more than one split, pixel for pixel ({pair} first)"
            )
        if found.across_classes:
            told.append(f"{_n_pictures(found.across_classes)} in more than one class, pixel for pixel")
        return tuple(told)

    def to_json(self) -> dict[str, Any]:
        """What `data --json` prints."""
        described = self.data.describe()
        return {
            "data": described["name"],
            "n_images": self.n_images,
            **{f"n_{split.name}": len(split) for split in self.data.splits},
            "n_classes": len(self.data.class_names),
            "classes": [
                {"name": name, **{split: counts[label] for split, counts in self.counts.items()}}
                for label, name in enumerate(self.data.class_names)
            ],
            "split_rule": self.data.split_rule,
            "templates": list(self.data.templates),
            "n_examined": self.n_examined,
            "width": None if self.width is None else asdict(self.width),
            "height": None if self.height is None else asdict(self.height),
            "formats": self.formats,
            "modes": self.modes,
            "n_bad": len(self.bad),
            "bad": [{"split": one.split, "key": one.key, "reason": one.problem} for one in self.bad],
            "duplicates": asdict(self.duplicates),
            "strays": list(self.data.strays),
            "reference_only": self.limits,
            "warnings": list(self.warnings),
        }


def make_card(
    name: str, *, stream: bool = False, quick: bool = False, workers: int = 2, progress: Progress
) -> DataCard:
    """The card of anything the commands accept as DATA, including reference sets (one class, no labels).

    quick: decode a few images per class instead of all, which may miss unreadable images and duplicates. Raises
    `BadInputError` for data that no command accepts. Decodes each image once, and keeps a hash of each in memory.
    """
    data, limits = _load(name, stream)
    wanted = [(split, sample_rows(split.labels) if quick else range(len(split))) for split in data.splits]
    facts = []
    with progress.task("images") as tick:
        total = sum(len(positions) for _, positions in wanted)
        for one in _examine(wanted, workers):
            facts.append(one)
            tick(len(facts), total)
    good = [one for one in facts if one.problem is None]
    kinds = [one.stored_as or ("pixels, no file", "RGB") for one in good]
    return DataCard(
        data=data,
        counts={split.name: split.class_counts(len(data.class_names)) for split in data.splits},
        n_examined=len(facts),
        width=Spread.of([one.width for one in good]),
        height=Spread.of([one.height for one in good]),
        formats=dict(Counter(kind for kind, _ in kinds).most_common()),
        modes=dict(Counter(mode for _, mode in kinds).most_common()),
        bad=tuple(one for one in facts if one.problem is not None),
        duplicates=_duplicates(good),
        limits=limits,
    )


def _n_pictures(n: int) -> str:
    return "1 picture is" if n == 1 else f"{n} pictures are"


def _load(name: str, stream: bool) -> tuple[ImageData, str | None]:
    try:
        return load_data(name, stream=stream), None
    except BadInputError as error:
        try:
            return load_data(name, split=False, stream=stream), str(error)
        except BadInputError:
            raise error from None


def _examine(wanted: Sequence[tuple[Split, Sequence[int]]], workers: int) -> Generator[ImageFacts, None, None]:
    """Facts about the images at these positions of these splits, in order; each is decoded once and not kept."""
    jobs, sources = [], []
    for split, positions in wanted:
        if positions:
            assert split.source is not None
            if split.source not in sources:
                sources.append(split.source)
            for start in range(0, len(positions), _CHUNK):
                chunk = positions[start : start + _CHUNK]
                images = tuple((split.rows[i], split.keys[i], split.labels[i]) for i in chunk)
                jobs.append(_Job(split.name, sources.index(split.source), images))
    one_thread = not all(getattr(source, "parallel", True) for source in sources)
    ahead: WorkAhead[_Job, list[ImageFacts]] = WorkAhead(
        partial(_facts_of, tuple(sources)),
        workers=min(workers, 1) if one_thread else workers,
        processes=False if one_thread else None,
    )
    with ahead, closing(ahead.map(jobs)) as answers:
        for facts in answers:
            yield from facts


@dataclass(frozen=True)
class _Job:
    split: str
    source: int
    images: tuple[tuple[int, str, int], ...]  # row, key, label


def _facts_of(sources: tuple[ImageSource, ...], job: _Job) -> list[ImageFacts]:
    return [_facts(sources[job.source], job.split, *image) for image in job.images]


def _facts(source: ImageSource, split: str, row: int, key: str, label: int) -> ImageFacts:
    kind = None
    try:
        if isinstance(source, EncodedSource):
            data = source.encoded(row, key)
            image, kind = decode(data, key), stored_as(data)
        else:
            image = source.image(row, key)
    except BadImageError as error:
        return ImageFacts(split, key, label, problem=error.reason)
    shape = f"{image.width}x{image.height} ".encode()
    pixels = hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest()
    return ImageFacts(split, key, label, kind, image.width, image.height, pixels)


def _duplicates(facts: Sequence[ImageFacts]) -> Duplicates:
    groups: defaultdict[bytes, list[ImageFacts]] = defaultdict(list)
    for one in facts:
        groups[one.pixel_hash].append(one)
    equal = [group for group in groups.values() if len(group) > 1]
    across = [group for group in equal if len({one.split for one in group}) > 1]
    return Duplicates(
        across_splits=len(across),
        within_split=len(equal) - len(across),
        across_classes=sum(len({one.label for one in group}) > 1 for group in equal),
        examples=tuple(tuple(one.key for one in group) for group in across[:_EXAMPLES]),
    )


def card_markdown(card: DataCard, sheet: str) -> str:
    """The card as a page of Markdown, with names escaped. sheet: the file of the contact sheet."""
    data = card.data
    lines = [f"# {_cell(data.name)}", ""]
    splits = ", ".join(f"{split.name} {len(split):,}" for split in data.splits)
    lines += [f"{plural(card.n_images, 'image')} of {plural(len(data.class_names), 'class', 'classes')}: {splits}.", ""]
    lines += [f"- splits: {_cell(data.split_rule)}"]
    looked = "all decoded" if card.n_examined == card.n_images else f"{card.n_examined:,} of them decoded (`--quick`)"
    lines += [f"- images: {looked}, {len(card.bad)} unreadable"]
    if card.width is not None and card.height is not None:
        for word, spread in (("width", card.width), ("height", card.height)):
            lines.append(f"- {word}: {spread.min} to {spread.max} pixels, median {spread.median:g}")
    for word, counted in (("formats", card.formats), ("modes", card.modes)):
        if counted:
            lines.append(f"- {word}: " + ", ".join(f"{_cell(name)} {count:,}" for name, count in counted.items()))
    lines += ["- prompts: " + ", ".join(f"<code>{_cell(template)}</code>" for template in data.templates), ""]
    if card.warnings:
        lines += ["## Warnings", "", *(f"- {_cell(sentence)}" for sentence in card.warnings), ""]
    lines += [f"![some images of each class]({sheet})", "", "## Classes", ""]
    names = [split.name for split in data.splits]
    lines += [f"| class | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for label, name in enumerate(data.class_names):
        lines.append(f"| {_cell(name)} | " + " | ".join(f"{card.counts[split][label]:,}" for split in names) + " |")
    if card.bad:
        lines += ["", "## Unreadable images", "", "| image | why |", "|---|---|"]
        lines += [f"| {_cell(one.key)} | {_cell(one.problem or '')} |" for one in card.bad]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """The text, escaped for Markdown and HTML."""
    return "".join(f"&#{ord(c)};" if c in "|*_`[]\\#~!" else html.escape(c) for c in visible(" ".join(text.split())))


def card_sheet(card: DataCard) -> bytes:
    """The contact sheet of a data set as PNG: the first readable images of its first classes."""
    from residualign.figures.contact_sheet import ROWS, contact_sheet

    data = card.data
    bad = {one.key for one in card.bad}
    rows = [(name, list(_pictures(card, label, bad))) for label, name in enumerate(data.class_names[:ROWS])]
    # further classes are only counted on the page
    rest: list[tuple[str, list[Image.Image]]] = [(name, []) for name in data.class_names[ROWS:]]
    return contact_sheet(
        [*rows, *rest], f"{Path(data.name).name}: {plural(card.n_images, 'image')}", f"splits: {data.split_rule}"
    )


def _pictures(card: DataCard, label: int, bad: set[str]) -> Iterator[Image.Image]:
    """The first readable images of a class, the training split first."""
    from residualign.figures.contact_sheet import COLUMNS

    found = 0
    for split in card.data.splits:
        for position, own in enumerate(split.labels):
            if found == COLUMNS:
                return
            if own == label and split.keys[position] not in bad:
                # with --quick not every bad image is known
                with suppress(BadImageError):
                    yield split.image(position)
                    found += 1
