"""Data sets of the Hugging Face hub: `hf:org/name`, `hf:org/name:config`, either with `@revision`.

They are loaded by the `datasets` library, into its cache or as a stream; it is imported on first use. Splits are train,
val (or valid, validation) and test; others are left out with a note, and a set with a single split of another name is
used as training images. Keys are split and row (`"train/17"`), as in parquet folders; keys and labels do not depend on
whether the set is streamed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residualign.data.hub_rows import DownloadedRows, HubStream, StreamedRows, http_error, hub_errors, not_decoded
from residualign.data.labels import number_labels
from residualign.data.split import ImageSource, RawData, Split, split_name
from residualign.errors import BadInputError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

__all__ = ["HubSet", "HubSource", "class_names_of", "image_column", "label_column", "parse_hub_name", "read_hub"]

_NAME = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<config>[^@\s]+))?(@(?P<revision>\S+))?", re.ASCII
)

_SECONDS = 20.0  # timeout for asking the hub for a commit

_SMALL = 1 << 16  # bytes requested at a time for small columns; by default the library reads megabytes

_BLOCK = 4096  # rows of labels read from a stream at a time

IMAGE_NAMES = ("image", "img", "images", "pixel_values", "picture", "jpg", "jpeg", "png", "webp")
"""A column of plain bytes with one of these names holds the images; an Image feature needs no name."""

LABEL_NAMES = ("label", "labels", "class", "fine_label", "cls", "target", "category", "class_id")
"""A column with one of these names holds the labels, if none has a ClassLabel feature."""


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A data set of the hub.

    image, label: its columns, where there are several candidates. splits: train, val, test -> its own names, where they
    differ. only: (column, value) of the rows to use.
    """

    repo: str
    config: str | None = None
    revision: str | None = None
    image: str | None = None
    label: str | None = None
    splits: Mapping[str, str] | None = None
    only: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class HubSet(HubSource):
    """A data set of the hub, and what is known about it.

    name: as typed. classes: names of integer labels that have none. n_classes: the expected number of classes.
    """

    name: str
    classes: tuple[str, ...] | None = None
    n_classes: int | None = None


@dataclass(frozen=True)
class _Opened:
    """One split: its features, and its rows as a `Dataset` or a stream."""

    features: Mapping[str, Any]
    rows: Any
    stream: HubStream | None

    def table(self, columns: Sequence[str]) -> pa.Table:
        """These columns of all rows, without images."""
        import pyarrow as pa

        if self.stream is None:
            return self.rows.select_columns(list(columns)).with_format("arrow")[:]
        blocks = list(self.stream.open(columns, _SMALL).with_format("arrow").iter(_BLOCK))
        return pa.concat_tables(blocks) if blocks else pa.table({column: [] for column in columns})

    def source(self, column: str, name: str) -> ImageSource:
        if self.stream is not None:
            return StreamedRows(self.stream, column)
        return DownloadedRows(name, not_decoded(self.rows.select_columns([column])), column)


