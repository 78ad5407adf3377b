"""load_data: from what a user types to labelled images in three splits."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from residualign.data.folders import read_folder
from residualign.data.hub import parse_hub_name, read_hub
from residualign.data.hub_rows import StreamedRows
from residualign.data.parquet import holds_parquet, read_parquet
from residualign.data.partition import complete_splits
from residualign.data.prompts import DEFAULT_TEMPLATE, Classes, Templates, read_prompts, rename_classes
from residualign.data.registered import read_registered, registered_names
from residualign.data.split import ImageData, RawData, Split
from residualign.data.webdataset import COMPRESSED, holds_shards, read_shards
from residualign.errors import BadInputError

__all__ = ["load_data"]


def load_data(
    source: str | PathLike[str],
    *,
    classes: Classes = None,
    templates: Templates = None,
    seed: int = 42,
    split: bool = True,
    stream: bool = False,
) -> ImageData:
    """Labelled images from a folder, parquet files, WebDataset shards, the Hugging Face hub, or a registered name.

    source
        A folder of class folders, with train, val (or valid, validation) and test above them or not; a folder of
        `train|val|test.parquet` with columns `image` and `label`; a folder of WebDataset shards (`*.tar`), or one of
        them; `hf:org/name`, with `:config` and `@revision` or without; or a registered name such as `digits` or
        `cifar10`. An existing path wins over names.
    classes
        Names for the classes: a list in label order, a mapping from the data's own names, or a YAML or JSON file of
        either, which may hold templates as well (`{"classes": ..., "templates": [...]}`).
    templates
        Texts with one `{}` each, or a YAML or JSON file of them. Otherwise the data's own, or `"a photo of a {}."`.
    seed, split
        Splits that are missing are split off train, stratified; `residualign.data.partition` states the rule. With
        split=False nothing is split off, and a reference set may lack labels or have a single class.
    stream
        Read a set of the hub over the network as it is needed, and keep nothing of it: for one pass, in the order of
        the split. Images, keys, labels and splits are the same without, where the set is downloaded first. Local data
        are always read as they are needed.

    Pixels are read only when an image is asked for. Raises `BadInputError` for what cannot be used, naming it. Costs a
    listing of the folders, or a read of the label columns; for a set of the hub its download.

    >>> data = load_data("digits")
    >>> len(data.train), len(data.val), len(data.test), data.split_rule
    (1259, 179, 359, 'stratified 70/10/20, seed 42')
    """
    names, own_templates = read_prompts(classes, templates)
    n_names = len(names) if isinstance(names, tuple) else None
    raw = _read(source, labelled=split, n_classes=n_names, stream=stream)
    if split and len(raw.class_names) < 2:
        raise BadInputError(
            f"the data {str(source)!r} has only one class ({raw.class_names[0]!r}); at least two are needed"
        )
    class_names = rename_classes(raw.class_names, names)
    if split:
        splits, rule, notes = complete_splits(raw.splits, seed, class_names)
    else:
        splits = {name: raw.splits.get(name, Split.empty(name)) for name in ("train", "val", "test")}
        rule, notes = "own, nothing split off", ()
    splits = {name: _with_own_cursor(part) for name, part in splits.items()}
    return ImageData(
        name=str(source),
        class_names=class_names,
        templates=own_templates or raw.templates or (DEFAULT_TEMPLATE,),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        split_rule=rule,
        strays=raw.strays,
        notes=(*raw.notes, *notes),
    )


def _with_own_cursor(split: Split) -> Split:
    """A stream goes forward once for each split that is made of it; those that share one would begin it ever again."""
    if not isinstance(split.source, StreamedRows):
        return split
    return Split(split.name, split.keys, split.labels, split.source.of_rows(split.rows), split.rows)


def _read(source: str | PathLike[str], labelled: bool, n_classes: int | None, stream: bool) -> RawData:
    path = Path(source).expanduser()
    # os.path.exists, unlike Path.exists, is also False for names that no file system takes
    if not str(source).strip() or not os.path.exists(path):
        return _read_name(str(source), labelled, n_classes, stream)
    if not path.is_dir():
        if path.name.lower().endswith((".tar", *COMPRESSED)):
            return read_shards(path, labelled, n_classes)
        hint = f"; give the folder it lies in, {str(path.parent)!r}" if path.suffix == ".parquet" else ""
        raise BadInputError(
            f"the data {str(source)!r} is a file, expected a folder of images, parquet files or tar shards{hint}"
        )
    if holds_parquet(path):
        return read_parquet(path, labelled, n_classes)
    if holds_shards(path):
        return read_shards(path, labelled, n_classes)
    return read_folder(path, labelled)


def _read_name(name: str, labelled: bool, n_classes: int | None, stream: bool) -> RawData:
    if name in registered_names():
        return read_registered(name, labelled, stream)
    if name.startswith("hf:"):
        return read_hub(parse_hub_name(name), labelled, n_classes, stream)
    raise BadInputError(
        f"no data at {name!r}: expected a folder of class folders (with or without train, val and test above them), "
        "a folder of train|val|test.parquet, a folder of tar shards, a set of the hub (hf:org/name), "
        f"or a registered name ({', '.join(registered_names())})"
    )