def parse_hub_name(name: str) -> HubSet:
    """Parse `hf:org/name` or `hf:org/name:config`, either with `@revision`.

    >>> found = parse_hub_name("hf:ufldl-stanford/svhn:cropped_digits@main")
    >>> found.repo, found.config, found.revision
    ('ufldl-stanford/svhn', 'cropped_digits', 'main')
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadInputError(f"{name!r} must be hf:org/name or hf:org/name:config, either with @revision")
    return HubSet(name=name, repo=match["repo"], config=match["config"], revision=match["revision"])


def read_hub(wanted: HubSet, labeled: bool = True, n_classes: int | None = None, stream: bool = False) -> RawData:
    """The splits of a hub data set.

    labeled and n_classes as in `read_parquet`. Without `stream` the whole set is downloaded into the library's cache,
    from which it is also read without a network. With `stream` nothing is kept: the label column is read first, and
    images come in ascending order of rows, over the network at each pass. Raises `BadInputError` for a set that does
    not exist, is gated or cannot be reached, has no column or several columns of images or labels, or has labels that
    `residualign.data.labels` refuses.
    """
    with hub_errors(wanted.name):
        opened = _open(wanted, stream)
        own, unused = _own_splits(wanted, list(opened))
        splits = {split: opened[theirs] for split, theirs in own.items()}
        features = next(iter(splits.values())).features
        image = image_column(features, wanted.name, wanted.image)
        label = label_column(features, wanted.name, wanted.label, labeled)
        tables = {split: _small_columns(one, label, wanted.only) for split, one in splits.items()}
    rows = {split: _rows(table, features, wanted) for split, table in tables.items()}
    columns = {
        split: None if label is None else table.column(label).take(rows[split]).to_pylist()
        for split, table in tables.items()
    }
    found = number_labels(
        columns,
        {split: len(numbers) for split, numbers in rows.items()},
        wanted.name,
        declared=class_names_of(features[label]) or wanted.classes if label is not None else None,
        n_classes=n_classes,
        labeled=labeled,
        where=lambda split, i: f"row {rows[split][i]} of {split}",
    )
    if wanted.n_classes is not None and label is not None and len(found.class_names) != wanted.n_classes:
        raise BadInputError(
            f"{wanted.name!r} ({wanted.repo}) has {len(found.class_names)} classes on the hub, "
            f"expected {wanted.n_classes}"
        )
    made = {
        split: Split(
            split,
            tuple(f"{split}/{row}" for row in rows[split]),
            labels,
            splits[split].source(image, wanted.name),
            tuple(rows[split]),
        )
        for split, labels in found.labels.items()
    }
    notes = tuple(f"the split {name!r} of {wanted.name!r} is not used" for name in unused)
    return RawData(made, found.class_names, notes=(*notes, *found.notes))


def _open(wanted: HubSet, stream: bool) -> dict[str, _Opened]:
    """Every split of the set, under the set's own name for it."""
    from datasets import load_dataset, load_dataset_builder

    revision = _commit(wanted) or wanted.revision
    if not stream:
        loaded = load_dataset(wanted.repo, wanted.config, revision=revision)
        return {name: _Opened(rows.features, rows, None) for name, rows in loaded.items()}
    # columns can be selected if the files are parquet
    picks = hasattr(load_dataset_builder(wanted.repo, wanted.config, revision=revision).config, "columns")
    loaded = load_dataset(wanted.repo, wanted.config, revision=revision, streaming=True)
    opened = {}
    for name, rows in loaded.items():
        if rows.features is None:
            raise BadInputError(f"{wanted.name!r} does not list its columns before it is read; do not stream it")
        source = HubStream(wanted.name, wanted.repo, wanted.config, revision, name, picks)
        opened[name] = _Opened(rows.features, rows, source)
    return opened


def _commit(wanted: HubSet) -> str | None:
    """The commit the revision points to now; None if the hub cannot be reached and the cache must be used."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi(endpoint=datasets.config.HF_ENDPOINT).dataset_info(
            wanted.repo, revision=wanted.revision, timeout=_SECONDS
        )
    except (HfHubHTTPError, http_error(), ConnectionError) as error:
        # a server error is like a hub that cannot be reached; a refusal is not
        if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code < 500:
            raise
        _refuse_where_not_cached(wanted)
        return None
    return info.sha


def _refuse_where_not_cached(wanted: HubSet) -> None:
    """Check the cache before the library does: it would first try the hub for half a minute."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, name = wanted.repo.split("/")
    if not any(Path(datasets.config.HF_DATASETS_CACHE).glob(f"{owner}___{camelcase_to_snakecase(name)}/*/*/*")):
        raise ConnectionError
    if wanted.revision is not None:
        # the cache is not searched by revision: a different one would be used silently
        raise BadInputError(
            f"the hub cannot be reached, and the local cache does not say which revision of {wanted.repo!r} it holds; "
            f"leave out @{wanted.revision} to use it"
        )


def _own_splits(wanted: HubSet, theirs: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """A mapping from train, val and test to the set's own names, and the splits that are not used."""
    if wanted.splits is not None:
        missing = [name for name in wanted.splits.values() if name not in theirs]
        if missing:
            raise BadInputError(f"{wanted.name!r} has no split {missing[0]!r} on the hub, only {', '.join(theirs)}")
        return dict(wanted.splits), ()
    found: dict[str, str] = {}
    for name in theirs:
        split = split_name(name)
        if split in found:
            raise BadInputError(f"{wanted.name!r} holds the {split} split twice: {found[split]} and {name}")
        if split is not None:
            found[split] = name
    if not found and len(theirs) == 1:
        return {"train": theirs[0]}, ()
    if not found:
        raise BadInputError(f"{wanted.name!r} has no split called train, val or test, only {', '.join(theirs)}")
    ordered = {str(split): found[split] for split in ("train", "val", "test") if split in found}
    return ordered, tuple(name for name in theirs if name not in found.values())


def _small_columns(opened: _Opened, label: str | None, only: tuple[str, str] | None) -> pa.Table:
    """The label column and the column that selects rows; without either, the first column, to count rows."""
    columns = [name for name in (label, only[0] if only else None) if name is not None]
    if not columns and opened.stream is None:
        return opened.rows.data.table.select([])
    return opened.table(columns or list(opened.features)[:1])


def _rows(table: pa.Table, features: Mapping[str, Any], wanted: HubSet) -> list[int]:
    """Positions of the rows to use."""
    if wanted.only is None:
        return list(range(table.num_rows))
    column, value = wanted.only
    names = class_names_of(features[column])
    told = [names[cell] if names else cell for cell in table.column(column).to_pylist()]
    rows = [row for row, cell in enumerate(told) if cell == value]
    if not rows:
        raise BadInputError(f"no row of {wanted.name!r} has {value!r} in column {column!r}")
    return rows


def image_column(features: Features, name: str, wanted: str | None = None) -> str:
    """The one column with the Image feature, else the one of bytes with a name in `IMAGE_NAMES`.

    wanted: the column, if known. name: the data set, for errors. Raises `BadInputError` naming the columns if there is
    no such column, or more than one.
    """
    if wanted is not None:
        return _present(features, wanted, name)
    found = [column for column, feature in features.items() if _kind(feature) == "Image"]
    if not found:
        found = [column for column in IMAGE_NAMES if column in features and _holds_bytes(features[column])]
    return _only(found, "image", features, name)


def label_column(features: Features, name: str, wanted: str | None = None, labeled: bool = True) -> str | None:
    """The one column with the ClassLabel feature, else the one with a name in `LABEL_NAMES`.

    wanted and name as in `image_column`. None if there is none and none is needed. Raises `BadInputError` naming the
    columns if there is no such column, more than one, or one with several labels per image.
    """
    if wanted is not None:
        found = [_present(features, wanted, name)]
    else:
        found = [column for column, feature in features.items() if _kind(feature) == "ClassLabel"]
        found = found or [column for column in LABEL_NAMES if column in features]
        if not found and not labeled:
            return None
    column = _only(found, "label", features, name)
    feature = features[column]
    if _kind(feature) not in ("ClassLabel", "Value"):
        raise BadInputError(
            f"column {column!r} of {name!r} holds several labels per image ({_kind(feature)}); expected one"
        )
    return column


def class_names_of(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel feature; None for any other."""
    return tuple(feature.names) if _kind(feature) == "ClassLabel" and feature.names else None


def _only(found: Sequence[str], what: str, features: Mapping[str, Any], name: str) -> str:
    if len(found) > 1:
        raise BadInputError(f"{name!r} has several {what} columns ({', '.join(found)}); expected one")
    if not found:
        raise BadInputError(f"{name!r} has no {what} column, only {', '.join(features)}")
    return found[0]


def _present(features: Mapping[str, Any], column: str, name: str) -> str:
    if column not in features:
        raise BadInputError(f"{name!r} has no column {column!r}, only {', '.join(features)}")
    return column


def _kind(feature: Any) -> str:
    # by name: a nested feature is a list or dict in some versions of the library and a class in others
    return type(feature).__name__


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return "bytes" in feature and _holds_bytes(feature["bytes"])
    return _kind(feature) == "Value" and feature.dtype in ("binary", "large_binary")
